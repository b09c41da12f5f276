"""One walk over a folder: which files in it are images, and what is passed over, counted.

Links are followed, but not in a circle. Folders that a NAS, a desktop or a notebook leaves behind
hold thumbnails and deleted files, which are no images of their own.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fed_ist.datasets.left_out import (
    HIDDEN,
    LINK_LOOP,
    NO_FILE,
    SYSTEM_FOLDER,
    UNREADABLE_FOLDER,
    LeftOut,
    no_image,
)
from fed_ist.files.cache import digest, keep, recall
from fed_ist.files.regular import open_regular
from fed_ist.images.kinds import (
    HEAD_BYTES,
    OTHER_SUFFIXES,
    USUAL_SUFFIXES,
    image_format,
)

TABLE_MARK = b"PAR1"
SYSTEM_FOLDERS = frozenset(
    {
        *("@eadir", "@recycle", "@recently-snapshot", "@synoresource", "@tmp", "#recycle"),
        *("#snapshot", "thumbnails", "thumbs", "thumbs.db"),
        *("$recycle.bin", "recycler", "system volume information", "lost+found", "__macosx"),
        *("network trash folder", "temporary items", "__pycache__", "found.000"),
    }
)

SYSTEM_FILE = "synophoto_"  # how thumbnails of a Synology begin
MOST_DEEP = 64  # folders in folders

Parts = tuple[str, ...]


@dataclass(frozen=True)
class Walk:
    """What lies under a folder.

    images, tables: paths below it, as their parts, in a stable order. sizes: of the images and then
    the tables, bytes and time of change in ns, -1 where a link leads nowhere. folders: those that
    are not passed over. A file given instead of a folder is the one image or table, without parts.
    """

    root: Path
    images: tuple[Parts, ...]
    tables: tuple[Parts, ...]
    sizes: tuple[tuple[int, int], ...]
    folders: tuple[Parts, ...]
    left_out: LeftOut

    def signature(self, files: tuple[Parts, ...]) -> str:
        """A digest of the names, sizes and times of change of some of these files."""
        known = dict(zip((*self.images, *self.tables), self.sizes, strict=True))
        lines = hashlib.sha256()
        for parts in files:
            name = os.fsencode("/".join(parts) or self.root.name)
            lines.update(name + b"\0%d\0%d\n" % known[parts])
        return lines.hexdigest()


def walk(root: Path, cache: Path | None = None, run: str = "") -> Walk:
    """Look through a folder, once a run.

    run: the run's name. The process that comes first leaves what it found in `cache` for the run's
    other processes; without a name the folder is walked each time.
    """
    place = _place(root, cache, run) if cache and run else None
    if place and (known := _read(place, root)):
        return known
    found = _walk(root)
    if place:
        keep(place, _write(found))
    return found


def left_at(root: Path, cache: Path, run: str) -> int:
    """When a process of the run left what it found of a folder, in ns; 0 where none did."""
    try:
        return _place(root, cache, run).stat().st_mtime_ns if run else 0
    except OSError:
        return 0


def _place(root: Path, cache: Path, run: str) -> Path:
    return cache / f"walk-{digest(run, os.fsencode(root).hex())}.json"


def forget_walks(cache: Path, run: str, roots: Iterable[Path]) -> None:
    """Remove what `walk` left for the other processes of a run."""
    for root in roots:
        _place(root, cache, run).unlink(missing_ok=True)


def _walk(root: Path) -> Walk:
    finder = _Finder()
    if root.is_dir():
        finder.enter(root, (), (os.path.realpath(root),), set())
    elif root.is_file():
        finder.take(str(root), root.name, ())
    else:
        finder.left_out.add(NO_FILE, root)
    images, tables = sorted(finder.images), sorted(finder.tables)
    sizes = tuple(_size(root.joinpath(*parts)) for parts in (*images, *tables))
    return Walk(
        root, tuple(images), tuple(tables), sizes, tuple(sorted(finder.folders)), finder.left_out
    )


def _size(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return -1, -1
    return found.st_size, found.st_mtime_ns


class _Finder:
    def __init__(self) -> None:
        self.images: list[Parts] = []
        self.tables: list[Parts] = []
        self.folders: list[Parts] = []
        self.left_out = LeftOut()

    def enter(self, folder: Path, parts: Parts, above: tuple[str, ...], seen: set[str]) -> None:
        """above: the real paths of this folder and those that it lies in. seen: of this class."""
        try:
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError:
            self.left_out.add(UNREADABLE_FOLDER, folder)
            return
        for entry in entries:
            inside = (*parts, entry.name)
            if entry.name.startswith("."):
                self.left_out.add(HIDDEN, entry.path)
            elif entry.name.casefold().startswith(SYSTEM_FILE):
                self.left_out.add(SYSTEM_FOLDER, entry.path)
            elif _is_dir(entry):
                if len(parts) > MOST_DEEP:
                    self.left_out.add(UNREADABLE_FOLDER, entry.path)
                    continue
                if entry.name.casefold() in SYSTEM_FOLDERS:
                    self.left_out.add(SYSTEM_FOLDER, entry.path, max(1, _count_files(entry.path)))
                    continue
                real = os.path.realpath(entry.path)
                own = seen if parts else set()  # a class may be a link to another one
                if real in above or real in own:
                    self.left_out.add(LINK_LOOP, entry.path)
                    continue
                own.add(real)
                self.folders.append(inside)
                self.enter(Path(entry.path), inside, (*above, real), own)
            elif _is_file(entry):
                self.take(entry.path, entry.name, inside)
            else:
                self.left_out.add(NO_FILE, entry.path)

    def take(self, path: str, name: str, parts: Parts) -> None:
        """Put a file where it belongs, by its ending if that is a usual one, else by content."""
        suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122 - a name may hold any bytes
        if suffix in USUAL_SUFFIXES:
            self.images.append(parts)
            return
        head = b"" if suffix in OTHER_SUFFIXES else _head(path)
        if head.startswith(TABLE_MARK) or suffix == ".parquet":
            self.tables.append(parts)
        elif image_format(head):
            self.images.append(parts)
        else:
            self.left_out.add(no_image(suffix), path)


def _is_dir(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_file(entry: "os.DirEntry[str]") -> bool:
    """Whether it can be read as a file; a link to nothing counts, as somebody meant a file."""
    try:
        return entry.is_file() or not os.path.exists(entry.path)  # noqa: PTH110 - any bytes
    except OSError:
        return True


def _head(path: str) -> bytes:
    try:
        with open_regular(path) as file:
            return file.read(HEAD_BYTES)
    except OSError:
        return b""


def _count_files(folder: str) -> int:
    return sum(len(names) for _, _, names in os.walk(folder))


def _write(found: Walk) -> bytes:
    left = found.left_out
    data = [found.images, found.tables, found.sizes, found.folders, left.counts, left.examples]
    return json.dumps(data).encode()  # ASCII: lone surrogates are escaped


def _read(place: Path, root: Path) -> Walk | None:
    kept = recall(place)
    if kept is None:
        return None
    images, tables, sizes, folders, counts, examples = json.loads(kept)
    return Walk(
        root,
        tuple(map(tuple, images)),
        tuple(map(tuple, tables)),
        tuple(map(tuple, sizes)),
        tuple(map(tuple, folders)),
        LeftOut(Counter(counts), examples),
    )
