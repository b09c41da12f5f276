"""What tests share: small data on disk and a small random encoder."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from PIL import Image

from fed_ist.config.parsing import parse_config
from fed_ist.config.run_config import RunConfig
from fed_ist.config.toml import Value, read_defaults
from fed_ist.datasets.scenes import SCENES, draw_scene
from fed_ist.rng import generator

ROOT = Path(__file__).parent.parent
SHARED_DATA = ROOT.parent / "shared" / "data"

HANG_S = 600.0  # what takes longer has hung: a busy machine may take minutes for seconds' work

# How long an example takes tells how busy the machine is, and nothing of the law.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


@pytest.fixture
def make_config(tmp_path: Path) -> Callable[..., RunConfig]:
    """A valid configuration with some keys changed, writing below `tmp_path`."""

    def make(**changes: Value) -> RunConfig:
        values = read_defaults(ROOT / "pyproject.toml")
        values |= {"results-dir": str(tmp_path / "results"), "cache-dir": str(tmp_path / "cache")}
        return parse_config(values | {key.replace("_", "-"): v for key, v in changes.items()})

    return make


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """48 images of four scene classes as root/<class>/<n>.jpg."""
    root = tmp_path_factory.mktemp("images")
    for name in list(SCENES)[:4]:
        (root / name).mkdir()
        for i in range(12):
            pixels = draw_scene(name, generator(1, name, i))
            Image.fromarray(pixels).save(root / name / f"{i:02}.jpg", quality=90)
    drawn = sorted(root.rglob("*"))
    yield root
    assert sorted(root.rglob("*")) == drawn, "a test changed the folder that all tests share"


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A cache that tests share, so that the small image folder is encoded once."""
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def quiet_flower() -> Iterator[None]:
    """Flower's log without what is no error, and as it was after the test."""
    from flwr.common.logger import FLOWER_LOGGER

    level = FLOWER_LOGGER.level
    FLOWER_LOGGER.setLevel("ERROR")
    yield
    FLOWER_LOGGER.setLevel(level)


@pytest.fixture
def federate(make_config, image_folder, tmp_path):
    """Makes a `federation.Federation` on the small image folder."""
    from federation import CLASSES, NODES, Federation  # Flower takes a second to load

    def make(node_ids=NODES, classes=CLASSES, node_config=None, **changes):
        settings = {
            "dataset": str(image_folder),
            "encoder_weights": "random",
            "hidden_dim": 24,
            "hidden_layers": 2,
            "local_epochs": 1,
            "batch_size": 8,
        }
        config = make_config(**(settings | changes))
        return Federation(config, tmp_path, classes, node_ids, node_config)

    return make


@pytest.fixture
def images() -> np.ndarray:
    """Random pixels: uint8 (5, 64, 64, 3)."""
    return np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
