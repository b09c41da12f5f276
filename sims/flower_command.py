"""The `flwr` command, which loads beside the SuperLink's start and begins with a line of input.

Without the line it ends, so that it does not outlive the command that started it.
"""

import signal
import sys


def main() -> None:
    """`flwr` with this process's arguments."""
    # While this loads, Ctrl-C would print where in Flower's imports it was.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from flwr.cli.app import app

    if not sys.stdin.readline():
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    app(prog_name="flwr")


if __name__ == "__main__":
    main()
