"""Options of commands that hold several numbers."""

import re

from fed_ist.errors import InputError

UNITS = {"": 1, "B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}
MOST_BYTES = 1e15
MOST_DIGITS = 18  # that 64 bits hold whatever they are


def whole_numbers(option: str, text: str, least: int = 1, most: int | None = None) -> list[int]:
    """The numbers of a text such as "4,16".

    Raises `InputError` where one is below `least` or above `most`.
    """
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and len(word) <= MOST_DIGITS for word in words) or (
        min(map(int, words)) < least
    ):
        raise InputError(
            f"{option} '{text}' is not possible: give whole numbers from {least} on, such as "
            f"{4 * (least or 1)},{16 * (least or 1)}."
        )
    found = [int(word) for word in words]
    if most is not None and max(found) > most:
        raise InputError(f"{option} '{text}' is not possible: give {most} at most.")
    return found


def fractions(option: str, text: str, least: float) -> list[float]:
    """The numbers of a text such as "1,0.5"; raises `InputError` where one is not in [least, 1]."""
    try:
        found = [float(word) for word in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(least <= number <= 1 for number in found):
        raise InputError(
            f"{option} '{text}' is not possible: give numbers from {least} to 1, such as 1,0.5."
        )
    return found


def one_for_each(
    option: str, text: str, n: int, least: int = 1, most: int | None = None
) -> tuple[int, ...]:
    """A number for each of n data sets, from a text with n numbers, or one for all.

    least, most: see `whole_numbers`. Raises `InputError` where they are neither one nor n.
    """
    numbers = whole_numbers(option, text, least, most)
    if len(numbers) not in (1, n):
        raise InputError(
            f"{option} has {len(numbers)} numbers for {n} data sets: give one, or one for each."
        )
    return tuple(numbers * n if len(numbers) == 1 else numbers)


def bytes_of(option: str, text: str) -> int:
    """The bytes of a text such as "50kB", "1.5 MB" or "800"; raises `InputError` for another."""
    found = re.fullmatch(r"(\d{1,15}(?:\.\d{1,9})?) ?([kMG]?B|)", text.strip())
    n_bytes = float(found[1]) * UNITS[found[2]] if found else 0
    if not 1 <= n_bytes <= MOST_BYTES:
        raise InputError(f"{option} '{text}' is not possible: give bytes, such as 50kB or 1.5MB.")
    return int(n_bytes)
