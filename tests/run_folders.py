"""Run folders written by hand, with numbers that are easy to add."""

from pathlib import Path

from fed_ist.config import RunConfig
from fed_ist.ledger import Ledger, Transfer
from fed_ist.results import Round, RunFolder

ROUNDS = (
    Round(0, 0.1, 2.3, 20, 40, 9.0, 0, 0, 0, 600, 800),
    Round(1, 0.6, 1.1, 2200, 2000, 0.5, 2, 2, 0, 3400, 3200),
    Round(2, 0.55, 1.25, 2200, 2000, 0.7, 2, 2, 1, 3400, 3200),
)


def make_run(
    parent: Path, name: str, config: RunConfig, n_rows: int = 3, with_summary: bool = False
) -> Path:
    """A run of two nodes, 0 and 1, as it is after so many rows of rounds.csv, in a new folder."""
    folder = RunFolder(parent, name)
    ledger = Ledger(folder.path / "ledger.csv")
    folder.write_config(config, 2)
    for row in ROUNDS[:n_rows]:
        for node in ("0", "1"):
            if row.round == 0:
                ledger.add(Transfer(0, node, "down", "prepare", 0, 10, 3, 200, 300))
                ledger.add(Transfer(0, node, "up", "prepare", 0, 20, 3, 100, 100))
            else:
                ledger.add(Transfer(row.round, node, "down", "train", 1000, 1100, 3, 1500, 400))
                ledger.add(Transfer(row.round, node, "up", "train", 800, 1000, 3, 200, 1200))
        folder.add_round(row)
    ledger.close()
    if with_summary:
        figures = {
            "clients": 2, "images": 200, "groups": 2 if config.strategy == "ist" else 1,
            "embed_dim": 192, "num_classes": 10, "image_bytes_original": 7000.0,
            "image_bytes_packed": 6000.0,
        }  # fmt: skip
        folder.write_summary(figures)
    return folder.path
