"""Numbers in the options of commands, several in one."""

from fed_ist.errors import InputError


def whole_numbers(option: str, text: str, least: int = 1) -> list[int]:
    """The numbers of a text such as "4,16"; raises `InputError` where one is below `least`."""
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and int(word) >= least for word in words):
        raise InputError(
            f"{option} '{text}' is not possible: give whole numbers from {least} on, such as "
            f"{4 * least},{16 * least}."
        )
    return [int(word) for word in words]


def parts_of_one(option: str, text: str) -> list[float]:
    """The numbers of a text such as "1,0.5"; raises `InputError` where one is not in (0, 1]."""
    try:
        found = [float(word) for word in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(0 < number <= 1 for number in found):
        raise InputError(
            f"{option} '{text}' is not possible: give numbers above 0 and up to 1, such as 1,0.5."
        )
    return found
