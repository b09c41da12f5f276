"""Whether a preset ever ends below plain IST, on three data sets: AID, EuroSAT and CIFAR-10.

There are few images or many, and 2 to 8 clients.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from fed_ist.config.toml import Value, read_preset
from fed_ist.words import readable_bytes
from sims.experiments import variant_tables as tables
from sims.experiments import variants
from sims.experiments.case_files import Case
from sims.experiments.cases import configure
from sims.experiments.compare import PARTITIONS

PLAIN, PRESETS = "plain IST", ("anchored", "best")
METHODS = (PLAIN, *PRESETS)
SAME = (
    "hidden-dim",
    "hidden-layers",
    "num-rounds",
    "local-epochs",
)  # of plain IST and presets
CLIENTS, SEEDS = (2, 4, 8), 2
POINT = 0.01  # a preset may end this much below by chance


@dataclass(frozen=True)
class Images:
    """Training images of one data set.

    n: how many a run has, chosen with its seed. most: how many are encoded, of which they are
    chosen.
    """

    dataset: str
    n: int
    most: int

    def __str__(self) -> str:
        return f"{self.dataset}, {self.n}"


AID = [Images("aid", n, 8498) for n in (300, 600, 1200, 2400, 8498)]
OTHERS = [Images(name, n, 7000) for n in (1000, 7000) for name in ("cifar10", "eurosat")]
# The order in which they are run: short runs first.
IMAGES = [*AID[:-1], *OTHERS[:2], AID[-1], *OTHERS[2:]]


def list_methods() -> dict[str, dict[str, Value]]:
    """The settings in the presets' files, and plain IST with their neurons, rounds and epochs."""
    presets = {name: read_preset(variants.ROOT / f"sims/configs/{name}.toml") for name in PRESETS}
    plain = [{key: preset[key] for key in SAME} for preset in presets.values()]
    assert all(each == plain[0] for each in plain), plain
    return {PLAIN: plain[0]} | presets


def list_cases(base: Mapping[str, Value], images: Images) -> list[Case]:
    """Every method in every setting with every seed."""
    return [
        Case(
            *(str(images), partition, clients, method),
            configure(base, parted, changes, {"seed": seed, "min-nodes": 1}),
        )
        for clients in CLIENTS
        for partition, parted in PARTITIONS.items()
        for seed in range(SEEDS)
        for method, changes in list_methods().items()
    ]


def has_all_runs(row: tables.Row) -> bool:
    """Whether all runs of a row are there."""
    return all(len(runs) == SEEDS for runs in row.runs)


def lower_preset(row: tables.Row) -> float:
    """The accuracy of the lower preset minus that of plain IST."""
    plain, *presets = (float(tables.finals(runs).mean()) for runs in row.runs)
    return min(presets) - plain


def standard_error(row: tables.Row) -> float:
    """The standard error of plain IST's accuracy, binomial in the test images."""
    assert row.images is not None
    plain = float(tables.finals(row.runs[0]).mean())
    return float(np.sqrt(plain * (1 - plain) / len(row.images.test.labels)))


def is_behind(row: tables.Row) -> bool:
    """Whether a preset is further below plain IST than chance explains."""
    return lower_preset(row) < -max(POINT, standard_error(row))


def findings(rows: Sequence[tables.Row]) -> str:
    """A sentence on how many settings have a preset behind, and on what each method sends."""
    n_behind = sum(map(is_behind, rows))
    used = []
    for i, name in enumerate(METHODS):
        runs = [run for row in rows for run in row.runs[i]]
        used.append(f"{name} {readable_bytes(tables.mean_bytes(runs))}")
    return (
        f"In {n_behind} of {len(rows)} settings a preset ends more than {100 * POINT:.0f} point, "
        "and more than one standard error, below plain IST. Bytes per client, the mean of all "
        f"settings: {', '.join(used)}."
    )


def stage_of(images: Images, settings: Mapping[str, Value]) -> variants.Stage:
    """The stage of an experiment on these images."""
    cases = partial(list_cases, images=images)
    return variants.Stage(str(images), settings, cases, images.n, images.most)


EXPERIMENT = variants.Experiment(
    title="Presets against plain IST",
    notes=(
        f"Accuracy after the last round, {SEEDS} seeds (mean ± sample standard deviation), each "
        "with training images, a partition and a start of its own; the whole test part. Presets "
        "are the files in sims/configs; plain IST has their neurons, rounds and epochs. One "
        "standard error is that of plain IST's accuracy on the test part.",
    ),
    stages=lambda folder: [
        stage_of(images, variants.real_images(folder, images.dataset)) for images in IMAGES
    ],
    tables=[
        tables.Table(
            labels=("images", "clients", "partition"),
            columns={
                **{name: tables.final(i) for i, name in enumerate(METHODS)},
                "the lower preset - plain IST": lambda row: f"{100 * lower_preset(row):+.1f}",
                "one standard error": lambda row: f"{100 * standard_error(row):.1f}",
            },
            rows={
                (str(images), str(clients), partition): tuple(
                    tables.Key(str(images), partition, clients, name) for name in METHODS
                )
                for images in IMAGES
                for clients in CLIENTS
                for partition in PARTITIONS
            },
            is_shown=has_all_runs,
        )
    ],
    same={"methods": list_methods()},
    findings=findings,
)
