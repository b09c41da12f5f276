"""Names of cache entries, and small entries that a run can do without."""

import hashlib
import json
import logging
from contextlib import suppress
from pathlib import Path

from fed_ist.files.atomic import clear, write_atomic
from fed_ist.files.paths import make_cache
from fed_ist.files.seals import with_trailer, without_trailer

log = logging.getLogger(__name__)


def digest(*values: object) -> str:
    """32 hexadecimal digits that name an entry whose content depends on these values alone."""
    return hashlib.sha256(json.dumps(values, default=str).encode()).hexdigest()[:32]


def keep(path: Path, data: bytes) -> None:
    """Write a small entry; that it cannot be written is ignored, since a run can do without it.

    The cause is told where it matters: when embeddings are written to the same cache.
    """
    with suppress(OSError):
        make_cache(path.parent)
        if path.is_dir():
            clear(path)
        write_atomic(path, with_trailer(path.name, data))


def recall(path: Path) -> bytes | None:
    """What `keep` wrote; None where there is no such file, or where it is not as it was written."""
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
    """Warn that an entry of the cache cannot be used and is made again."""
    log.warning("The cache's '%s' is made again: %s", path.name, why.strip())
