"""The result of one check of a device."""

from dataclasses import dataclass

OK, WARNING, FAILURE = "ok", "warning", "failure"


@dataclass(frozen=True)
class Diagnosis:
    """The result of one check.

    level: "ok", "warning" (it works, but not for everything or not for long) or "failure".
    text: what was found and, unless all is well, what to do.
    """

    check: str
    level: str
    text: str
