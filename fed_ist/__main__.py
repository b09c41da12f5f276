"""`python -m fed_ist`: the command where its script is not on the path."""

from fed_ist.cli.main import main

main()
