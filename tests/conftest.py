"""What tests share: small data on disk and a small random encoder."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fed_ist.config import RunConfig, Value, parse_config, read_defaults
from fed_ist.rng import generator
from fed_ist.scenes import SCENES, draw_scene

ROOT = Path(__file__).parent.parent
SHARED_DATA = ROOT.parent / "shared" / "data"


@pytest.fixture
def make_config(tmp_path: Path) -> Callable[..., RunConfig]:
    """A valid configuration with some keys changed, writing below `tmp_path`."""

    def make(**changes: Value) -> RunConfig:
        values = read_defaults(ROOT / "pyproject.toml")
        values |= {"results-dir": str(tmp_path / "results"), "cache-dir": str(tmp_path / "cache")}
        return parse_config(values | {key.replace("_", "-"): v for key, v in changes.items()})

    return make


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 images of four scene classes as root/<class>/<n>.jpg."""
    root = tmp_path_factory.mktemp("images")
    for name in list(SCENES)[:4]:
        (root / name).mkdir()
        for i in range(12):
            pixels = draw_scene(name, generator(1, name, i))
            Image.fromarray(pixels).save(root / name / f"{i:02}.jpg", quality=90)
    return root


@pytest.fixture
def images() -> np.ndarray:
    """Random pixels: uint8 (5, 64, 64, 3)."""
    return np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)


@pytest.fixture
def federate(make_config, image_folder, tmp_path):
    """Makes a `Federation` of nodes that share the images of a folder."""
    from federation import CLASSES, NODES, Federation  # only here, as Flower takes long to load

    def make(node_ids=NODES, classes=CLASSES, node_config=None, **changes):
        settings = {
            "dataset": str(image_folder),
            "encoder_weights": "random",
            "hidden_dim": 24,
            "local_epochs": 1,
            "batch_size": 8,
        }
        config = make_config(**(settings | changes))
        return Federation(config, tmp_path, classes, node_ids, node_config)

    return make
