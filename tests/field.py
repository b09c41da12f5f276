"""Four hosts, each with a folder of other classes, and the same images as a table."""

import csv
import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conftest import ROOT
from datasets import ClassLabel, Dataset, Features, Value
from datasets import Image as ImageColumn
from PIL import Image

from fed_ist.datasets.scenes import draw_scene
from fed_ist.rng import generator
from sims.wires.hosts import Hosts, start_run
from sims.wires.namespaces import Wires

CLASSES = ("forest", "beach", "farmland", "car-park")  # in the server's order
UNKNOWN = "river"
# The classes of each node's folder, and how many images of each.
MIXES = (
    {"beach": 12},
    {"car-park": 6, "forest": 6},
    {"farmland": 5, UNKNOWN: 4, "forest": 5},
    {"beach": 4, "car-park": 4, "farmland": 4, "forest": 4},
)
N_TEST = 10  # images of each class
WAIT_S = 600.0  # for anything that is to happen: the machine may be busy


@dataclass(frozen=True)
class Field:
    """folder: each node's images in `node<i>`; all of them that are of known classes in
    `train.parquet`, with a column `node`; the server's test images in `test`.
    """

    wires: Wires
    hosts: Hosts
    folder: Path

    def settings(self, **changes: object) -> dict[str, object]:
        """What runs there have in common, simulated ones too."""
        return {
            "dataset": str(self.folder / "train.parquet"),
            "test-dataset": str(self.folder / "test"),
            "partitioner": "column",
            "partition-column": "node",
            "results-dir": str(self.folder / "results"),
            "hidden-dim": 64,
            "batch-size": 8,
            "local-epochs": 3000,  # a second or so, in which something can happen to a node
        } | {key.replace("_", "-"): value for key, value in changes.items()}

    def start(self, name: str, **changes: object):
        return start_run(self.wires, self.hosts, ROOT, name, self.settings(**changes))


def draw_field(folder: Path) -> None:
    """Write the images of `Field`."""
    rows = {"image": [], "label": [], "node": []}
    for node, mix in enumerate(MIXES):
        for name in sorted(mix):
            for i in range(mix[name]):
                data = _draw(folder / f"node{node}" / name, name, node, i)
                if name != UNKNOWN:
                    rows["image"].append({"bytes": data, "path": None})
                    rows["label"].append(CLASSES.index(name))
                    rows["node"].append(str(node))
    for name in CLASSES:
        for i in range(N_TEST):
            _draw(folder / "test" / name, name, len(MIXES), i)
    features = Features(
        {"image": ImageColumn(), "label": ClassLabel(names=list(CLASSES)), "node": Value("string")}
    )
    Dataset.from_dict(rows, features=features).to_parquet(folder / "train.parquet")


def _draw(folder: Path, name: str, node: int, i: int) -> bytes:
    """Write one image, of which no two are alike; returns the file's bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    out = io.BytesIO()
    Image.fromarray(draw_scene(name, generator(7, name, node, i))).save(out, "PNG")
    (folder / f"{i:02}.png").write_bytes(out.getvalue())
    return out.getvalue()


def until(find: Callable[[], Any], what: str) -> Any:
    """What is found, once something is; fails after `WAIT_S`."""
    deadline = time.monotonic() + WAIT_S
    while not (found := find()):
        assert time.monotonic() < deadline, f"it did not happen: {what}"
        time.sleep(0.05)
    return found


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))
