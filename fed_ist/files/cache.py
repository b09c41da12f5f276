"""What entries of the cache are called, and small ones that are kept if that can be done."""

import hashlib
import json
import logging
from contextlib import suppress
from pathlib import Path

from fed_ist.files.atomic import clear, write_atomic
from fed_ist.files.paths import make_cache
from fed_ist.files.seals import with_trailer, without_trailer

log = logging.getLogger(__name__)


def digest(*parts: object) -> str:
    """A name for what depends on all of these and on nothing else."""
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:32]


def keep(path: Path, data: bytes) -> None:
    """Write an entry that may as well be absent: who writes embeddings says what is wrong there."""
    with suppress(OSError):
        make_cache(path.parent)
        if path.is_dir():
            clear(path)
        write_atomic(path, with_trailer(path.name, data))


def recall(path: Path) -> bytes | None:
    """What `keep` was given; None where it is not there, or not as it was written."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        tell_damaged(path, str(error))
        return None
    kept = without_trailer(path.name, data)
    if kept is None:
        tell_damaged(path)
    return kept


def tell_damaged(path: Path, why: str = "it is damaged, or of an earlier version") -> None:
    """Say that an entry of the cache is of no use, and what becomes of it."""
    log.warning("The cache's '%s' is made again: %s", path.name, why.strip())
