"""Experiments whose reports are tables: makes their runs, each once, and one Markdown page.

`python -m sims.experiments.variants NAME [FOLDER [JOBS]]`: FOLDER holds the parquet files of real
images, JOBS is the number of runs at a time. Runs that are done are not repeated; the page is
results/NAME/NAME.md, which is written again after each stage. Each experiment is data in the module
that `EXPERIMENTS` names.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

from fed_ist.comparisons.curves import Curve
from fed_ist.comparisons.probe_table import choose_stratified
from fed_ist.config.derive import encoder_spec
from fed_ist.config.toml import Value, read_defaults
from fed_ist.encoder.embeddings import Counts, Embeddings, load_cached, store
from fed_ist.encoder.known import open_encoder
from fed_ist.errors import InputError, require_choice
from fed_ist.files.atomic import write_atomic
from fed_ist.files.paths import cache_dir
from fed_ist.reports.page import Page, render_markdown
from fed_ist.rng import generator
from sims.endings import exit_code
from sims.experiments.case_files import Case, data_digest
from sims.experiments.cases import configure, require_same, run_cases
from sims.experiments.shared_embeddings import (
    Shared,
    SharedFiles,
    embed_shared,
    load_shared,
    open_shared,
)
from sims.experiments.variant_tables import Row, Table, rows_of, section_of

ROOT = Path(__file__).resolve().parent.parent.parent
EXPERIMENTS = {
    "attack": "sims.experiments.attack_table",
    "capacity": "sims.experiments.capacity_table",
    "codecs": "sims.experiments.codec_table",
    "ist-variants": "sims.experiments.ist_table",
    "presets": "sims.experiments.preset_table",
    "privacy": "sims.experiments.privacy_table",
}
JOBS = 2  # runs at a time


@dataclass(frozen=True)
class Stage:
    """Runs on the same images.

    dataset: its name in the keys of the runs. settings: run-config keys that differ from the
    defaults in all runs, those of the images among them. cases: the runs, by the defaults. n_train:
    training images of each run, chosen with its seed, stratified, of the first `most`; 0 for all.
    """

    dataset: str
    settings: Mapping[str, Value]
    cases: Callable[[Mapping[str, Value]], list[Case]]
    n_train: int = 0
    most: int = 0


@dataclass(frozen=True)
class Experiment:
    """An experiment whose report is a page of tables.

    stages: by the folder of real images; None where there is none. same: what a folder's runs
    share. findings: sentences above the tables, made of all their rows.
    """

    title: str
    notes: tuple[str, ...]
    stages: Callable[[Path | None], Sequence[Stage]]
    tables: Sequence[Table]
    same: Mapping[str, object]
    findings: Callable[[Sequence[Row]], str] | None = None


@dataclass
class Found:
    """What has been found so far. images: by data set. failures: sentences on runs that failed."""

    curves: list[Curve] = field(default_factory=list)
    images: dict[str, Shared] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


def real_images(folder: Path | None, dataset: str) -> dict[str, Value]:
    """The run-config keys of a data set in a folder of parquet files.

    Raises `InputError` where no folder is given.
    """
    if folder is None:
        raise InputError("Give the folder of the parquet files: make ... DATA=FOLDER.")
    splits = {"dataset": "train", "test-dataset": "test"}
    return {key: str(folder / f"{dataset}-{split}.parquet") for key, split in splits.items()}


def on_aid(
    settings: Mapping[str, Value], cases: Callable[[Mapping[str, Value]], list[Case]]
) -> Callable[[Path | None], list[Stage]]:
    """The stages of an experiment on AID alone."""
    return lambda folder: [Stage("aid", {**settings, **real_images(folder, "aid")}, cases)]


def run_stage(stage: Stage, out: Path, n_workers: int, found: Found) -> None:
    """Add the curves of all cases of a stage; those that `out` lacks are run.

    Raises `InputError` for images that cannot be read.
    """
    base = read_defaults(ROOT / "pyproject.toml") | dict(stage.settings)
    config = configure(base)
    cache = cache_dir(config.cache_dir)
    encoder = open_encoder(encoder_spec(config), cache)
    images = open_shared(config, stage.most, whole_test=True)
    print(*images.lines, sep="\n", file=sys.stderr)
    whole = embed_shared(config, encoder, images)

    def embed(case: Case) -> SharedFiles:
        return choose(whole, stage.n_train, case.config.seed, cache) if stage.n_train else whole

    digest = data_digest(images.train, images.test, encoder)
    curves, failures = run_cases(stage.cases(base), digest, embed, out, n_workers)
    found.images[stage.dataset] = load_shared(whole)
    found.curves += [curve for _, curve in curves]
    found.failures += failures


def choose(files: SharedFiles, n: int, seed: int, cache: Path) -> SharedFiles:
    """The same embeddings with a stratified choice of n training images, kept in the cache."""
    (train,) = files.train
    place = cache / f"{train.name}-{n}-{seed}"
    if load_cached(place) is None:
        whole = load_cached(train)
        assert whole is not None
        rows = choose_stratified(whole.labels, n, generator(seed, "preset-images"))
        counts = _share(whole.counts, len(rows))
        store(place, Embeddings(whole.values[rows], whole.labels[rows], counts))
    return SharedFiles((place,), files.test, files.class_names, files.decorrelated)


def _share(counts: Counts, n: int) -> Counts:
    """The counts of n of the images, with bytes as if all images were alike."""
    sizes = (counts.original_bytes, counts.raw_bytes, counts.packed_bytes)
    return Counts(n, 0, *(round(size * n / counts.n_images) for size in sizes))


def render(experiment: Experiment, found: Found) -> str:
    """The page in Markdown: all tables, and the sentences on them."""
    rows = [rows_of(table, found.curves, found.images) for table in experiment.tables]
    sections = tuple(map(section_of, experiment.tables, rows))
    every = [row for some in rows for row in some]
    said = (experiment.findings(every),) if experiment.findings and every else ()
    return render_markdown(Page(experiment.title, sections, (*experiment.notes, *said)))


def run_experiment(name: str, folder: Path | None, n_workers: int) -> int:
    """Run what is missing in results/NAME and write NAME.md there; returns an exit code.

    folder: of real images; None for none.
    """
    require_choice("experiment", name, EXPERIMENTS)
    experiment: Experiment = import_module(EXPERIMENTS[name]).EXPERIMENT
    out, found = ROOT / "results" / name, Found()
    stages = experiment.stages(folder)
    require_same(out, experiment.same)
    text = ""
    for stage in stages:
        run_stage(stage, out, n_workers, found)
        text = render(experiment, found)
        write_atomic(out / f"{name}.md", text.encode())
    print(text, *found.failures, sep="\n")
    return 1 if found.failures else 0


def main() -> int:
    """Make the experiment that the command line names; returns the exit code."""
    name, *more = sys.argv[1:] or [""]
    folder = Path(more[0]).resolve() if more else None
    n_workers = int(more[1]) if more[1:] else JOBS
    return exit_code(lambda: run_experiment(name, folder, n_workers))


if __name__ == "__main__":
    sys.exit(main())
