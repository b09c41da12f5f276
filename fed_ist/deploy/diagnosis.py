"""What a check of a device says."""

from dataclasses import dataclass

OK, WARNING, FAILURE = "ok", "warning", "failure"


@dataclass(frozen=True)
class Diagnosis:
    """One check. level: "ok", "warning" (it works, but not for all or not for long), "failure".

    text: what was found and, unless all is well, what to do.
    """

    check: str
    level: str
    text: str
