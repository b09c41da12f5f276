"""What a plan needs of finished runs: accuracies, bytes and settings."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

from fed_ist.config.run_config import NEEDS
from fed_ist.errors import InputError
from fed_ist.runs.reading import RunFiles
from fed_ist.runs.seals import CONFIG, damaged
from fed_ist.runs.tables import Row

MOST = 2.0**63

# Settings that must be equal for runs to be of the same task.
SAME = (
    *("dataset", "test-dataset", "test-share", "partitioner", "partition-alpha"),
    *("classes-per-node", "partition-column", "bands", "mask", "mask-ratio", "codec"),
    *("encoder", "encoder-weights", "img-px", "pooling", "precision"),
)


@dataclass(frozen=True)
class Sent:
    """One message of a run's ledger. Bytes are pairs: (to the node, from the node).

    link_bytes: what crosses the link for the message; None in ledgers that do not say.
    """

    round: int
    direction: str
    kind: str
    message_bytes: tuple[float, float]
    link_bytes: tuple[float, float] | None


@dataclass(frozen=True)
class PlannedRun:
    """A finished run with what a plan needs of it.

    settings: run-config keys. summary: the content of summary.json. accuracies: by round, from 0
    on.
    Its methods raise `InputError` for a number that is not possible.
    """

    name: str
    settings: Mapping[str, object]
    summary: Mapping[str, object]
    accuracies: Mapping[int, float]
    sent: tuple[Sent, ...]

    @property
    def strategy(self) -> str:
        """The method of the run, a value of the key `strategy`."""
        return self.text("strategy")

    @property
    def n_nodes(self) -> int:
        """How many nodes the run had."""
        found = int(self.number("clients"))
        if found < 1:
            raise self._odd(found, "summary.json", "clients")
        return found

    @property
    def images_per_node(self) -> float:
        """The mean number of images of a node."""
        return self.number("images") / self.n_nodes

    @property
    def final_accuracy(self) -> float:
        """The accuracy after the last round, in [0, 1]."""
        return self.accuracies[max(self.accuracies)]

    @cached_property
    def has_link_bytes(self) -> bool:
        """Whether the ledger has link bytes for each message."""
        return all(message.link_bytes is not None for message in self.sent)

    def number(self, key: str) -> float:
        """A number of summary.json; raises `InputError` where the run is too old to have it."""
        return self._number(self._required(self.summary, "summary.json", key), "summary.json", key)

    def text(self, key: str) -> str:
        """A setting as text; raises `InputError` where the run is too old to have it."""
        return str(self._required(self.settings, "config.toml", key))

    def _required(self, found: Mapping[str, object], file: str, key: str) -> object:
        if key not in found:
            raise InputError(
                f"Run '{self.name}' has no '{key}' in its {file}: repeat it with this version."
            )
        return found[key]

    def whole(self, key: str, default: int) -> int:
        """A setting that is a whole number; `default` where the run is too old to have it."""
        return int(self._number(self.settings.get(key, default), "config.toml", key))

    def _number(self, value: object, file: str, key: str) -> float:
        if not isinstance(value, int | float) or not abs(value) < MOST:
            raise self._odd(value, file, key)
        return float(value)

    def _odd(self, value: object, file: str, key: str) -> InputError:
        return InputError(
            f"Run '{self.name}' has {key} = {value!r} in its {file}, which cannot be: the file is "
            "damaged. Restore it, or leave this run out."
        )

    def first_round(self, accuracy: float) -> int | None:
        """The first round with at least this accuracy; None where there is none."""
        return next((i for i, found in sorted(self.accuracies.items()) if found >= accuracy), None)


def planned_run(run: RunFiles) -> PlannedRun:
    """The figures of a run for a plan; raises `InputError` where the run is not finished."""
    summary = run.required_summary
    if not run.settings:
        raise damaged(run.path, CONFIG, run.seals, "it is missing")
    accuracies = {
        row["round"]: row["accuracy"]
        for row in run.rounds
        if isinstance(row["round"], int) and isinstance(row["accuracy"], int | float)
    }
    if not accuracies or not run.has_ledger:
        what = "no ledger.csv" if accuracies else "no rounds"
        raise InputError(
            f"'{run.path}' is not a finished run: it has {what}. Give folders that `fed-ist run` "
            "wrote: results/<name>."
        )
    name, sent = run.path.resolve().name, tuple(map(_sent, run.ledger))
    return PlannedRun(name, run.settings, summary, accuracies, sent)


def _sent(row: Row) -> Sent:
    link = [row.get("link_bytes_down"), row.get("link_bytes_up")]
    numbers = [float(value) for value in link if isinstance(value, int)]
    n_bytes = float(cast(int, row["message_bytes"]))
    return Sent(
        round=cast(int, row["round"]),
        direction=str(row["direction"]),
        kind=str(row["kind"]),
        message_bytes=(n_bytes, 0.0) if row["direction"] == "down" else (0.0, n_bytes),
        link_bytes=(numbers[0], numbers[1]) if len(numbers) == 2 else None,
    )


def require_comparable(runs: Sequence[PlannedRun]) -> None:
    """Raise `InputError` unless all runs are of the same images, nodes, masks and encoder."""
    first = runs[0]
    for other in runs[1:]:
        for key in SAME:
            values = [_in_use(run.settings, key) for run in (first, other)]
            _require_same(key, first, other, values)
        for key in ("clients", "images"):
            _require_same(key, first, other, [run.number(key) for run in (first, other)])


def _in_use(settings: Mapping[str, object], key: str) -> object:
    """The value of a setting; None where another setting makes it have no effect."""
    if key in NEEDS:
        decides, useful = NEEDS[key]
        if settings.get(decides) not in useful:
            return None
    return settings.get(key)


def _require_same(key: str, first: PlannedRun, other: PlannedRun, values: Sequence[object]) -> None:
    if values[0] != values[1]:
        shown = [json.dumps(value) for value in values]
        raise InputError(
            f"Runs '{first.name}' and '{other.name}' differ in {key} ({shown[0]} and {shown[1]}), "
            "so their costs do not compare: give runs of the same images, nodes, mask and encoder."
        )
