"""The one exception that means "the user gave us something we cannot use".

The command line prints its message and exits with code 2, without a traceback. Anything else that
is raised is a defect of ours and keeps its traceback.
"""

import errno
from collections.abc import Iterable

from fed_ist.printable import printable


class InputError(ValueError):
    """Bad input: the message names the value, what is accepted, and what to do."""


def require_choice(kind: str, value: str, choices: Iterable[str]) -> None:
    """Raise `InputError` unless `value` is one of `choices`, naming them all."""
    names = sorted(choices)
    if value not in names:
        raise InputError(f"Unknown {kind} '{printable(value)}'. Choose from: {', '.join(names)}.")


# What is wrong with a disk, a folder or a name: not with us.
OF_THE_DISK = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM),
    *(errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG),
)


def file_trouble(error: OSError) -> str:
    """What is wrong with a file or a disk, and with which: `'/x/y': No space left on device`."""
    what = error.strerror or str(error)  # numpy, for one, says no more than how much was written
    return f"'{error.filename}': {what}" if error.filename else what
