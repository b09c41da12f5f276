"""A table of finished runs, in Markdown: accuracy beside bytes."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from fed_ist.config import GROUPED
from fed_ist.ist import slice_bytes
from fed_ist.printable import printable

# Whose slices the formula gives: the whole classifier, or one part in `groups`.
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


def render_table(runs: Sequence[tuple[str, Mapping[str, object]]]) -> str:
    """One line a run, from its summary.json.

    Bytes of a round are arrays (payload) of one node, with what was sent once spread over the
    rounds; the formula is that of a slice in float32; the sum is messages.
    """
    rows = [HEADER, tuple("---" for _ in HEADER)]
    rows += [_row(name, summary) for name, summary in runs]
    return "\n".join(f"| {' | '.join(printable(cell) for cell in row)} |" for row in rows)


def _row(name: str, summary: Mapping[str, object]) -> tuple[str, ...]:
    value = {key: float(str(summary[key])) for key in summary if _is_number(summary[key])}
    formula = slice_bytes(
        int(value["embed_dim"]),
        int(value["hidden_dim"]),
        int(value["num_classes"]),
        int(value["groups"]),
        int(value.get("hidden_layers", 2)),  # runs of earlier versions lack both
        str(summary.get("norm", "none")),
    )
    return (
        name,
        Path(str(summary["dataset"])).name,
        str(summary["strategy"]),
        str(summary["mask"]),
        f"{value['mask_ratio']:.2f}",
        f"{value['clients']:.0f}",
        f"{value['groups']:.0f}",
        f"{100 * value['accuracy']:.1f}%",
        f"{100 * value['best_accuracy']:.1f}%",
        f"{value['payload_bytes_down'] / (value['asked'] or value['clients']):,.0f}",
        f"{value['payload_bytes_up'] / (value['answered'] or value['clients']):,.0f}",
        f"{formula:,.0f}" if summary["strategy"] in WHOLE_OR_GROUPED else "",
        f"{(value['bytes_down'] + value['bytes_up']) / 1e6:.1f}",
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
