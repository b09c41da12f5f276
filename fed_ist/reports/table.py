"""A table of finished runs, with accuracy and bytes: for a terminal, and in Markdown."""

from collections.abc import Sequence
from pathlib import Path

from fed_ist.classifier.slices import slice_bytes
from fed_ist.config.methods import GROUPED
from fed_ist.errors import InputError
from fed_ist.printable import printable
from fed_ist.runs.reading import RunFiles
from fed_ist.words import plain_table, readable_bytes, table

MOST = 2.0**63

# Methods whose slices the formula gives: the whole classifier, or one of `groups` slices.
WHOLE_OR_GROUPED = ("fedadam", "fedavg", "fedavgm", *GROUPED)

HEADER = (
    "run",
    "dataset",
    "strategy",
    "mask",
    "mask_ratio",
    "clients",
    "groups",
    "accuracy",
    "best",
    "B a round down",
    "up",
    "formula",
    "sent in all (MB)",
)


SHORT = ("run", "strategy", "ratio", "nodes", "accuracy", "down a round", "up", "in all")


def show_table(runs: Sequence[RunFiles]) -> str:
    """A table for a terminal with one line for each run; raises what `render_table` raises.

    Bytes are the same, in units.
    """
    return plain_table(SHORT, ([printable(cell) for cell in _short_row(run)] for run in runs))


def _short_row(files: RunFiles) -> tuple[str, ...]:
    run = _Figures(files)
    down, up = _bytes_a_round(run, files)
    sent = run.number("bytes_down") + run.number("bytes_up")
    return (
        files.path.name,
        run.text("strategy"),
        f"{run.number('mask_ratio'):.2f}",
        f"{run.number('clients'):.0f}",
        f"{100 * run.number('accuracy'):.1f}%",
        *map(readable_bytes, (down, up, sent)),
    )


def render_table(runs: Sequence[RunFiles]) -> str:
    """A line for each run, as Markdown; raises `InputError` where a figure is missing.

    Bytes of a round are arrays (payload) of one node, and what was sent once is spread over the
    rounds. "formula" is the bytes of a slice in float32. "sent in all" counts whole messages.
    """
    return table(HEADER, ([printable(cell) for cell in _row(run)] for run in runs))


def _row(files: RunFiles) -> tuple[str, ...]:
    run = _Figures(files)
    strategy, n_nodes = run.text("strategy"), run.number("clients")
    n_groups, (down, up) = run.number("groups"), _bytes_a_round(run, files)
    formula = slice_bytes(
        int(run.number("embed_dim")),
        int(run.number("hidden_dim")),
        int(run.number("num_classes")),
        int(n_groups),
        int(run.number("hidden_layers", 2)),  # runs of earlier versions lack both
        run.text("norm", "none"),
    )
    return (
        files.path.name,
        Path(run.text("dataset")).name,
        strategy,
        run.text("mask"),
        f"{run.number('mask_ratio'):.2f}",
        f"{n_nodes:.0f}",
        f"{n_groups:.0f}",
        f"{100 * run.number('accuracy'):.1f}%",
        f"{100 * run.number('best_accuracy'):.1f}%",
        f"{down:,.0f}",
        f"{up:,.0f}",
        f"{formula:,.0f}" if strategy in WHOLE_OR_GROUPED else "",
        f"{(run.number('bytes_down') + run.number('bytes_up')) / 1e6:.1f}",
    )


def _bytes_a_round(run: "_Figures", files: RunFiles) -> tuple[float, float]:
    """The bytes of arrays to a node and from it in a round."""
    n_nodes = run.number("clients")
    n_asked, n_answered = run.number("asked") or n_nodes, run.number("answered") or n_nodes
    if not run.number("groups") or not n_asked or not n_answered:
        raise InputError(f"'{files.path}' has a summary.json that cannot be: it counts no nodes.")
    return run.number("payload_bytes_down") / n_asked, run.number("payload_bytes_up") / n_answered


class _Figures:
    """The figures in a run's summary.json and config.toml; the former counts where both tell."""

    def __init__(self, run: RunFiles) -> None:
        settings = {key.replace("-", "_"): value for key, value in run.settings.items()}
        self._found = settings | run.required_summary

    def text(self, key: str, default: str = "None") -> str:
        return str(self._found.get(key, default))

    def number(self, key: str, default: float | None = None) -> float:
        value = self._found.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < MOST:
            raise InputError(
                f"Its summary.json and config.toml tell no {key}: one is damaged, or of an older "
                "version."
            )
        return float(value)
