"""The report of a probe: two tables, sentences on the paper's findings, and a figure."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fed_ist.comparisons import findings
from fed_ist.comparisons.curve_figure import method_styles
from fed_ist.comparisons.findings import N_ERRORS, Measured
from fed_ist.comparisons.probe_table import NO_MASK, ProbeRow, baseline
from fed_ist.images.masks import MASKS
from fed_ist.reports.accuracy_figure import png
from fed_ist.reports.page import Cell, Page, Picture, Section, render_markdown
from fed_ist.words import percent

FIGURE, ALT = "probe.png", "Test accuracy against the share of patches dropped"


@dataclass(frozen=True)
class Probe:
    """One of the two probes. accuracy, seed_variance: take these from a row."""

    name: str
    accuracy: Callable[[ProbeRow], float]
    seed_variance: Callable[[ProbeRow], float]


def _mlp_variance(row: ProbeRow) -> float:
    return row.mlp_deviation**2 / row.n_seeds if row.n_seeds > 1 else 0.0


PROBES = (
    Probe("linear", lambda row: row.linear, lambda row: 0.0),
    Probe("MLP", lambda row: row.mlp, _mlp_variance),
)


def accuracy_of(probe: Probe, row: ProbeRow) -> Measured:
    """A probe's accuracy in a row, with what its error depends on."""
    return Measured(probe.accuracy(row), row.n_test, probe.seed_variance(row))


def make_table(probe: Probe, rows: Sequence[ProbeRow]) -> Section:
    """A table of masks by ratios, with accuracies in percent.

    The row without a mask gives the first cell in the line of every mask.
    """
    found = {(row.mask, row.mask_ratio): row for row in rows}
    ratios = sorted({row.mask_ratio for row in rows})
    lines = []
    for mask in _masks(rows) or [NO_MASK]:
        cells = [found.get((mask if r > 0 else NO_MASK, r)) for r in ratios]
        words = [f"{100 * probe.accuracy(row):.1f}%" if row else "" for row in cells]
        lines.append(tuple(map(Cell, (mask, *words))))
    header = (probe.name, *(f"{percent(ratio)} dropped" for ratio in ratios))
    return Section("", header=header, rows=tuple(lines))


def fixed_in_probes(rows: Sequence[ProbeRow]) -> list[str]:
    """Sentences on whether `fixed` is no worse, for each probe and each ratio with both masks."""
    found = {(row.mask, row.mask_ratio): row for row in rows}
    sentences = []
    for probe in PROBES:
        for ratio in sorted({row.mask_ratio for row in rows}):
            fixed, random = found.get(("fixed", ratio)), found.get(("random", ratio))
            if fixed and random:
                words = findings.fixed_against_random(
                    accuracy_of(probe, fixed), accuracy_of(probe, random)
                )
                sentences.append(f"{probe.name}, {percent(ratio)} dropped: {words}")
    return sentences or [
        "Not measured: probe fixed and random at one ratio (`--mask fixed,random`)."
    ]


def half_in_probes(rows: Sequence[ProbeRow]) -> list[str]:
    """Sentences on whether half the image is enough, for each probe and each mask at ratio 0.5."""
    whole = baseline(rows)
    halves = [row for row in rows if row.mask_ratio == 0.5]
    if whole is None or not halves:
        return ["Not measured: probe the ratios 0 and 0.5 (`--mask-ratio 0,0.5`)."]
    return [
        f"{probe.name}, {half.mask}: "
        + findings.half_against_whole(accuracy_of(probe, half), accuracy_of(probe, whole))
        for probe in PROBES
        for half in halves
        if probe.accuracy(whole) > 0
    ]


def render_probe(settings: Mapping[str, object], rows: Sequence[ProbeRow], figure: bytes) -> str:
    """The text of probe.md, which shows the figure probe.png in the same folder."""
    n_train, n_test = (max(getattr(row, key) for row in rows) for key in ("n_train", "n_test"))
    n_seeds = rows[0].n_seeds
    deviation = max((row.mlp_deviation for row in rows if row.n_seeds > 1), default=math.nan)
    seeds = (
        f"the mean of {n_seeds} seeds (largest deviation {100 * deviation:.1f} points)"
        if n_seeds > 1
        else "of one seed"
    )
    page = Page(
        f"Probe of {settings['encoder']} on {Path(str(settings['dataset'])).name}",
        (
            *(make_table(probe, rows) for probe in PROBES),
            Section("", picture=Picture(figure, FIGURE, ALT)),
            Section(
                "Is a fixed mask no worse than random ones?",
                points=tuple(fixed_in_probes(rows)),
            ),
            Section(
                "Is half the image enough?",
                points=tuple(half_in_probes(rows)),
                notes=(
                    f"Noise is {N_ERRORS} standard errors: the binomial one of both accuracies on "
                    f"{n_test} test images and, for the MLP, that of the mean over seeds. Both "
                    "accuracies are of the same test images, so this is rather too much than too "
                    'little, which favours "no worse".',
                ),
            ),
        ),
        (
            f"Test accuracy on {n_test} images of classifiers trained on the frozen embeddings of "
            f"{n_train}; weights: {settings['weights']}, pooling: {settings['pooling']}, "
            f"precision: {settings['precision']}. Linear: "
            f"logistic regression. MLP: fed-ist's own classifier, {seeds}. Masks that are drawn "
            f"anew at each pass train on {settings['passes_if_drawn_anew']} draws: stacked for the "
            "linear probe, in turn for the MLP.",
            f"Made with `{repeat_command(settings, rows)}`.",
        ),
    )
    return render_markdown(page)


def repeat_command(settings: Mapping[str, object], rows: Sequence[ProbeRow]) -> str:
    """The command that makes these rows again, without --out."""
    ratios = ",".join(f"{ratio:g}" for ratio in sorted({row.mask_ratio for row in rows}))
    words = ["fed-ist probe", str(settings["dataset"])]
    for key in (
        "test_dataset",
        "encoder",
        "weights",
        "pooling",
        "precision",
        "img_px",
        "bands",
        "band_range",
    ):
        if settings[key]:
            words.append(f"--{key.replace('_', '-')} {settings[key]}")
    words += [f"--mask {','.join(_masks(rows))}"] if _masks(rows) else []
    words += [f"--mask-ratio {ratios}"]
    words += [f"--{key} {settings[key]}" for key in ("limit", "seeds", "seed")]
    return " ".join(words)


def draw_probe(rows: Sequence[ProbeRow], title: str) -> bytes:
    """Test accuracy against the share of patches dropped, a line a mask, as a PNG file's bytes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.8), layout="constrained")
    whole, styles = baseline(rows), method_styles([*MASKS, NO_MASK])
    for probe, axes in zip(PROBES, figure.subplots(1, len(PROBES), sharey=True), strict=True):
        for mask in _masks(rows) or [NO_MASK]:
            line = sorted(
                [row for row in rows if row.mask == mask or row == whole],
                key=lambda row: row.mask_ratio,
            )
            axes.plot(
                [100 * row.mask_ratio for row in line],
                [100 * probe.accuracy(row) for row in line],
                marker=styles[mask].marker,
                linestyle=styles[mask].dashes,
                color=styles[mask].colour,
                label=mask,
                markersize=5,
            )
        axes.set(xlabel="patches dropped (%)", title=f"{probe.name} probe")
        axes.set_xlim(-3, 100)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("test accuracy (%)")
    figure.axes[0].legend(title="mask", loc="lower left")
    figure.suptitle(title, fontsize=11)
    return png(figure, 130)


def _masks(rows: Sequence[ProbeRow]) -> list[str]:
    return list(dict.fromkeys(row.mask for row in rows if row.mask != NO_MASK))
