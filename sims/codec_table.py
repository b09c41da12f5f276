"""Accuracy and bytes by codec: FedAvg, IST and IST with an anchor on AID, 8 clients.

`python -m sims.codec_table FOLDER`, where FOLDER holds aid-train.parquet and aid-test.parquet. Runs
that are done are not repeated; the table goes to results/codecs/codecs.md.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fed_ist.budgets import bytes_to_reach, show_accuracy
from fed_ist.config import Value
from fed_ist.curves import Curve
from fed_ist.words import readable_bytes, table_line
from sims.case_files import Case
from sims.cases import configure
from sims.compare import ANCHORED, PARTITIONS, REMEDY, ROTATING, coded
from sims.variants import run_variants

CLIENTS, SEEDS = 8, 3
SHARE = 0.95  # of FedAvg's final accuracy in fp32
FEDAVG, IST, ANCHOR = "FedAvg", "IST", "IST with an anchor"
METHODS: dict[str, dict[str, Value]] = {
    FEDAVG: {"strategy": "fedavg"},
    IST: {"strategy": "ist", "groups": CLIENTS, **REMEDY, **ROTATING},
    ANCHOR: {"strategy": "ist", "groups": CLIENTS, **ANCHORED, **ROTATING},
}
EXACT = "fp32"


CODECS: dict[str, dict[str, Value]] = {
    EXACT: {},
    "fp32, zstd": {"zstd": True},
    "fp16": coded("fp16"),
    "bf16": coded("bf16"),
    "bf16, zstd": coded("bf16", zstd=True),
    "int8": coded("int8"),
    "int8 up, fp32 down": coded("int8") | {"down-codec": "fp32"},
    "int4": coded("int4"),
    "int4, zstd": coded("int4", zstd=True),
    "int4, zstd, whole slices back": coded("int4", zstd=True) | {"reply": "slice"},
    "int4, zstd, 8 rounds": coded("int4", zstd=True) | {"num-rounds": 8},
    "int4, zstd, 4 rounds": coded("int4", zstd=True) | {"num-rounds": 4},
}
HEADER = (
    "method",
    "codec",
    "final accuracy",
    "best accuracy",
    "bytes per client",
    "times fewer than FedAvg, fp32",
    f"bytes to {100 * SHARE:.0f}% of its accuracy",
)


def list_cases(base: Mapping[str, Value]) -> list[Case]:
    """Every method in every codec, in both partitions, with every seed."""
    cases = []
    for seed in range(SEEDS):
        for partition, parted in PARTITIONS.items():
            for method, how in METHODS.items():
                for codec, changes in CODECS.items():
                    sums: dict[str, Value] = {}
                    if method == ANCHOR and codec.split(",")[0] != EXACT:
                        sums = {"statistics-codec": "fp16"}
                    config = configure(base, parted, how, changes, sums, {"seed": seed})
                    name = f"{method} | {codec}"
                    cases.append(Case("aid", partition, CLIENTS, name, config))
    return cases


def render(curves: Sequence[Curve]) -> str:
    """Markdown: a table for each partition."""
    lines = [
        "# Accuracy and bytes by codec",
        "",
        f"AID, {CLIENTS} clients in as many groups, {SEEDS} seeds (mean ± sample standard "
        "deviation): one hidden layer of 1024, 20 rounds of 3 local epochs unless a row says "
        "otherwise, Adam at 0.001. Bytes are down and up together, whole messages. Codecs are "
        "those of slices both ways, updates back; an anchor's statistics travel in fp16 then. zstd "
        "compresses without loss.",
        "",
    ]
    for partition in PARTITIONS:
        runs = {
            (method, codec): [
                c for c in curves if (c.partition, c.method) == (partition, f"{method} | {codec}")
            ]
            for method in METHODS
            for codec in CODECS
        }
        exact = runs[FEDAVG, EXACT]
        fedavg_bytes = float(np.mean([curve.bytes[-1] for curve in exact]))
        goal = SHARE * float(np.mean([curve.accuracy[-1] for curve in exact]))
        lines += [f"## {partition}", "", table_line(HEADER), table_line(("---",) * len(HEADER))]
        for (method, codec), found in runs.items():
            if not found:
                continue
            n_bytes = float(np.mean([curve.bytes[-1] for curve in found]))
            reached = bytes_to_reach(found, goal)
            cells = (
                method,
                codec,
                show_accuracy(np.array([curve.accuracy[-1] for curve in found])),
                show_accuracy(np.array([max(curve.accuracy) for curve in found])),
                readable_bytes(n_bytes),
                f"{fedavg_bytes / n_bytes:.1f}",
                "never" if reached is None else readable_bytes(reached),
            )
            lines.append(table_line(cells))
        lines += ["", f"{100 * SHARE:.0f}% of FedAvg's final accuracy is {100 * goal:.1f}%.", ""]
    return "\n".join(lines)


def main() -> int:
    return run_variants(Path(sys.argv[1]).resolve(), "codecs", {}, list_cases, render)


if __name__ == "__main__":
    sys.exit(main())
