"""`fed-ist sweep paper`: the experiments of Kariotakis et al. (CPAL 2024), in one report.

They are mask ratio by mask by number of clients (the paper's workers), with IST. The `fed-ist`
command calls this module with its options as one JSON object.
"""

import json
import math
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from fed_ist.classifier.slices import slice_bytes
from fed_ist.comparisons.curves import Curve
from fed_ist.comparisons.probe_table import NO_MASK, list_cells
from fed_ist.comparisons.sweep_report import write_sweep
from fed_ist.comparisons.sweep_runs import N_LATE, SweepRun
from fed_ist.config.derive import encoder_spec, local_training
from fed_ist.config.run_config import RunConfig
from fed_ist.config.toml import Value, read_defaults
from fed_ist.encoder.known import AnyEncoder, open_encoder
from fed_ist.errors import InputError
from fed_ist.files.paths import cache_dir
from fed_ist.images.source import ImageSource
from sims.experiments.case_files import Case, data_digest
from sims.experiments.cases import answer, configure, require_same, run_cases
from sims.experiments.shared_embeddings import SharedFiles, embed_shared, open_shared

# The paper's settings; --set may change them.
PAPER: dict[str, Value] = {
    "hidden-dim": 1024,
    "hidden-layers": 2,
    "batch-size": 64,
    "optimizer": "adam",
    "learning-rate": 1e-3,
    "local-steps": 20,
    "partitioner": "iid",
    "min-nodes": 1,
}
# The keys that the sweep itself sets, and the options that say how.
SWEPT = {
    "mask": "--masks",
    "mask-ratio": "--mask-ratio",
    "groups": "--clients",
    "num-rounds": "--epochs",
    "seed": "--seeds",
    "strategy": "",
}


@dataclass(frozen=True)
class PaperSweep:
    """What `fed-ist sweep paper` is asked for.

    overrides: run-config keys of all runs. epochs: passes over the images, times the number of
    clients. limit: images of each split; 0 for all. out: the folder for runs and report.
    """

    overrides: dict[str, Value]
    mask_ratios: list[float]
    masks: list[str]
    clients: list[int]
    epochs: int
    n_seeds: int
    limit: int
    out: str
    n_workers: int


def count_rounds(config: RunConfig, epochs: int, n_images: int, clients: int) -> int:
    """The rounds in which a client sees its share of the images `epochs` * `clients` times."""
    n_examples = math.ceil(n_images / clients)
    n_steps = epochs * clients * math.ceil(n_examples / config.batch_size)
    return math.ceil(n_steps / local_training(config).count_steps(n_examples))


def list_cases(
    request: PaperSweep, base: Mapping[str, Value], dataset: str, n_images: int
) -> list[Case]:
    """Every mask at every ratio with every number of clients and every seed; ratio 0 once."""
    cases = []
    for mask, mask_ratio in list_cells(request.masks, request.mask_ratios):
        for clients in request.clients:
            for seed in range(request.n_seeds):
                changes: dict[str, Value] = {
                    "strategy": "ist",
                    "mask": "fixed" if mask == NO_MASK else mask,
                    "mask-ratio": mask_ratio,
                    "groups": clients,
                    "seed": seed,
                }
                config = configure(base, changes)
                n_rounds = count_rounds(config, request.epochs, n_images, clients)
                config = replace(config, num_rounds=n_rounds)
                name = mask if mask == NO_MASK else f"{mask} {mask_ratio:g}"
                cases.append(Case(dataset, config.partitioner, clients, name, config))
    return cases


def sweep(request: PaperSweep, app: Path) -> list[str]:
    """Run what is missing and write the report; returns sentences on what could not be run."""
    for key, option in SWEPT.items():
        if key in request.overrides:
            instead = f"give {option} instead" if option else "leave it out"
            raise InputError(f"--set {key} is not possible here, the sweep sets it: {instead}.")
    base = read_defaults(app / "pyproject.toml") | PAPER | request.overrides
    config = configure(base)
    images = open_shared(config, request.limit)
    train, test = images.train, images.test
    n_images = int(np.count_nonzero(train.labels >= 0))
    if max(request.clients) > n_images:
        raise InputError(
            f"--clients {max(request.clients)} is more than the {n_images} training images. "
            "Give fewer clients, or more images."
        )
    dataset = Path(config.dataset).stem.removesuffix("-train")
    cases = list_cases(request, base, dataset, n_images)
    encoder = open_encoder(encoder_spec(config), cache_dir(config.cache_dir))
    if encoder.note:
        print(encoder.note, file=sys.stderr)
    settings = config.to_mapping() | {
        "limit": request.limit,
        "epochs": request.epochs,
        "train-signature": train.signature,
        "test-signature": test.signature,
        "encoder-digest": encoder.digest,
    }
    for key in ("name", "results-dir", "cache-dir", *SWEPT):  # these change no result, or vary
        del settings[key]
    out = Path(request.out)
    require_same(out, settings)
    print(*images.lines, sep="\n", file=sys.stderr)

    @cache
    def embedded(mask: str, mask_ratio: float) -> SharedFiles:
        drawn = replace(config, mask=mask, mask_ratio=mask_ratio)
        return embed_shared(drawn, encoder, images)

    found, failures = run_cases(
        cases,
        data_digest(train, test, encoder),
        lambda case: embedded(case.config.mask, case.config.mask_ratio),
        out,
        request.n_workers or os.cpu_count() or 1,
    )
    runs = [_row(case, curve, encoder, train, test) for case, curve in found]
    write_sweep(settings, runs, out)
    return failures


def _row(
    case: Case, curve: Curve, encoder: AnyEncoder, train: ImageSource, test: ImageSource
) -> SweepRun:
    config, n_between = case.config, len(curve.bytes) - 1
    # Other messages were sent before the first evaluation, so they are subtracted if possible.
    sent = curve.bytes[-1] - (curve.bytes[0] if n_between else 0)
    late = curve.accuracy[-N_LATE:]
    return SweepRun(
        mask=config.mask if config.mask_ratio else NO_MASK,
        mask_ratio=config.mask_ratio,
        clients=case.clients,
        seed=config.seed,
        rounds=config.num_rounds,
        final_accuracy=curve.accuracy[-1],
        best_accuracy=max(curve.accuracy),
        late_deviation=float(np.std(late, ddof=1)) if len(late) > 1 else 0.0,
        # The bytes before the first round are those of preparing the images.
        round_bytes=sent / (2 * max(1, n_between)),
        slice_bytes=slice_bytes(
            encoder.embed_dim,
            config.hidden_dim,
            len(train.class_names),
            config.groups,
            config.hidden_layers,
            config.norm,
        ),
        device_seconds=curve.device_seconds,
        device_flops=curve.device_flops,
        n_train=int(np.count_nonzero(train.labels >= 0)),
        n_test=int(np.count_nonzero(test.labels >= 0)),
    )


def main() -> int:
    """Make the sweep; returns the exit code."""
    request = PaperSweep(**json.loads(sys.argv[1]))
    return answer(lambda: sweep(request, Path.cwd()), Path(request.out, "sweep"))


if __name__ == "__main__":
    sys.exit(main())
