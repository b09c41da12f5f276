"""What keys of the run itself may be, where no module below owns the choice."""

from pathlib import Path

from fed_ist.errors import InputError, require_choice
from fed_ist.training.boards import PROFILES

MOST_NAME_BYTES = 100
RUN_NAMES = (
    f"one name of at most {MOST_NAME_BYTES} bytes, without / and \\, that can be printed, is not "
    "dots alone, and begins neither with - nor with a space"
)
SHARES = "numbers in (0, 1], such as 1,0.5"
BOARDS = f"names of boards with a comma between them ({', '.join(sorted(PROFILES))}), or ''"


def is_run_name(name: str) -> bool:
    """Whether a run's folder can have this name, and commands can be given it."""
    is_part = name == Path(name).name and "\\" not in name and name.strip(". ") != ""
    is_plain = name.isprintable() and name == name.strip() and not name.startswith("-")
    return is_part and is_plain and len(name.encode(errors="replace")) <= MOST_NAME_BYTES


def read_capacities(text: str) -> tuple[float, ...]:
    """The shares of the neurons that nodes can train, in their order; at least one."""
    try:
        levels = tuple(float(level) for level in text.split(","))
    except ValueError:
        levels = ()
    if not levels or not all(0 < level <= 1 for level in levels):
        raise InputError(f"capacities = {text!r} is not possible: give {SHARES}.")
    return levels


def read_devices(text: str) -> tuple[str, ...]:
    """Names of `PROFILES`, which simulated nodes are in turn; empty for this machine."""
    names = tuple(name.strip() for name in text.split(",")) if text else ()
    for name in names:
        require_choice("device", name, PROFILES)
    return names
