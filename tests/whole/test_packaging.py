"""What a device gets with the wheel, and what it does in an empty folder."""

import zipfile
from pathlib import Path

import pytest
import setuptools
from conftest import ROOT
from installed import build_wheel, fed_ist, install
from rooms import modules

from fed_ist.config.toml import read_defaults
from fed_ist.encoder.spec import BUNDLED_ENCODERS

SMALL = ("hidden-dim=32", "num-rounds=1", "batch-size=8", "local-epochs=1")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    if int(setuptools.__version__.split(".")[0]) < 77:
        pytest.skip("needs setuptools 77 or newer")
    return build_wheel(tmp_path_factory.mktemp("wheel"))


def test_a_wheel_brings_all_modules_encoder_links_and_presets(wheel):
    """A device has no checkout."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        for weights in BUNDLED_ENCODERS.values():
            assert archive.read(weights) == (ROOT / weights).read_bytes()
    presets = [f"sims/configs/{path.name}" for path in (ROOT / "sims/configs").glob("*.toml")]
    assert not {"fed_ist/traffic/links.toml", *presets} - names
    sources = {path.relative_to(ROOT).as_posix() for path in modules().values()}
    assert {name for name in names if name.endswith(".py")} == sources
    assert not [name for name in names if name.startswith("tests/")]


def test_a_wheel_brings_the_settings_of_the_checkout(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extract("fed_ist/app/pyproject.toml", tmp_path)
    found = read_defaults(tmp_path / "fed_ist/app/pyproject.toml")
    assert found == read_defaults(ROOT / "pyproject.toml")


@pytest.mark.flower
def test_an_installed_wheel_trains_reports_and_predicts_in_an_empty_folder(
    wheel, image_folder, embedded, tmp_path
):
    programs, place = install(wheel, tmp_path / "env"), tmp_path / "empty"
    place.mkdir()
    settings = [f"--set={setting}" for setting in (*SMALL, f"cache-dir={embedded}")]
    images = f"--set=dataset={image_folder}"

    def do(*words: object) -> str:
        done = fed_ist(programs, place, *words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    told = do("run", "--nodes", 2, "--name", "mine", images, *settings)
    assert f"results     {place / 'results' / 'mine'}" in told
    do(
        "run",
        "--nodes=2",
        "--name=other",
        "--engine=inline",
        "--preset=anchored",
        images,
        *settings,
    )
    do("report", "mine", "other", "--out", "both")
    assert len(do("table", "mine", "other").splitlines()) == 3
    assert len(do("predict", "mine", image_folder / "forest").splitlines()) == 12
    compared = ["--clients=2", "--partition=iid", "--seeds=1", "--methods=fedncm", "--workers=1"]
    do("compare", image_folder, "--out=compared", *compared, *settings[1:3], settings[-1])
    assert sorted(path.name for path in place.iterdir()) == ["both", "compared", "results"]
