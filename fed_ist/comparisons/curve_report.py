"""The report that compares methods: for each setting a table and sentences, and figures."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np

from fed_ist.comparisons.budgets import (
    N_BUDGETS,
    ROUNDING,
    average,
    best_of,
    bytes_to_reach,
    first_bytes,
    show_accuracy,
)
from fed_ist.comparisons.curve_figure import draw_curves, method_styles
from fed_ist.comparisons.curve_words import describe_curves, round_length
from fed_ist.comparisons.curves import Curve, Setting, by_setting
from fed_ist.errors import InputError
from fed_ist.files.atomic import write_atomic
from fed_ist.files.paths import require_writable
from fed_ist.reports.page import Cell, Page, Picture, Section, render_html, render_markdown
from fed_ist.words import csv_text, many, readable_bytes

# Shares of the best mean accuracy in a setting: the report lists the bytes to reach each.
SHARES = (0.90, 0.95, 0.99)

# Bytes of messages, both ways, within which the report says what each method reaches.
BUDGETS = (5_000, 10_000, 25_000, 60_000, 140_000, 200_000, 600_000, 2_000_000, 40_000_000)

TITLE = "Accuracy for bytes: the methods compared"
NOTES = (
    "Accuracy is the global model's on the test images. Bytes are of whole messages, down and up "
    "together, for one client (the clients' mean); bytes on a link are an estimate of the IP "
    "packets that carry them to and from a deployed client, without waiting. ± is the sample "
    "standard deviation over seeds, and absent with one seed.",
    "At a budget a method counts with the best accuracy that it has shown within it, and keeps it "
    "at larger ones. That best is chosen on the test images, which favours methods that were "
    "evaluated often over those with one result.",
    f"The sentences compare methods at {N_BUDGETS} log-spaced budgets, from the first bytes to the "
    "last, and where a method begins. Differences are those of the means, their standard deviation "
    "√(a² + b²) of the two methods'. Bytes to reach a share of the best are the mean curve's.",
    "Device seconds are a client's training on the machine that ran this, busy with other runs and "
    "slower in the first of them; multiply-adds are counted.",
)

HEADER = (
    "method",
    "seeds",
    "final accuracy",
    "best accuracy",
    "bytes in all",
    "bytes on a link",
    *(f"bytes to {100 * share:.0f}% of the best" for share in SHARES),
    "device seconds",
    "device multiply-adds",
)


def write_comparison(
    settings: Mapping[str, object],
    curves: Sequence[Curve],
    chosen: str,
    folder: Path,
    variants: Collection[str] = (),
) -> None:
    """Write compare.md, compare.csv, compare.html, and compare-<dataset>.png for each data set.

    settings: the run-config keys that the runs share, and `limit`, images of each split. chosen:
    the method to which the others are compared. variants: methods that are no peers of it, as they
    share a component with it. Raises `InputError` where there is no run, or a run is there twice.
    """
    if not curves:
        raise InputError("There is no run to report on. Compare one method or more.")
    require_writable(folder, "--out")
    found = by_setting(curves)
    names = dict.fromkeys(curve.method for curve in curves)
    # The chosen method comes first, which makes its line black and solid.
    styles = method_styles(sorted(names, key=lambda name: name != chosen))
    sections: list[Section] = []
    for dataset in dict.fromkeys(setting.dataset for setting in found):
        figure = draw_curves([c for c in curves if c.dataset == dataset], styles, chosen)
        alt = f"Best test accuracy against bytes, {dataset}"
        picture = Picture(figure, figure_name(dataset), alt)
        sections.append(Section(dataset, picture=picture))
        for setting, methods in found.items():
            if setting.dataset == dataset:
                sections.append(make_section(setting, methods, chosen, variants))
                sections.append(budget_section(setting, methods))
        write_atomic(folder / picture.name, figure)
    page = Page(TITLE, tuple(sections), (describe_settings(settings), *NOTES))
    write_atomic(folder / "compare.csv", render_points(curves).encode())
    write_atomic(folder / "compare.md", render_markdown(page).encode())
    write_atomic(folder / "compare.html", render_html(page).encode())


def describe_settings(settings: Mapping[str, object]) -> str:
    """What all methods share, in a sentence or two."""
    weights = f" ({Path(str(settings['encoder-weights'])).name})"
    limit = f", {settings['limit']} images of each split" if settings["limit"] else ""
    layers = many(settings["hidden-layers"], "hidden layer")
    return (
        f"All methods see the same embeddings: {settings['encoder']}"
        f"{weights if settings['encoder-weights'] else ''}, mask {settings['mask']}, "
        f"mask-ratio {settings['mask-ratio']}{limit}. Unless a method's name says otherwise they "
        f"train a classifier with {layers} of {settings['hidden-dim']} neurons in "
        f"{many(settings['num-rounds'], 'round')} of {round_length(settings)}, with "
        f"{settings['optimizer']} at a rate of {settings['learning-rate']} and batches of "
        f"{settings['batch-size']}. Closed forms train nothing."
    )


def make_section(
    setting: Setting,
    methods: Mapping[str, Sequence[Curve]],
    chosen: str,
    variants: Collection[str] = (),
) -> Section:
    """The table of one setting, the best method first, and the sentences on it."""
    means = {method: float(best_of(runs).mean()) for method, runs in methods.items()}
    ranked = sorted(methods, key=lambda method: -means[method])
    top = means[ranked[0]]
    seeds = {tuple(sorted(run.seed for run in runs)) for runs in methods.values()}
    uneven = " Not all methods ran with the same seeds." if len(seeds) > 1 else ""
    no_peers = sorted(method for method in methods if method in variants and method != chosen)
    if chosen not in methods:
        no_peers = []
    peers = {method: runs for method, runs in methods.items() if method not in no_peers}
    aside = (
        (
            f"No peers, and left out of these sentences, since they have a part of {chosen}: "
            f"{'; '.join(no_peers)}.",
        )
        if no_peers
        else ()
    )
    return Section(
        title=setting.words,
        level=3,
        lead=f"The best mean accuracy here is {100 * top:.1f}%, of {ranked[0]}.{uneven}",
        header=HEADER,
        rows=tuple(_row(method, methods[method], top) for method in ranked),
        points=(*describe_curves(peers, chosen), *aside),
    )


def _row(method: str, runs: Sequence[Curve], top: float) -> tuple[Cell, ...]:
    reached = [bytes_to_reach(runs, share * top) for share in SHARES]
    # A mean over only some of the seeds would be of other runs than the rest of the row.
    known = all(run.device_flops > 0 for run in runs)
    texts = (
        method,
        str(len(runs)),
        show_accuracy(np.array([run.accuracy[-1] for run in runs])),
        show_accuracy(best_of(runs)),
        readable_bytes(float(np.mean([run.bytes[-1] for run in runs]))),
        _on_a_link(runs),
        *("never" if n_bytes is None else readable_bytes(n_bytes) for n_bytes in reached),
        f"{np.mean([run.device_seconds for run in runs]):.3g}",
        f"{np.mean([run.device_flops for run in runs]):.2e}" if known else "unknown",
    )
    return tuple(map(Cell, texts))


def _on_a_link(runs: Sequence[Curve]) -> str:
    if not all(run.link_bytes for run in runs):
        return "unknown"
    return readable_bytes(float(np.mean([run.link_bytes[-1] for run in runs])))


def budget_section(setting: Setting, methods: Mapping[str, Sequence[Curve]]) -> Section:
    """The best accuracy of each method within each of `BUDGETS`; the best of all are marked."""
    starts = [first_bytes(runs) for runs in methods.values()]
    budgets = np.array([float(budget) for budget in BUDGETS if budget >= min(starts)])
    found = {name: average(runs, budgets) for name, runs in methods.items()}
    best = np.nanmax(np.stack([each.mean for each in found.values()]), axis=0, initial=0)

    is_top = {name: each.mean >= best - ROUNDING for name, each in found.items()}

    def row(name: str) -> tuple[Cell, ...]:
        pairs = zip(found[name].mean, found[name].deviation, is_top[name], strict=True)
        return Cell(name), *(_accuracy(mean, spread, bool(top)) for mean, spread, top in pairs)

    # Those that are the best at smaller budgets come first.
    ranked = sorted(methods, key=lambda name: tuple(np.flatnonzero(is_top[name])) or (99,))
    return Section(
        title=f"{setting.words}: within a budget",
        level=3,
        header=("within", *map(readable_bytes, budgets)),
        rows=tuple(map(row, ranked)) if len(budgets) else (),
    )


def _accuracy(mean: float, deviation: float, is_best: bool) -> Cell:
    """An accuracy with its deviation over seeds; nothing where there is none yet."""
    if np.isnan(mean):
        return Cell("")
    spread = "" if np.isnan(deviation) else f" ± {100 * deviation:.1f}"
    return Cell(f"{100 * mean:.1f}%{spread}", value=float(mean), is_marked=is_best)


def figure_name(dataset: str) -> str:
    """The file name of a data set's figure, without what file names must not have."""
    return f"compare-{re.sub('[^A-Za-z0-9.]+', '-', dataset)}.png"


def render_points(curves: Sequence[Curve]) -> str:
    """The text of compare.csv: a line for each evaluation of each run."""
    points = (
        vars(curve) | {"bytes": n_bytes, "accuracy": accuracy, "link_bytes": on_link}
        for curve in curves
        for n_bytes, accuracy, on_link in zip(
            curve.bytes,
            curve.accuracy,
            curve.link_bytes or [""] * len(curve.bytes),
            strict=True,
        )
    )
    return csv_text((field.name for field in fields(Curve)), points)
