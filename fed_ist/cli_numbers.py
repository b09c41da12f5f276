"""Numbers in the options of commands, several in one."""

from fed_ist.errors import InputError


def whole_numbers(option: str, text: str, least: int = 1) -> list[int]:
    """The numbers of a text such as "4,16"; raises `InputError` where one is below `least`."""
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and int(word) >= least for word in words):
        raise InputError(
            f"{option} '{text}' is not possible: give whole numbers from {least} on, such as 4,16."
        )
    return [int(word) for word in words]
