"""fed-ist: train an image classifier across devices with little bandwidth and little compute.

From Python there are `embed`, `train`, `load_run` and `__version__`. They are loaded when they are
first used, so that importing the package costs nothing. All else is private.
"""

from importlib import import_module
from importlib.metadata import version
from typing import Any

_PLACES = {
    "embed": "fed_ist.api.embed",
    "load_run": "fed_ist.api.runs",
    "train": "fed_ist.api.runs",
}
__all__ = ["__version__", "embed", "load_run", "train"]  # noqa: F822 -- see `__getattr__`


def __getattr__(name: str) -> Any:
    """A public name, loaded at its first use."""
    if name == "__version__":
        return version("fed-ist")
    if name not in _PLACES:
        raise AttributeError(f"module 'fed_ist' has no attribute '{name}'")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return __all__
