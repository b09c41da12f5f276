"""`python -m sims.printed MODULE REQUEST`: runs an experiment whose output no terminal obeys."""

import runpy
import sys

from fed_ist.printable import guard_log, guard_terminal

if __name__ == "__main__":
    guard_terminal()
    guard_log("flwr")
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
