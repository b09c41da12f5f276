"""Accuracy and bytes by codec: FedAvg, IST and IST with an anchor on AID, 8 clients."""

from collections.abc import Mapping

from fed_ist.comparisons.budgets import bytes_to_reach
from fed_ist.config.toml import Value
from fed_ist.words import readable_bytes
from sims.experiments import variant_tables as tables
from sims.experiments import variants
from sims.experiments.case_files import Case
from sims.experiments.cases import configure
from sims.experiments.compare import ANCHORED, PARTITIONS, REMEDY, ROTATING, USUAL, coded

CLIENTS, SEEDS = 8, 3
SHARE = 0.95  # the goal, as a share of FedAvg's final accuracy in fp32
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
    "eden2 up, int4 down, zstd": coded("int4", zstd=True) | {"up-codec": "eden2"},
    "eden1 up, int4 down, zstd": coded("int4", zstd=True) | {"up-codec": "eden1"},
    "int4, zstd, whole slices back": coded("int4", zstd=True) | {"reply": "slice"},
    "int4, zstd, 8 rounds": coded("int4", zstd=True) | {"num-rounds": 8},
    "int4, zstd, 4 rounds": coded("int4", zstd=True) | {"num-rounds": 4},
}


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


def fewer_times(row: tables.Row) -> str:
    """How many times fewer bytes a row took than the first one."""
    return f"{tables.mean_bytes(row.first[0]) / tables.mean_bytes(row.runs[0]):.1f}"


def goal(row: tables.Row) -> float:
    """The accuracy for which the bytes to reach it are shown."""
    return SHARE * float(tables.finals(row.first[0]).mean())


def bytes_to_goal(row: tables.Row) -> str:
    """The bytes after which a row's mean accuracy reaches the goal."""
    reached = bytes_to_reach(row.runs[0], goal(row))
    return "never" if reached is None else readable_bytes(reached)


COLUMNS: Mapping[str, tables.Show] = {
    "final accuracy": tables.final(),
    "best accuracy": tables.best,
    "bytes per client": tables.sent,
    "times fewer than FedAvg, fp32": fewer_times,
    f"bytes to {100 * SHARE:.0f}% of its accuracy": bytes_to_goal,
}
EXPERIMENT = variants.Experiment(
    title="Accuracy and bytes by codec",
    notes=(
        f"AID, {CLIENTS} clients in as many groups, {SEEDS} seeds (mean ± sample standard "
        "deviation): one hidden layer of 1024, 20 rounds of 3 local epochs unless a row says "
        "otherwise, Adam at 0.001. Bytes are down and up together, whole messages. Codecs are "
        "those of slices both ways, updates back; an anchor's statistics travel in fp16 then. zstd "
        "compresses without loss.",
    ),
    stages=variants.on_aid(USUAL, list_cases),
    tables=[
        tables.Table(
            title=partition,
            labels=("method", "codec"),
            columns=COLUMNS,
            is_shown=tables.has_first,
            rows={
                (method, codec): (tables.Key("aid", partition, CLIENTS, f"{method} | {codec}"),)
                for method in METHODS
                for codec in CODECS
            },
            note=lambda row: (
                f"{100 * SHARE:.0f}% of FedAvg's final accuracy is {100 * goal(row):.1f}%."
            ),
        )
        for partition in PARTITIONS
    ],
    same=USUAL,
)
