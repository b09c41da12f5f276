"""What a device gets with the wheel."""

import shutil
import subprocess
import sys
import zipfile

import pytest
import setuptools
from conftest import ROOT

FILES = ["fed_ist/links.toml", "clients/app.py", "strategies/ist.py", "sims/server_app.py"]


def test_a_wheel_brings_encoder_links_and_presets(tmp_path):
    """A device has no checkout; built without a network, from what is installed here."""
    if int(setuptools.__version__.split(".")[0]) < 77:
        pytest.skip("needs setuptools 77 or newer")
    for name in ("fed_ist", "strategies", "clients", "sims"):  # it writes beside the sources
        shutil.copytree(ROOT / name, tmp_path / "app" / name)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / "app")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    command += ["--no-index", "-w", tmp_path, tmp_path / "app"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        weights = "fed_ist/weights/vit_mae_patch8_64.aid.safetensors"
        assert archive.read(weights) == (ROOT / weights).read_bytes()
    presets = [f"sims/configs/{path.name}" for path in (ROOT / "sims/configs").glob("*.toml")]
    assert not {*FILES, *presets} - names
    assert not [name for name in names if name.startswith("tests/")]
