"""Whether a preset ever ends below plain IST: few images and many, 2 to 8 clients, three data sets.

`python -m sims.preset_table FOLDER`, where FOLDER holds the train and test parquet files of AID,
EuroSAT and CIFAR-10. Runs that are done are not repeated; the table goes to
results/presets/presets.md. A second argument is the number of runs at a time, 1 if left out.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fed_ist.budgets import show_accuracy
from fed_ist.config import RunConfig, Value, read_defaults, read_preset
from fed_ist.curves import Curve
from fed_ist.durable import write_atomic
from fed_ist.embeddings import Counts, Embeddings, load_cached, store
from fed_ist.errors import InputError
from fed_ist.known_encoder import open_encoder
from fed_ist.paths import cache_dir
from fed_ist.probe_table import choose_stratified
from fed_ist.rng import generator
from fed_ist.words import readable_bytes, table_line
from sims.case_files import Case, data_digest
from sims.cases import configure, require_same, run_cases
from sims.compare import PARTITIONS
from sims.shared import SharedFiles, embed_shared, load_shared, open_shared

ROOT = Path(__file__).resolve().parent.parent
PLAIN, PRESETS = "plain IST", ("anchored", "fewest-bytes")
SAME = ("hidden-dim", "hidden-layers", "num-rounds", "local-epochs")  # of plain IST and presets
CLIENTS, SEEDS = (2, 4, 8), 2
POINT = 0.01  # by which chance alone may put a preset below


@dataclass(frozen=True)
class Images:
    """n: training images of a data set, chosen with each seed from the `most` that are encoded."""

    dataset: str
    n: int
    most: int

    def __str__(self) -> str:
        return f"{self.dataset}, {self.n}"


AID = [Images("aid", n, 8498) for n in (300, 600, 1200, 2400, 8498)]
OTHERS = [Images(name, n, 7000) for n in (1000, 7000) for name in ("cifar10", "eurosat")]
HEADER = (
    *("images", "clients", "partition", PLAIN, *PRESETS),
    *("the lower preset - plain IST", "one standard error"),
)


def list_methods() -> dict[str, dict[str, Value]]:
    """What the presets' files say, and plain IST with as many neurons, rounds and epochs."""
    presets = {name: read_preset(ROOT / f"sims/configs/{name}.toml") for name in PRESETS}
    plain = [{key: preset[key] for key in SAME} for preset in presets.values()]
    assert all(each == plain[0] for each in plain), plain
    return {PLAIN: plain[0]} | presets


def list_cases(base: Mapping[str, Value], images: Images) -> Iterator[Case]:
    """Every method in every setting with every seed."""
    for clients in CLIENTS:
        for partition, parted in PARTITIONS.items():
            for seed in range(SEEDS):
                for method, changes in list_methods().items():
                    config = configure(base, parted, changes, {"seed": seed, "min-nodes": 1})
                    yield Case(str(images), partition, clients, method, config)


def choose(files: SharedFiles, n: int, seed: int, cache: Path) -> SharedFiles:
    """The same with a stratified choice of n training images, which is kept in the cache."""
    (train,) = files.train
    place = cache / f"{train.name}-{n}-{seed}"
    if load_cached(place) is None:
        whole = load_cached(train)
        assert whole is not None
        rows = choose_stratified(whole.labels, n, generator(seed, "preset-images"))
        store(
            place,
            Embeddings(whole.values[rows], whole.labels[rows], _share(whole.counts, len(rows))),
        )
    return SharedFiles((place,), files.test, files.class_names)


def _share(counts: Counts, n: int) -> Counts:
    """Of n of the images: bytes as if all were alike."""
    sizes = (counts.original_bytes, counts.raw_bytes, counts.packed_bytes)
    return Counts(n, 0, *(round(size * n / counts.n_images) for size in sizes))


def run_images(
    images: Images, data: Path, out: Path, n_workers: int
) -> tuple[list[Curve], int, list[str]]:
    """(the curves on these images, the number of test images, what could not be run)."""
    parts: dict[str, Value] = {
        "dataset": str(data / f"{images.dataset}-train.parquet"),
        "test-dataset": str(data / f"{images.dataset}-test.parquet"),
    }
    base = read_defaults(ROOT / "pyproject.toml") | parts
    config: RunConfig = configure(base)
    cache = cache_dir(config.cache_dir)
    encoder = open_encoder(config.encoder_spec, cache)
    shared = open_shared(config, images.most, whole_test=True)
    whole = embed_shared(config, encoder, shared)
    found, failures = run_cases(
        list(list_cases(base, images)),
        data_digest(shared.train, shared.test, encoder),
        lambda case: choose(whole, images.n, case.config.seed, cache),
        out,
        n_workers,
    )
    return [curve for _, curve in found], len(load_shared(whole).test.labels), failures


def lines_of(images: Images, curves: Sequence[Curve], n_test: int) -> Iterator[tuple[str, bool]]:
    """A line for each setting whose runs are all there, and whether a preset fell behind in it."""
    for clients in CLIENTS:
        for partition in PARTITIONS:
            setting = (clients, partition)
            some = [curve for curve in curves if (curve.clients, curve.partition) == setting]
            ends = {
                method: np.array([c.accuracy[-1] for c in some if c.method == method])
                for method in (PLAIN, *PRESETS)
            }
            if any(len(found) < SEEDS for found in ends.values()):
                continue
            plain = float(ends[PLAIN].mean())
            below = min(float(ends[name].mean()) for name in PRESETS) - plain
            error = float(np.sqrt(plain * (1 - plain) / n_test))
            cells = (
                *(str(images), str(clients), partition),
                *(show_accuracy(found) for found in ends.values()),
                *(f"{100 * below:+.1f}", f"{100 * error:.1f}"),
            )
            yield table_line(cells), below < -max(POINT, error)


def render(found: Sequence[tuple[Images, Sequence[Curve], int]]) -> str:
    """Markdown: the settings, and in how many of them a preset is behind."""
    rows = [row for each in found for row in lines_of(*each)]
    n_behind = sum(is_behind for _, is_behind in rows)
    curves = [curve for _, some, _ in found for curve in some]
    sent = {name: [c.bytes[-1] for c in curves if c.method == name] for name in (PLAIN, *PRESETS)}
    used = ", ".join(f"{name} {readable_bytes(float(np.mean(n)))}" for name, n in sent.items() if n)
    return "\n".join(
        [
            "# Presets against plain IST",
            "",
            f"Accuracy after the last round, {SEEDS} seeds (mean ± sample standard deviation), "
            "each with training images, a partition and a start of its own; the whole test part. "
            "Presets are the files in sims/configs; plain IST has their neurons, rounds and "
            "epochs. One standard error is that of plain IST's accuracy on the test part.",
            "",
            f"In {n_behind} of {len(rows)} settings a preset ends more than {100 * POINT:.0f} "
            "point, and more than one standard error, below plain IST. Bytes per client, the mean "
            f"of all settings: {used}.",
            "",
            *(table_line(HEADER), table_line(("---",) * len(HEADER))),
            *(line for line, _ in rows),
            "",
        ]
    )


def main() -> int:
    data, out = Path(sys.argv[1]).resolve(), ROOT / "results" / "presets"
    n_workers = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    found, failures = [], []
    try:
        require_same(out, {"methods": list_methods()})
        for images in [*AID[:-1], *OTHERS[:2], AID[-1], *OTHERS[2:]]:
            curves, n_test, wrong = run_images(images, data, out, n_workers)
            found.append((images, curves, n_test))
            failures += wrong
            write_atomic(out / "presets.md", render(found).encode())
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print((out / "presets.md").read_text(), *failures, sep="\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
