"""What entries of the cache are called, and small ones that are kept if that can be done."""

import hashlib
import json
from contextlib import suppress
from pathlib import Path

from fed_ist.durable import write_atomic


def digest(*parts: object) -> str:
    """A name for what depends on all of these and on nothing else."""
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:32]


def keep(path: Path, data: bytes) -> None:
    """Write an entry that may as well be absent: who writes embeddings says what is wrong there."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, data)
