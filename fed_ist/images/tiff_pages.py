"""The pages of a TIFF as its directories state them, checked before a library reads the file.

Libraries trust these directories: in a file of a few kilobytes, a tag may state a tile of
gigabytes, a million values, or the same bytes a thousand times.
"""

import struct
from dataclasses import dataclass

MOST_PAGES = 4096
TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
TYPE_BYTES |= {16: 8, 17: 8, 18: 8}
WHOLE_NUMBERS = {1: "B", 3: "H", 4: "I", 16: "Q"}
KIND, WIDTH, HEIGHT, BITS, CHANNELS, ROWS = 254, 256, 257, 258, 277, 278
TILE_WIDTH, TILE_HEIGHT, PLANES = 322, 323, 284
OF_A_MASK = 4  # the bit of KIND that marks a mask


@dataclass(frozen=True)
class Page:
    """What the directory of a page states.

    width, height: in pixels. n_values: of all tags. block_bytes: of a strip or tile, which is
    decompressed at once. is_mask: whether the page only says where another one has data.
    """

    width: int
    height: int
    n_values: int
    block_bytes: int
    is_mask: bool


def read_pages(data: bytes) -> list[Page]:
    """The pages of a TIFF, in order; raises `ValueError` where its directories cannot be right."""
    order = "<" if data[:2] == b"II" else ">"
    is_big = data[2:4] in (b"+\0", b"\0+")
    number, entry = ("Q", "HHQ8s") if is_big else ("I", "HHI4s")
    size, inline = struct.calcsize(order + entry), 8 if is_big else 4
    pages: list[Page] = []
    seen: set[int] = set()
    try:
        at = int(struct.unpack_from(order + number, data, 8 if is_big else 4)[0])
        while at and at not in seen:
            seen.add(at)
            if len(seen) > MOST_PAGES:
                raise ValueError(f"it has more than {MOST_PAGES} pages")
            n_tags = struct.unpack_from(order + ("Q" if is_big else "H"), data, at)[0]
            start = at + (8 if is_big else 2)
            if start + n_tags * size > len(data):
                raise ValueError("it is damaged")
            tags = _Tags(data, order, inline, struct.iter_unpack(
                order + entry, data[start : start + n_tags * size]
            ))  # fmt: skip
            pages.append(tags.page())
            at = int(struct.unpack_from(order + number, data, start + n_tags * size)[0])
    except struct.error:
        if not pages:
            raise ValueError("it is damaged") from None
    return pages


class _Tags:
    """The tags of one page."""

    def __init__(self, data: bytes, order: str, inline: int, entries: object) -> None:
        self.data, self.order = data, order
        self.found: dict[int, tuple[int, int, bytes | int]] = {}
        self.n_values = n_bytes = 0
        for tag, kind, count, field in entries:  # type: ignore[attr-defined]
            value_bytes = TYPE_BYTES.get(kind)
            if value_bytes is None or tag in self.found:
                continue
            payload = value_bytes * count
            offset = int(struct.unpack(order + ("Q" if inline == 8 else "I"), field)[0])
            self.found[tag] = (kind, count, field if payload <= inline else offset)
            self.n_values += count if value_bytes > 1 else 0
            n_bytes += payload if payload > inline else 0
        if n_bytes > len(data):
            raise ValueError("its tags claim more bytes than it has")

    def number(self, tag: int, default: int) -> int:
        """The largest of the first few values of a tag."""
        kind, count, where = self.found.get(tag, (0, 0, b""))
        if kind not in WHOLE_NUMBERS or not count:
            return default
        layout = f"{self.order}{min(count, 16)}{WHOLE_NUMBERS[kind]}"
        if isinstance(where, bytes):
            layout = f"{self.order}{count}{WHOLE_NUMBERS[kind]}"
            return int(max(struct.unpack_from(layout, where)))
        return int(max(struct.unpack_from(layout, self.data, where)))

    def page(self) -> Page:
        width, height = self.number(WIDTH, 0), self.number(HEIGHT, 0)
        channels = self.number(CHANNELS, 1)
        if TILE_WIDTH in self.found:
            block = self.number(TILE_WIDTH, 0) * self.number(TILE_HEIGHT, 0)
        else:
            block = width * min(height, self.number(ROWS, height))
        if self.number(PLANES, 1) == 1:
            block *= channels
        n_bytes = (block * self.number(BITS, 1) + 7) // 8
        is_mask = bool(self.number(KIND, 0) & OF_A_MASK)
        return Page(width, height, self.n_values, n_bytes, is_mask)
