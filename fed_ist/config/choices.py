"""Choices of keys about the run itself, which no room below knows: name, capacities, devices."""

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
    """Whether a text can name a run's folder, and be given to commands as such."""
    is_one_name = name == Path(name).name and "\\" not in name and name.strip(". ") != ""
    is_plain = name.isprintable() and name == name.strip() and not name.startswith("-")
    return is_one_name and is_plain and len(name.encode(errors="replace")) <= MOST_NAME_BYTES


def read_capacities(text: str) -> tuple[float, ...]:
    """The shares of the neurons that nodes can train, in the order of the text: `1,0.5`.

    Raises `InputError` where there is none, or one is not in (0, 1].
    """
    try:
        levels = tuple(float(level) for level in text.split(","))
    except ValueError:
        levels = ()
    if not levels or not all(0 < level <= 1 for level in levels):
        raise InputError(f"capacities = {text!r} is not possible: give {SHARES}.")
    return levels


def read_devices(text: str) -> tuple[str, ...]:
    """The boards, by their names in `PROFILES`, that simulated nodes are in turn.

    It is empty where they are this machine. Raises `InputError` for an unknown name.
    """
    names = tuple(name.strip() for name in text.split(",")) if text else ()
    for name in names:
        require_choice("device", name, PROFILES)
    return names
