"""How the process of a command ends: one sentence and an exit code for what went wrong."""

import sys
from collections.abc import Callable

from fed_ist.errors import InputError

REFUSED, INTERRUPTED = 2, 130


def exit_code(work: Callable[[], int], interrupted: str = "Interrupted.") -> int:
    """What `work` returns; 2 where it raises `InputError`, 130 where it is interrupted.

    The sentence of either goes to stderr. interrupted: what to say then.
    """
    try:
        return work()
    except InputError as error:
        print(f"fed-ist: {error}", file=sys.stderr)
        return REFUSED
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        return INTERRUPTED
