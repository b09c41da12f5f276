"""Run folders written by hand, with numbers that are easy to add."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from fed_ist.classifier.layout import init_params
from fed_ist.config.run_config import RunConfig
from fed_ist.runs.checkpoint import Checkpoint, State, remove_checkpoint, write_checkpoint
from fed_ist.runs.confusion import Confusion
from fed_ist.runs.folder import Model, Round, RunFolder
from fed_ist.traffic.ledger import Ledger, Transfer

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


IMAGES = {
    "images": {"train": 30, "test": 10}, "num_classes": 2, "kind": "a folder of images",
    "counts": {"beach": {"train": 20, "test": 5}, "forest": {"train": 10, "test": 5}},
    "is_held_out": True, "formats": {"JPEG, 64 px": 40}, "sizes": {"smallest": [64, 64]},
    "left_out": {"no image": 1}, "identical": {}, "examples": {"no image": "a.txt"},
    "notes": ["One note."],
}  # fmt: skip
CONFUSION = (
    *(("beach", "beach", 4), ("beach", "forest", 1)),
    *(("forest", "forest", 3), ("forest", "beach", 2)),
)
FIGURES = {
    "clients": 2, "images": 200, "groups": 2, "embed_dim": 192, "num_classes": 2, "asked": 4,
    "answered": 4, "accuracy": 0.55, "best_accuracy": 0.6,
    "payload_bytes_down": 4000, "payload_bytes_up": 3200, "bytes_down": 4420, "bytes_up": 4040,
    "image_bytes_original": 7000.0, "image_bytes_packed": 6000.0, "ended_early": "",
}  # fmt: skip


def make_whole_run(parent: Path, name: str, config: RunConfig, n_rows: int, seed: int = 0) -> Path:
    """A run with all that a server writes, sealed after each round: cut, or done with 3 rows."""
    rng = np.random.default_rng(seed)
    folder = RunFolder(parent, name)
    folder.write_images(IMAGES)
    ledger = Ledger(folder.path / "ledger.csv")
    folder.write_config(config, 2)
    for row in ROUNDS[:n_rows]:
        row = replace(row, loss=row.loss + seed)
        for node in ("0", "1"):
            kind = "train" if row.round else "prepare"
            ledger.add(Transfer(row.round, node, "down", kind, 100 + seed, 110 + seed, 3, 150, 40))
            ledger.add(Transfer(row.round, node, "up", kind, 80, 100, 3, 20, 120))
        folder.add_round(row)
        params = init_params(192, 8, 2, rng, 1)
        folder.write_model(
            Model(params, ("beach", "forest"), "e", "random", "d", "cls", "fixed", 0.5, seed)
        )
        state = "finished" if row.round == ROUNDS[-1].round else "running"
        folder.write_summary(FIGURES | {"state": state, "rounds": row.round, "loss": row.loss})
        seals = folder.seal(ledger.seal)
        state = State({"sums": rng.random(5)}, {"round": row.round})
        write_checkpoint(folder.path, Checkpoint(row.round, params, state, seals))
    if n_rows == len(ROUNDS):
        confusion = Confusion()
        for truth, found, n_images in CONFUSION:
            confusion.add(truth, found, n_images)
        folder.write_confusion(confusion)
        folder.finish(ledger.seal)
        (folder.path / "accuracy.png").touch()
        remove_checkpoint(folder.path)
    ledger.close()
    return folder.path
