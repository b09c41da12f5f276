"""What a deployment is sent of the app."""

import io
import subprocess
import sys
import tomllib
import zipfile

from conftest import ROOT
from flwr.cli.build import build_fab_from_disk
from flwr.common.config import validate_config
from rooms import modules

from fed_ist.config.toml import read_defaults
from fed_ist.launch.bundle import slim_app


def test_a_device_is_sent_little_and_no_code():
    with slim_app(ROOT) as folder:
        bundle = build_fab_from_disk(folder)
    assert len(bundle) < 4000
    with zipfile.ZipFile(io.BytesIO(bundle)) as files:
        names = {name for name in files.namelist() if not name.startswith(".info")}
    assert names == {"pyproject.toml", "fed_ist_node.py", "fed_ist_server.py"}


def test_the_whole_app_is_all_modules_links_and_presets():
    """What `flwr run .` hands to each node, without a wheel."""
    with zipfile.ZipFile(io.BytesIO(build_fab_from_disk(ROOT))) as files:
        names = set(files.namelist())
    # Relays are processes of their own, which no run starts.
    needed = [path for name, path in modules().items() if name.split(".")[1:2] != ["relay"]]
    needed.append(ROOT / "fed_ist/traffic/links.toml")
    needed += (ROOT / "sims" / "configs").glob("*.toml")
    assert not {path.relative_to(ROOT).as_posix() for path in needed} - names


def test_flower_takes_it_for_the_app_with_the_same_keys():
    with slim_app(ROOT) as folder:
        settings = tomllib.loads((folder / "pyproject.toml").read_text())
        is_valid, errors, _ = validate_config(settings, check_module=True, project_dir=folder)
        assert read_defaults(folder / "pyproject.toml") == read_defaults(ROOT / "pyproject.toml")
    assert is_valid, errors
    assert settings["project"]["name"] == "fed-ist"


def test_its_modules_give_the_installed_apps():
    with slim_app(ROOT) as folder:
        code = "import fed_ist_node as n, clients.app as c; assert n.app is c.app; print('same')"
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
        )
    assert done.stdout == "same\n", done.stderr
