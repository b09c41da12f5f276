"""`fed-ist compare`: IST and its peers, on the same embeddings, classifier, partitions and seeds.

The `fed-ist` command calls this module with its options as one JSON object.
"""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fed_ist.comparisons.curve_report import write_comparison
from fed_ist.config.derive import encoder_spec
from fed_ist.config.methods import GROUPED, STRATEGIES
from fed_ist.config.toml import Value, read_defaults, read_preset
from fed_ist.encoder.known import open_encoder
from fed_ist.errors import InputError, require_choice
from fed_ist.files.paths import cache_dir
from sims.experiments.case_files import Case, data_digest
from sims.experiments.cases import answer, configure, require_same, run_cases
from sims.experiments.shared_embeddings import embed_shared, open_shared

# One hidden layer: the weights of a second one lie between two layers that are cut, so that a round
# of IST trains only 1 / `groups` of them. Variants of FedAvg have two layers, or the size of a
# slice. The peers' learning rates are the best of a few on held-out training images of AID.
USUAL: dict[str, Value] = {
    "hidden-dim": 1024,
    "hidden-layers": 1,
    "num-rounds": 20,
    "local-epochs": 3,
}
MIXED: dict[str, Value] = {"capacities": "1,0.5,0.25,0.125"}
# The remedies for nodes with different classes; they cost nothing where nodes are alike.
REMEDY: dict[str, Value] = {"label-skew": "calibrate", "proximal": 0.1}
# Groups can only stay together with one hidden layer.
ROTATING: dict[str, Value] = {"dealing": "rotating", "hidden-layers": 1}
ANCHORED: dict[str, Value] = {"anchor": "ridge", **REMEDY}


def coded(codec: str, **more: Value) -> dict[str, Value]:
    """The settings for slices in a codec both ways, with updates back."""
    return {"down-codec": codec, "up-codec": codec, "reply": "update", **more}


FEW_BITS: dict[str, Value] = {
    "down-codec": "int4", "up-codec": "eden1", "reply": "update", "zstd": True,
}  # fmt: skip
MEANS: dict[str, Value] = {"anchor": "means", "statistics-codec": "int4"}
LINEAR: dict[str, Value] = {
    "strategy": "fedavg", "hidden-layers": 0, "label-skew": "calibrate", "proximal": 0.01,
    "learning-rate": 0.01,
}  # fmt: skip
CHOSEN = "best"
PRESETS = ("smallest", "small", "balanced", CHOSEN)  # ours, by budget
CONFIGS = Path(__file__).resolve().parents[1] / "configs"
METHODS: dict[str, dict[str, Value]] = {
    **{name: {"strategy": "ist", **read_preset(CONFIGS / f"{name}.toml")} for name in PRESETS},
    "ist + anchor": {"strategy": "ist", **ANCHORED},
    "ist + anchor, rotating": {"strategy": "ist", **ANCHORED, **ROTATING},
    "ist + anchor, no remedy for skew": {"strategy": "ist", "anchor": "ridge"},
    "ist + inputs": {"strategy": "ist", "anchor": "inputs"},
    "ist": {"strategy": "ist"},
    "ist + remedy for skew": {"strategy": "ist", **REMEDY},
    "ist + remedy, rotating": {"strategy": "ist", **REMEDY, **ROTATING},
    "fedavg": {"strategy": "fedavg"},
    "fedavg + remedy for skew": {"strategy": "fedavg", **REMEDY},
    "fedavg + anchor": {"strategy": "fedavg", **ANCHORED},
    "fedavg, 2 hidden layers": {"strategy": "fedavg", "hidden-layers": 2},
    "linear head": {**LINEAR},
    "linear head, few bits": {**LINEAR, **FEW_BITS, "down-codec": "eden2"},
    "linear head + means, few bits": {**LINEAR, **FEW_BITS, "down-codec": "eden2", **MEANS},
    "512 random features, few bits": {
        **LINEAR,
        **FEW_BITS,
        "random-features": 512,
        "learning-rate": 0.004,
    },
    "fedavg, narrow": {"strategy": "fedavg"},
    "fedavg, narrow, few bits": {"strategy": "fedavg", **FEW_BITS, "learning-rate": 0.004},
    "fedavg, narrow + anchor": {"strategy": "fedavg", **ANCHORED},
    "fedprox": {"strategy": "fedavg", "proximal": 0.1},
    "fedavgm": {"strategy": "fedavgm", "server-momentum": 0.5},
    "fedadam": {"strategy": "fedadam"},
    "feddropout": {"strategy": "feddropout"},
    "heterofl": {"strategy": "heterofl", **MIXED},
    "fjord": {"strategy": "fjord", **MIXED},
    "fedrolex": {"strategy": "fedrolex", **MIXED},
    "top-k": {"strategy": "topk"},
    "quantised": {"strategy": "fedavg", "up-codec": "int8", "reply": "update"},
    "fedncm": {"strategy": "fedncm"},
    "fedcof": {"strategy": "fedcof"},
    "fed3r, int8": {"strategy": "fed3r", "statistics-codec": "int8", "zstd": True},
    "fed3r, 2 MB, int8": {
        "strategy": "fed3r",
        "statistics-codec": "int8",
        "anchor-bytes": 500_000,
        "zstd": True,
    },
    "fed3r": {"strategy": "fed3r"},
    "fed3r, 2 MB": {"strategy": "fed3r", "anchor-bytes": 2_000_000},
    "fed3r, 8 MB": {"strategy": "fed3r", "anchor-bytes": 8_000_000},
    "fedpft": {"strategy": "fedpft"},
}
METHODS |= {
    strategy: {"strategy": strategy}
    for strategy in STRATEGIES
    if strategy not in {changes["strategy"] for changes in METHODS.values()}
}
VARIANTS = [
    name
    for name, changes in METHODS.items()
    if name in PRESETS or changes["strategy"] == "ist" or changes.get("anchor", "none") != "none"
]
NARROW = (
    "fedavg, narrow",
    "fedavg, narrow, few bits",
    "fedavg, narrow + anchor",
)  # as many neurons as a slice of IST
PARTITIONS: dict[str, dict[str, Value]] = {
    "iid": {"partitioner": "iid"},
    "dirichlet(0.3)": {"partitioner": "dirichlet", "partition-alpha": 0.3},
}
GROUPS = 8  # at most; fewer where there are fewer clients


@dataclass(frozen=True)
class Comparison:
    """What `fed-ist compare` is asked for.

    overrides: run-config keys of all runs. methods: their names; empty for all. limit: images of
    each split; 0 for all. out: the folder for runs and report.
    """

    overrides: dict[str, Value]
    clients: list[int]
    partitions: list[str]
    methods: list[str]
    n_seeds: int
    limit: int
    out: str
    n_workers: int


def list_cases(request: Comparison, base: Mapping[str, Value], dataset: str) -> list[Case]:
    """Every method in every setting with every seed."""
    cases = []
    for seed in range(request.n_seeds):
        for partition in request.partitions:
            for clients in request.clients:
                for method in request.methods or METHODS:
                    changes = dict(METHODS[method])
                    if method in PRESETS:
                        changes = {k: v for k, v in changes.items() if k not in request.overrides}
                    if changes["strategy"] in GROUPED:
                        changes["groups"] = min(GROUPS, clients)
                    if method in NARROW:
                        width = int(str(base["hidden-dim"]))
                        changes["hidden-dim"] = max(1, width // min(GROUPS, clients))
                    common: dict[str, Value] = {"seed": seed, "min-nodes": 1}
                    config = configure(base, PARTITIONS[partition], changes, common)
                    cases.append(Case(dataset, partition, clients, method, config))
    return cases


def compare(request: Comparison, app: Path) -> list[str]:
    """Run what is missing and write the report; returns sentences on what could not be run."""
    for method in request.methods:
        if method not in METHODS:
            raise InputError(
                f"Unknown method '{method}'. Choose from, separated by ';': {'; '.join(METHODS)}."
            )
    others = [changes for name, changes in METHODS.items() if name not in PRESETS]
    own = {key for changes in others for key in changes} - {"hidden-layers"}
    for key in sorted(own | {"seed", "groups", "partitioner", "partition-alpha"}):
        if key in request.overrides:
            raise InputError(f"--set {key} is not possible here, the comparison sets it itself.")
    for partition in request.partitions:
        require_choice("partition", partition, PARTITIONS)
    base = read_defaults(app / "pyproject.toml") | USUAL | request.overrides
    config = configure(base)
    dataset = Path(config.dataset).stem.removesuffix("-train")
    cases = list_cases(request, base, dataset)
    out = Path(request.out)
    settings = config.to_mapping() | {"limit": request.limit}
    for key in ("name", "results-dir", "cache-dir"):  # where things lie changes no result
        del settings[key]
    require_same(out, settings)
    encoder = open_encoder(encoder_spec(config), cache_dir(config.cache_dir))
    images = open_shared(config, request.limit)
    print(*images.lines, sep="\n", file=sys.stderr)
    data = data_digest(images.train, images.test, encoder)
    shared = embed_shared(config, encoder, images)
    n_workers = request.n_workers or os.cpu_count() or 1
    found, failures = run_cases(cases, data, lambda _: shared, out, n_workers)
    if not found and failures:
        raise InputError(f"No run was possible. The first: {failures[0]}")
    write_comparison(settings, [curve for _, curve in found], CHOSEN, out, VARIANTS)
    return failures


def main() -> int:
    """Make the comparison; returns the exit code."""
    request = Comparison(**json.loads(sys.argv[1]))
    return answer(lambda: compare(request, Path.cwd()), Path(request.out, "compare"))


if __name__ == "__main__":
    sys.exit(main())
