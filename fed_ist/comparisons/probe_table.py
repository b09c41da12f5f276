"""The table of a probe: which rows it has, how a row is measured, and the files that keep it.

A folder holds `probe.json`, everything that the numbers depend on, and `probe.csv`, which is
replaced after each row. So a probe that was cut goes on where it was, and rows can be added to a
finished one.
"""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fed_ist.comparisons.probe import (
    C_VALUES,
    HIDDEN_DIM,
    MLP_TRAINING,
    linear_probe,
    mean_and_deviation,
    mlp_probe,
)
from fed_ist.encoder.embeddings import Embeddings, embed, raw_mask
from fed_ist.errors import InputError, require_choice
from fed_ist.files.atomic import write_atomic
from fed_ist.files.paths import require_writable
from fed_ist.files.seals import NOT_AS_WRITTEN, read_sealed_json, seal_of, sealed_json
from fed_ist.images.masks import MASKS, count_visible
from fed_ist.images.source import ImageSource
from fed_ist.rng import generator
from fed_ist.words import csv_text

if TYPE_CHECKING:
    from fed_ist.encoder.frozen import Encoder

# The mask of the row where nothing is dropped, as all masks are the same there.
NO_MASK = "none"
# How often a mask that is drawn anew at each pass is drawn; passes take these draws in turn.
N_PASSES = 4

Settings = dict[str, object]


@dataclass(frozen=True)
class ProbeRow:
    """One line of probe.csv. Accuracies are of the test images, in [0, 1].

    c: the C with which `linear` was fitted. mlp, mlp_deviation: over `n_seeds` trainings.
    """

    mask: str
    mask_ratio: float
    linear: float
    c: float
    mlp: float
    mlp_deviation: float
    n_seeds: int
    n_train: int
    n_test: int


@dataclass(frozen=True)
class Subject:
    """The images and the encoder that are probed, and the seeds."""

    train: ImageSource
    test: ImageSource
    encoder: "Encoder"
    cache: Path
    n_seeds: int
    seed: int


def parse_masks(text: str) -> list[str]:
    """The names of masks in `fixed,random` or `all`; raises `InputError` for an unknown one."""
    if text.strip() == "all":
        return list(MASKS)
    names = [name.strip() for name in text.split(",")]
    for name in names:
        require_choice("mask", name, [*MASKS, "all"])
    return list(dict.fromkeys(names))


def parse_ratios(text: str) -> list[float]:
    """The ratios in `0,0.5`, ascending; raises `InputError` for what is no number in [0, 1)."""
    ratios = set()
    for word in text.split(","):
        try:
            ratio = float(word)
        except ValueError:
            raise InputError(
                f"--mask-ratio '{text}': '{word}' is no number. "
                "Give numbers in [0, 1), separated by commas."
            ) from None
        count_visible(1, ratio)
        ratios.add(ratio)
    return sorted(ratios)


def list_cells(masks: Sequence[str], ratios: Sequence[float]) -> list[tuple[str, float]]:
    """The (mask, mask_ratio) of each row; ratio 0 comes first and once."""
    unmasked = [(NO_MASK, 0.0)] if 0 in ratios else []
    return unmasked + [(mask, ratio) for mask in masks for ratio in ratios if ratio > 0]


def limited(source: ImageSource, dataset: str, split: str, limit: int, seed: int) -> ImageSource:
    """A split of a data set, or a stratified choice of `limit` of its images (0: all of them).

    dataset, split: their names, for messages. Raises `InputError` where the split is empty, or has
    more classes than `limit`.
    """
    n_classes = len(np.unique(source.labels[source.labels >= 0]))
    if n_classes == 0:
        raise InputError(
            f"There is no {split} image in '{dataset}'. Give a data set that has some, or name "
            "the test images with --test-dataset."
        )
    if limit == 0 or limit >= len(source):
        return source
    if limit < n_classes:
        raise InputError(
            f"--limit {limit} is fewer than the {n_classes} classes. Give one image a class at "
            "least, or 0 for all images."
        )
    rng = generator(seed, f"probe-{split}")
    return source.subset(choose_stratified(source.labels, limit, rng))


def choose_stratified(
    labels: NDArray[np.int64], n: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Random indices of `n` labels, of which each class gives the same share.

    labels: int64 (m,); those below 0 are not chosen. Returns int64 (n,), ascending. Each image's
    rank within its class, in random order, is divided by the size of the class, and the images with
    the `n` smallest quotients are chosen. The first image of each class has quotient 0, so it is
    chosen if `n` is the number of classes or more.
    """
    order = rng.permutation(np.flatnonzero(labels >= 0))
    share = np.empty(len(order))
    for label in np.unique(labels[order]):
        rows = labels[order] == label
        share[rows] = np.arange(rows.sum()) / rows.sum()
    return np.sort(order[share.argsort(kind="stable")[:n]])


def measure_row(
    subject: Subject,
    mask: str,
    mask_ratio: float,
    on_step: Callable[[str], None],
    on_skip: Callable[[str], None],
) -> ProbeRow:
    """Embed the images under one mask, and probe the embeddings.

    on_step: told what begins. on_skip: told why an image is left out. Raises `InputError` where the
    images that could be read are of fewer than two classes.
    """
    on_step("encoding")
    drawn = "fixed" if mask == NO_MASK else mask
    # Training and test images are masked from one stream, so `shared` is one mask for all of them.
    streams: list[tuple[int, ...]] = [(i,) for i in range(N_PASSES)]
    if not MASKS[drawn].per_pass:
        streams = [()]
    passes = [_embed(subject, subject.train, drawn, mask_ratio, s, on_skip) for s in streams]
    test = _embed(subject, subject.test, drawn, mask_ratio, (), on_skip)
    labels = passes[0].labels
    if len(np.unique(labels)) < 2:
        raise InputError(
            "A probe needs training images of two classes or more. Give a data set that has them."
        )
    values = [found.values for found in passes]
    on_step("linear probe")
    linear, c = linear_probe(values, labels, test.values, test.labels, subject.seed)
    accuracies = []
    for i in range(subject.n_seeds):
        on_step(f"MLP probe {i + 1}/{subject.n_seeds}")
        accuracies.append(
            mlp_probe(
                values,
                labels,
                test.values,
                test.labels,
                len(subject.train.class_names),
                subject.seed + i,
            )
        )
    mlp, deviation = mean_and_deviation(accuracies)
    return ProbeRow(
        mask=mask,
        mask_ratio=mask_ratio,
        linear=linear,
        c=c,
        mlp=mlp,
        mlp_deviation=deviation,
        n_seeds=subject.n_seeds,
        n_train=len(labels),
        n_test=len(test.labels),
    )


def _embed(
    subject: Subject,
    source: ImageSource,
    mask: str,
    mask_ratio: float,
    stream: tuple[int, ...],
    on_skip: Callable[[str], None],
) -> Embeddings:
    encoder = subject.encoder
    spec = raw_mask(
        encoder,
        mask,
        mask_ratio,
        channels=source.channels,
        seed=subject.seed,
        coordinates=stream,
    )
    # Packed files are not kept: a probe reads each once, and all masks' files would fill the disk.
    found, _ = embed(source, spec, encoder, subject.cache, on_skip, keep_packed=False)
    return found


def probe_settings(subject: Subject, options: Mapping[str, object]) -> Settings:
    """Everything that a row's numbers depend on, except mask and ratio, as JSON can hold it."""
    return {
        **options,
        "seeds": subject.n_seeds,
        "seed": subject.seed,
        "train_signature": subject.train.signature,
        "test_signature": subject.test.signature,
        "encoder_digest": subject.encoder.digest,
        "passes_if_drawn_anew": N_PASSES,
        "c_values": list(C_VALUES),
        "mlp": {"hidden_dim": HIDDEN_DIM, **asdict(MLP_TRAINING)},
    }


def open_probe_folder(folder: Path, settings: Settings) -> list[ProbeRow]:
    """The rows that a folder has already; the folder and its probe.json are made if need be.

    Raises `InputError` where it was written with other settings, or is no folder of a probe.
    """
    require_writable(folder, "--out")
    path = folder / "probe.json"
    if not path.exists():
        if (folder / "probe.csv").exists():
            raise InputError(
                f"'{folder}' has a probe.csv but not the probe.json that says how it was made. "
                "Choose another --out."
            )
        write_atomic(path, sealed_json(settings, indent=2))
        return []
    before = read_sealed_json(path, "Choose another --out.")
    differing = [key for key in settings if before.get(key) != settings[key]]
    if differing:
        key = differing[0]
        raise InputError(
            f"'{folder}' was written with {key} = {json.dumps(before.get(key))}; now it is "
            f"{json.dumps(settings[key])}. Choose another --out, or give the same settings."
        )
    return read_probe_rows(folder)


CHECKSUMS = "checksums.json"
KINDS: dict[Any, Callable[[str], Any]] = {str: str, float: float, int: int}


def read_probe_rows(folder: Path) -> list[ProbeRow]:
    """The rows of a folder's probe.csv; none where there is no such file.

    Raises `InputError` where it is damaged.
    """
    path, seals = folder / "probe.csv", folder / CHECKSUMS
    if not path.exists() and not seals.exists():
        return []
    try:
        data = path.read_bytes()
        if seals.exists():  # earlier versions wrote no checksum
            known = read_sealed_json(seals, "Choose another --out.", is_old_read=False)
            if list(astuple(seal_of(data))) not in known[path.name]:
                raise ValueError(NOT_AS_WRITTEN)
        lines = csv.DictReader(io.StringIO(data.decode(), newline=""), strict=True)
        return [
            ProbeRow(**{f.name: KINDS[f.type](line[f.name]) for f in fields(ProbeRow)})
            for line in lines
        ]
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise InputError(
            f"'{path}' cannot be read ({type(error).__name__}: {error}). Choose another --out."
        ) from None


def write_probe_rows(folder: Path, rows: Sequence[ProbeRow]) -> None:
    """Replace a folder's probe.csv."""
    text = csv_text((f.name for f in fields(ProbeRow)), map(asdict, rows))
    path, data = folder / "probe.csv", text.encode()
    # The old file's checksum stays valid until the new file is in its place.
    accepted = [data, path.read_bytes()] if path.exists() else [data]
    for known in (accepted, [data]):
        seals = {path.name: [astuple(seal_of(each)) for each in known]}
        write_atomic(folder / CHECKSUMS, sealed_json(seals))
        if known is accepted:
            write_atomic(path, data)


def baseline(rows: Sequence[ProbeRow]) -> ProbeRow | None:
    """The row where nothing is dropped; None where there is none."""
    return next((row for row in rows if row.mask == NO_MASK), None)


HEADER = f"{'mask':<10}{'mask_ratio':>10}{'linear':>9}{'mlp':>9}{'deviation':>11}{'mlp/mask 0':>12}"


def render_probe_row(row: ProbeRow, unmasked: ProbeRow | None) -> str:
    """A row under `HEADER`; the last column is the MLP's accuracy over that of the unmasked row."""
    share = f"{row.mlp / unmasked.mlp:.3f}" if unmasked and unmasked.mlp else "-"
    deviation = f"{100 * row.mlp_deviation:.1f}%" if row.n_seeds > 1 else "-"
    return (
        f"{row.mask:<10}{row.mask_ratio:>10.2f}{100 * row.linear:>8.1f}%{100 * row.mlp:>8.1f}%"
        f"{deviation:>11}{share:>12}"
    )
