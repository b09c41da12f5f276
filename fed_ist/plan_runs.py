"""What a planner reads from the folders of finished runs: accuracies, bytes, and settings."""

import csv
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from fed_ist.config import NEEDS
from fed_ist.errors import InputError
from fed_ist.results import read_summary

# Settings that have to be equal for costs to be of the same task.
SAME = (
    *("dataset", "test-dataset", "test-share", "partitioner", "partition-alpha"),
    *("classes-per-node", "partition-column", "bands", "mask", "mask-ratio", "codec"),
    *("encoder", "encoder-weights", "img-px", "pooling", "precision"),
)


@dataclass(frozen=True)
class Sent:
    """One message of a run's ledger; bytes are (to the node, from the node).

    link_bytes: what crosses the link for it; None in ledgers that do not say.
    """

    round: int
    direction: str
    kind: str
    message_bytes: tuple[float, float]
    link_bytes: tuple[float, float] | None


@dataclass(frozen=True)
class Run:
    """A finished run, as its folder tells.

    settings: run-config keys. accuracies: by round, from 0 on.
    """

    name: str
    settings: Mapping[str, object]
    summary: Mapping[str, object]
    accuracies: Mapping[int, float]
    sent: tuple[Sent, ...]

    @property
    def strategy(self) -> str:
        return self.text("strategy")

    @property
    def n_nodes(self) -> int:
        return int(self.number("clients"))

    @property
    def images_per_node(self) -> float:
        """The mean over the nodes."""
        return self.number("images") / self.n_nodes

    @property
    def final_accuracy(self) -> float:
        return self.accuracies[max(self.accuracies)]

    @cached_property
    def has_link_bytes(self) -> bool:
        return all(message.link_bytes is not None for message in self.sent)

    def number(self, key: str) -> float:
        """A number of summary.json; raises `InputError` where a run is too old to have it."""
        return float(str(self._required(self.summary, "summary.json", key)))

    def text(self, key: str) -> str:
        """A setting as text; raises `InputError` where a run is too old to have it."""
        return str(self._required(self.settings, "config.toml", key))

    def _required(self, found: Mapping[str, object], file: str, key: str) -> object:
        if key not in found:
            raise InputError(
                f"Run '{self.name}' has no '{key}' in its {file}: repeat it with this version."
            )
        return found[key]

    def whole(self, key: str, default: int) -> int:
        """A whole number of the settings, which runs of earlier versions may lack."""
        return int(str(self.settings.get(key, default)))

    def first_round(self, accuracy: float) -> int | None:
        """The first round whose accuracy is at least this; None where there is none."""
        return next((i for i, found in sorted(self.accuracies.items()) if found >= accuracy), None)


def read_run(folder: Path) -> Run:
    """The run in a folder; raises `InputError` where it is not a finished one."""
    summary = read_summary(folder)
    try:
        settings = tomllib.loads((folder / "config.toml").read_text(encoding="utf-8"))
        with (folder / "rounds.csv").open(newline="", encoding="utf-8") as file:
            accuracies = {int(row["round"]): float(row["accuracy"]) for row in csv.DictReader(file)}
        with (folder / "ledger.csv").open(newline="", encoding="utf-8") as file:
            sent = tuple(_parse(row) for row in csv.DictReader(file))
        run = Run(folder.resolve().name, settings, summary, accuracies, sent)
        if not accuracies or run.n_nodes < 1:
            raise ValueError("it has no rounds, or no nodes")
    except InputError:
        raise
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"'{folder}' is not a finished run ({type(error).__name__}: {error}). Give folders "
            "that `fed-ist run` wrote: results/<name>."
        ) from None
    return run


def _parse(row: Mapping[str, str]) -> Sent:
    n_bytes = float(row["message_bytes"])
    link = (row.get("link_bytes_down"), row.get("link_bytes_up"))
    return Sent(
        round=int(row["round"]),
        direction=row["direction"],
        kind=row["kind"],
        message_bytes=(n_bytes, 0.0) if row["direction"] == "down" else (0.0, n_bytes),
        link_bytes=(float(link[0]), float(link[1])) if link[0] and link[1] else None,
    )


def require_comparable(runs: Sequence[Run]) -> None:
    """Raise `InputError` unless all runs are of the same images, nodes, masks and encoder."""
    first = runs[0]
    for other in runs[1:]:
        for key in SAME:
            values = [_in_use(run.settings, key) for run in (first, other)]
            _require_same(key, first, other, values)
        for key in ("clients", "images"):
            _require_same(key, first, other, [run.number(key) for run in (first, other)])


def _in_use(settings: Mapping[str, object], key: str) -> object:
    """A setting; None where another one makes it of no use."""
    if key in NEEDS:
        decides, useful = NEEDS[key]
        if settings.get(decides) not in useful:
            return None
    return settings.get(key)


def _require_same(key: str, first: Run, other: Run, values: Sequence[object]) -> None:
    if values[0] != values[1]:
        shown = [json.dumps(value) for value in values]
        raise InputError(
            f"Runs '{first.name}' and '{other.name}' differ in {key} ({shown[0]} and {shown[1]}), "
            "so their costs do not compare: give runs of the same images, nodes, mask and encoder."
        )
