"""Draws the figure that a run leaves in its folder."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fed_ist.runs.folder import Round

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def png(figure: "Figure", dpi: int) -> bytes:
    """The bytes of a matplotlib figure as a PNG file."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=dpi)
    return out.getvalue()


def draw_accuracy(rounds: Sequence[Round], title: str) -> bytes:
    """Test accuracy against rounds, and against bytes sent both ways, as a PNG file's bytes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    by_round, by_bytes = figure.subplots(1, 2, sharey=True)
    accuracy = [100 * row.accuracy for row in rounds]
    sent, total = [], 0
    for row in rounds:
        total += row.bytes_down + row.bytes_up
        sent.append(total / 1e6)
    # Beside the start, where the classifier guesses, all that was learnt would look flat.
    begins = next((i for i, value in enumerate(accuracy) if value >= max(accuracy) / 2), 0)
    numbers = [row.round for row in rounds]
    by_round.plot(numbers[begins:], accuracy[begins:], marker=".", color="#0b6e4f")
    by_bytes.plot(sent[begins:], accuracy[begins:], marker=".", color="#c84c09")
    by_round.set(xlabel="round", ylabel="test accuracy (%)")
    by_bytes.set(xlabel="sent in all, both ways (MB)")
    for axes in (by_round, by_bytes):
        axes.grid(alpha=0.3)
    figure.suptitle(title, fontsize=11)
    return png(figure, 130)
