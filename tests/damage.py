"""Ways in which a file on a disk comes to harm, one drawn after the other from a seed."""

import random
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fed_ist.errors import InputError

NUMBER = re.compile(rb"-?\d+(\.\d+)?")
ODD_NUMBERS = (
    *(b"nan", b"NaN", b"inf", b"-1", b"0", b"1", b"7", b"1e400", b"1e308", b"0.5", b"-0.0", b""),
    *(b"9" * 30, b"9" * 5000, b"null", b"true", b'"x"', b"1_000", b"0x10"),
)


def _place(data: bytes, draw: random.Random) -> tuple[int, int]:
    """A block of the data: its start and end."""
    start = draw.randrange(len(data))
    longest = draw.choice([1, 4, 16, 100, 1000, 10_000])
    return start, min(len(data), start + draw.randint(1, longest))


def flip_bits(data: bytes, draw: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(draw.choice([1, 1, 1, 2, 8])):
        changed[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def flip_a_bit_of_the_head(data: bytes, draw: random.Random) -> bytes:
    """Formats say at their beginning and at their end how the rest is to be read."""
    changed = bytearray(data)
    near = draw.randrange(min(200, len(data)))
    changed[draw.choice([near, -1 - near])] ^= 1 << draw.randrange(8)
    return bytes(changed)


def truncate(data: bytes, draw: random.Random) -> bytes:
    return data[: draw.choice([draw.randrange(len(data)), len(data) - 1, len(data) // 2])]


def lose_the_beginning(data: bytes, draw: random.Random) -> bytes:
    return data[draw.randint(1, len(data)) :]


def lose_a_block(data: bytes, draw: random.Random) -> bytes:
    start, end = _place(data, draw)
    return data[:start] + data[end:]


def double_a_block(data: bytes, draw: random.Random) -> bytes:
    start, end = _place(data, draw)
    return data[:end] + data[start:end] + data[end:]


def copy_a_block(data: bytes, draw: random.Random) -> bytes:
    """Over another place: the length stays."""
    start, end = _place(data, draw)
    other = draw.randrange(len(data))
    return (data[:other] + data[start:end] + data[other + end - start :])[: len(data)]


def double_all(data: bytes, draw: random.Random) -> bytes:
    return data + data


def insert(data: bytes, draw: random.Random) -> bytes:
    start, end = _place(data, draw)
    return data[:start] + draw.randbytes(end - start) + data[start:]


def append(data: bytes, draw: random.Random) -> bytes:
    added = (b"\n", b"\r\n", b"\0" * 512, b"2,0.5", b",,,\r\n", draw.randbytes(20), b"# a note\n")
    return data + draw.choice(added)


def zero_a_block(data: bytes, draw: random.Random) -> bytes:
    start, end = _place(data, draw)
    return data[:start] + bytes(end - start) + data[end:]


def overwrite_a_block(data: bytes, draw: random.Random) -> bytes:
    start, end = _place(data, draw)
    return data[:start] + draw.randbytes(end - start) + data[end:]


def change_lines(data: bytes, draw: random.Random) -> bytes:
    """Swap two, lose one, or double one."""
    lines = data.splitlines(keepends=True)
    i, j = draw.randrange(len(lines)), draw.randrange(len(lines))
    how = draw.randrange(3)
    if how == 0:
        lines[i], lines[j] = lines[j], lines[i]
    elif how == 1:
        del lines[i]
    else:
        lines.insert(j, lines[i])
    return b"".join(lines)


def change_a_number(data: bytes, draw: random.Random) -> bytes:
    """Of those that are written in digits."""
    found = list(NUMBER.finditer(data))
    if not found:
        return flip_bits(data, draw)
    place = draw.choice(found)
    by = draw.choice([*ODD_NUMBERS, draw.choice(found)[0], str(draw.randrange(10**6)).encode()])
    return data[: place.start()] + by + data[place.end() :]


def change_line_ends(data: bytes, draw: random.Random) -> bytes:
    """As an editor does that saves what it was shown."""
    plain = data.replace(b"\r\n", b"\n")
    return draw.choice([plain, plain.replace(b"\n", b"\r\n"), plain.replace(b",", b";")])


def empty(data: bytes, draw: random.Random) -> bytes:
    return b""


WAYS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    *(flip_bits, flip_a_bit_of_the_head, truncate, lose_the_beginning, lose_a_block),
    *(double_a_block, copy_a_block, double_all, insert, append, zero_a_block, overwrite_a_block),
    *(change_lines, change_a_number, change_line_ends, empty),
)
WHOLE_FILE = ("deleted", "a folder", "another of its kind")


@dataclass
class Tally:
    """What became of so many damages: refused, right, or something else, each with its story."""

    refused: int = 0
    right: int = 0
    others: list[str] | None = None

    def __str__(self) -> str:
        return f"{self.refused} refused, {self.right} right, {len(self.others or ())} others"


def try_damages(
    whole: Path,
    name: str,
    other: bytes,
    read: Callable[[Path], object],
    place: Path,
    n: int,
    is_right: Callable[[object], bool] | None = None,
    seed: int = 0,
) -> Tally:
    """Damage a file of a folder n times, each time in a new copy of it, and read the copy.

    whole: the folder, which is only read. name: of the file, below it. other: the content of
    another of its kind. read: what is done with a copy. place: where copies are made. is_right: of
    what was read; what the whole folder gives unless it is said.
    """
    data = (whole / name).read_bytes()
    tally, others = Tally(), []
    copy = place / whole.name
    shutil.copytree(whole, copy)
    expected = read(copy)
    for number in range(n):
        draw = random.Random(f"{seed} {name} {number}")
        shutil.rmtree(copy)
        shutil.copytree(whole, copy)
        path = copy / name
        way = draw.choice([*WAYS, *WAYS, *WAYS, *WHOLE_FILE])
        if isinstance(way, str):
            told = way
            path.unlink()
            if way == "a folder":
                path.mkdir()
            elif way == "another of its kind":
                path.write_bytes(other)
        else:
            told = way.__name__
            path.write_bytes(way(data, draw))
        try:
            found = read(copy)
        except InputError as refusal:
            tally.refused += 1
            assert "\n" not in str(refusal).strip(), refusal
            continue
        except Exception as error:
            others.append(f"{number}, {told}: {type(error).__name__}: {error}")
            continue
        if is_right(found) if is_right else found == expected:
            tally.right += 1
        else:
            others.append(f"{number}, {told}: {str(found)[:300]}")
    shutil.rmtree(copy)
    tally.others = others
    return tally
