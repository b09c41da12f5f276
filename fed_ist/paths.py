"""Where files go when nobody says where.

A Flower daemon's working directory is that of its first start, so nothing here depends on it.
"""

import os
from pathlib import Path

from fed_ist.bundled import checkout


def cache_dir(configured: str) -> Path:
    """The embedding cache: as configured, or `fed-ist` in the user's cache folder."""
    if configured:
        return Path(configured)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fed-ist"


def results_dir(configured: str) -> Path:
    """The folder of runs: as configured, `results/` of the checkout, or `~/fed-ist-results`."""
    if configured:
        return Path(configured)
    root = checkout()
    return root / "results" if root else Path.home() / "fed-ist-results"
