"""The form of one row in the table of keys."""

from dataclasses import dataclass, field
from typing import Any

from fed_ist.config.limits import Limit

ROW = "row"  # where a dataclass field keeps it


@dataclass(frozen=True)
class Row:
    """What is known of a key in addition to its name, its type and its default.

    group: the heading under which it is documented. sentences: what it means. limit: which values
    are allowed; None for any value of the type. needs: another key, and the values of that key with
    which this one has an effect; None where it always has. may_change: whether a resumed run may
    have another value.
    """

    group: str
    sentences: str
    limit: Limit | None
    needs: tuple[str, tuple[str, ...]] | None
    may_change: bool


def key(
    group: str,
    limit: Limit | None,
    sentences: str,
    *,
    needs: tuple[str, tuple[str, ...]] | None = None,
    may_change: bool = False,
) -> Any:
    """A field of `RunConfig` that carries its row; its default is in pyproject.toml."""
    return field(metadata={ROW: Row(group, sentences, limit, needs, may_change)})
