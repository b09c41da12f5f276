"""`python -m sims.printed MODULE REQUEST`: runs a module so that no terminal obeys its output.

Names of files and nodes are in that output, and may contain control characters.
"""

import runpy
import sys

from fed_ist.printable import guard_log, guard_terminal

if __name__ == "__main__":
    guard_terminal()
    guard_log("flwr")
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
