"""The report of the comparison with convolution: its tables, and a picture of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fed_ist.comparisons.curve_figure import method_styles
from fed_ist.files.atomic import write_atomic
from fed_ist.reports.accuracy_figure import png
from fed_ist.reports.page import Cell, Page, Picture, Section, render_markdown
from fed_ist.words import percent

NETWORK, TRANSFORMER = "EfficientNet-Lite0", "bundled ViT"
DATASETS = {"aid": "AID", "eurosat": "EuroSAT"}
MASKS, RATIOS = ("fixed", "grid"), (0.0, 0.25, 0.5, 0.75)
PROBE = "linear probe"
FEDERATED = ("IST", "anchored IST", "FedAvg")
DRAWN = (PROBE, "anchored IST")
FIGURE, ALT = "convolution.png", "Test accuracy against the share of patches dropped"


@dataclass(frozen=True)
class Setting:
    """What images are encoded with, and how many of their patches are dropped."""

    dataset: str
    encoder: str
    mask: str
    mask_ratio: float

    def __str__(self) -> str:
        return f"{self.encoder} {self.mask} {self.mask_ratio:.2f}"


@dataclass(frozen=True)
class Measured:
    """The accuracies in a setting by method, in [0, 1]; what could not be run is missing."""

    setting: Setting
    accuracy: Mapping[str, float]


def under(found: Sequence[Measured], dataset: str, mask: str) -> list[Measured]:
    """What was measured on a data set under a mask, or without any."""
    return [
        one
        for one in found
        if one.setting.dataset == dataset
        and (one.setting.mask == mask or not one.setting.mask_ratio)
    ]


def table_of(found: Sequence[Measured], dataset: str, mask: str) -> Section:
    """The table of a data set under a mask: encoders and methods by the share that is dropped."""
    by_place = {
        (one.setting.encoder, one.setting.mask_ratio): one.accuracy
        for one in found
        if one.setting.dataset == dataset
        and (one.setting.mask == mask or not one.setting.mask_ratio)
    }
    rows = []
    for encoder in (NETWORK, TRANSFORMER):
        for method in (PROBE, *FEDERATED):
            values = [by_place.get((encoder, ratio), {}).get(method) for ratio in RATIOS]
            cells = [Cell("" if v is None else f"{100 * v:.1f}%") for v in values]
            rows.append((Cell(encoder), Cell(method), *cells))
    header = ("encoder", "method", *(f"{percent(ratio)} dropped" for ratio in RATIOS))
    return Section(f"{DATASETS[dataset]}, mask {mask}", header=header, rows=tuple(rows))


def draw(found: Sequence[Measured]) -> bytes:
    """Accuracy against the share that is dropped, a panel for each data set and mask: a PNG."""
    from matplotlib.figure import Figure

    panels = [(dataset, mask) for dataset in DATASETS for mask in MASKS]
    figure = Figure(figsize=(1 + 3.4 * len(panels), 4), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    styles = method_styles([f"{e}, {m}" for e in (NETWORK, TRANSFORMER) for m in DRAWN])
    for panel, (dataset, mask) in zip(axes, panels, strict=True):
        for name, style in styles.items():
            encoder, _, method = name.partition(", ")
            line = [
                (100 * one.setting.mask_ratio, 100 * one.accuracy[method])
                for one in under(found, dataset, mask)
                if one.setting.encoder == encoder and method in one.accuracy
            ]
            panel.plot(
                *zip(*line, strict=True), color=style.colour, linestyle=style.dashes,
                marker=style.marker, label=name,
            )  # fmt: skip
        panel.set(title=f"{DATASETS[dataset]}, {mask}", xlabel="patches dropped (%)")
        panel.grid(alpha=0.3)
    axes[0].set_ylabel("test accuracy (%)")
    axes[0].legend(fontsize="small")
    return png(figure, 110)


def write_report(found: Sequence[Measured], note: str, out: Path) -> str:
    """Write the page and its picture to a folder; returns the page in Markdown.

    note: the sentences above everything else.
    """
    picture = Picture(draw(found), FIGURE, ALT)
    tables = [table_of(found, dataset, mask) for dataset in DATASETS for mask in MASKS]
    page = Page("What dropped patches cost", (Section("", picture=picture), *tables), (note,))
    text = render_markdown(page)
    write_atomic(out / FIGURE, picture.png)
    write_atomic(out / "convolution.md", text.encode())
    return text
