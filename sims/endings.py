"""The exit code of a command's process, with a sentence on what went wrong."""

import sys
from collections.abc import Callable

from fed_ist.errors import InputError

REFUSED, INTERRUPTED = 2, 130


def exit_code(work: Callable[[], int], interrupted: str = "Interrupted.") -> int:
    """The return value of `work`; 2 where it raises `InputError`, 130 where it is interrupted.

    In either case a sentence goes to stderr. interrupted: the sentence for an interruption.
    """
    try:
        return work()
    except InputError as error:
        print(f"fed-ist: {error}", file=sys.stderr)
        return REFUSED
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        return INTERRUPTED
