"""A table of finished runs, in Markdown: accuracy beside bytes."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from fed_ist.config.methods import GROUPED
from fed_ist.errors import InputError
from fed_ist.ist import slice_bytes
from fed_ist.printable import printable

MOST = 2.0**63

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
    """One line a run, from its summary.json; raises `InputError` where a figure is missing there.

    Bytes of a round are arrays (payload) of one node, with what was sent once spread over the
    rounds; the formula is that of a slice in float32; the sum is messages.
    """
    rows = [HEADER, tuple("---" for _ in HEADER)]
    for name, summary in runs:
        try:
            rows.append(_row(name, summary))
        except (ZeroDivisionError, KeyError) as error:
            raise InputError(f"'{name}' has a summary.json that cannot be ({error}).") from None
    return "\n".join(f"| {' | '.join(printable(cell) for cell in row)} |" for row in rows)


def _row(name: str, summary: Mapping[str, object]) -> tuple[str, ...]:
    value = _Numbers(
        {key: float(n) for key, n in summary.items() if isinstance(n, int | float) and _is_in(n)}
    )
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
        Path(str(summary.get("dataset"))).name,
        str(summary.get("strategy")),
        str(summary.get("mask")),
        f"{value['mask_ratio']:.2f}",
        f"{value['clients']:.0f}",
        f"{value['groups']:.0f}",
        f"{100 * value['accuracy']:.1f}%",
        f"{100 * value['best_accuracy']:.1f}%",
        f"{value['payload_bytes_down'] / (value['asked'] or value['clients']):,.0f}",
        f"{value['payload_bytes_up'] / (value['answered'] or value['clients']):,.0f}",
        f"{formula:,.0f}" if summary.get("strategy") in WHOLE_OR_GROUPED else "",
        f"{(value['bytes_down'] + value['bytes_up']) / 1e6:.1f}",
    )


class _Numbers(dict[str, float]):
    def __missing__(self, key: str) -> float:
        raise InputError(f"Its summary.json tells no {key}: it is damaged, or of an older version.")


def _is_in(value: float) -> bool:
    return not isinstance(value, bool) and 0 <= value < MOST
