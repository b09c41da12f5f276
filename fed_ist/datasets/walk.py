"""A walk over a folder, which finds images and tables and counts what it leaves out.

Links are followed, but not in a circle. Folders that a NAS, a desktop or a notebook makes for
thumbnails and deleted files are left out.
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

SYSTEM_FILE = "synophoto_"  # the beginning of the names of a Synology's thumbnails
MOST_DEEP = 64  # levels of folders

PathNames = tuple[str, ...]  # a path below a root: the names of its folders and its own


@dataclass(frozen=True)
class Walk:
    """The images, tables and folders below a root.

    images, tables: their paths below the root, sorted. Where the root itself is a file, it is the
        only image or table, and its path is the empty tuple.
    sizes: of the images and then the tables, (bytes, time of change in ns); -1 for both where a
        link leads nowhere.
    folders: paths of all folders that were not left out. left_out: counts of all else.
    """

    root: Path
    images: tuple[PathNames, ...]
    tables: tuple[PathNames, ...]
    sizes: tuple[tuple[int, int], ...]
    folders: tuple[PathNames, ...]
    left_out: LeftOut

    def signature(self, files: tuple[PathNames, ...]) -> str:
        """A digest of the names, sizes and times of change of these images or tables."""
        known = dict(zip((*self.images, *self.tables), self.sizes, strict=True))
        lines = hashlib.sha256()
        for names in files:
            name = os.fsencode("/".join(names) or self.root.name)
            lines.update(name + b"\0%d\0%d\n" % known[names])
        return lines.hexdigest()


def walk(root: Path, cache: Path | None = None, run: str = "") -> Walk:
    """The images, tables and folders below `root`, or `root` itself where it is a file.

    run: the run's name. The first process of a run leaves its result in `cache` for the run's other
    processes. Without a name or a cache, the folder is walked each time.
    """
    place = _place(root, cache, run) if cache and run else None
    if place and (known := _read(place, root)):
        return known
    found = _walk(root)
    if place:
        keep(place, _write(found))
    return found


def left_at(root: Path, cache: Path, run: str) -> int:
    """The time, in ns, when a process of the run left its walk of `root`; 0 where none did."""
    try:
        return _place(root, cache, run).stat().st_mtime_ns if run else 0
    except OSError:
        return 0


def _place(root: Path, cache: Path, run: str) -> Path:
    return cache / f"walk-{digest(run, os.fsencode(root).hex())}.json"


def forget_walks(cache: Path, run: str, roots: Iterable[Path]) -> None:
    """Remove the results that `walk` left for the other processes of a run."""
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
    sizes = tuple(_size(root.joinpath(*names)) for names in (*images, *tables))
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
        self.images: list[PathNames] = []
        self.tables: list[PathNames] = []
        self.folders: list[PathNames] = []
        self.left_out = LeftOut()

    def enter(self, folder: Path, names: PathNames, above: tuple[str, ...], seen: set[str]) -> None:
        """Add what is in a folder.

        names: its path below the root. above: the real paths of this folder and of those that it
        lies in. seen: the real paths of folders that were entered below the same top folder.
        """
        try:
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError:
            self.left_out.add(UNREADABLE_FOLDER, folder)
            return
        for entry in entries:
            inside = (*names, entry.name)
            if entry.name.startswith("."):
                self.left_out.add(HIDDEN, entry.path)
            elif entry.name.casefold().startswith(SYSTEM_FILE):
                self.left_out.add(SYSTEM_FOLDER, entry.path)
            elif _is_dir(entry):
                if len(names) > MOST_DEEP:
                    self.left_out.add(UNREADABLE_FOLDER, entry.path)
                    continue
                if entry.name.casefold() in SYSTEM_FOLDERS:
                    self.left_out.add(SYSTEM_FOLDER, entry.path, max(1, _count_files(entry.path)))
                    continue
                real = os.path.realpath(entry.path)
                own = seen if names else set()  # one class may be a link to another
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

    def take(self, path: str, name: str, names: PathNames) -> None:
        """Add a file to images, tables or what is left out: by its ending, else by its content."""
        suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122 - a name may hold any bytes
        if suffix in USUAL_SUFFIXES:
            self.images.append(names)
            return
        head = b"" if suffix in OTHER_SUFFIXES else _head(path)
        if head.startswith(TABLE_MARK) or suffix == ".parquet":
            self.tables.append(names)
        elif image_format(head):
            self.images.append(names)
        else:
            self.left_out.add(no_image(suffix), path)


def _is_dir(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_file(entry: "os.DirEntry[str]") -> bool:
    """Whether an entry is a file, or a link to nothing, which was meant as a link to a file."""
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
