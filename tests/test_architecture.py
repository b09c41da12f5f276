"""Who may import whom, and what a device must not have to load."""

import subprocess
import sys
import tomllib

import pytest
from conftest import ROOT
from rooms import ORDER, PACKAGES, arrows_up, circle, graph, modules, render
from setuptools import find_packages

from sims.benchmarks.message_app import HEAVY

# Foreign packages that are loaded by few modules, as they are heavy or belong to the other side.
USERS = {
    "timm": {
        "fed_ist.encoder.backbone",
        "fed_ist.encoder.frozen",
        "fed_ist.encoder.build",
        "fed_ist.pretraining.mae",
        "fed_ist.encoder.timm_weights",
    },
}


@pytest.fixture(scope="module")
def found():
    return graph()


def test_every_module_is_read_and_lies_in_a_room(found):
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    assert len(found) == len(files) > 200
    packages = {name for name, path in modules().items() if path.name == "__init__.py"}
    assert packages == {room for line in ORDER for room in line}
    assert "clients.app" in found and "fed_ist.errors" in found["clients.app"]


def test_imports_go_down_from_room_to_room(found):
    up = list(arrows_up(found))
    assert not up, "these import a room that is not above theirs in rooms.ORDER"


def test_no_import_leads_back_to_where_it_began(found):
    assert circle(found) == []


def test_the_checks_see_an_arrow_up_and_a_circle(found):
    wrong = {**found, "fed_ist.errors": frozenset({"fed_ist.cli.main"})}
    assert ("fed_ist.errors", "fed_ist.cli.main") in arrows_up(wrong)
    assert "UP: fed_ist.errors imports fed_ist.cli.main" in render(wrong)
    around = circle(wrong)
    assert {"fed_ist.errors", "fed_ist.cli.main"} <= set(around)
    assert all(b in wrong[a] for a, b in zip(around, [*around[1:], around[0]], strict=True))


def test_only_nodes_and_server_know_flower(found):
    """What a message is to Flower is for strategies, clients and simulations."""
    for module, others in found.items():
        if module.startswith("fed_ist"):
            assert not {name for name in others if name.split(".")[0] == "flwr"}, module


@pytest.mark.parametrize("package", USERS)
def test_few_modules_touch_what_is_heavy(package, found):
    users = {m for m, others in found.items() if any(o.split(".")[0] == package for o in others)}
    assert users == USERS[package]


def test_importing_a_room_loads_nothing_of_it():
    """A re-export would load torch on a node."""
    rooms = [room for line in ORDER for room in line]
    for room in rooms:
        if "." in room or room == "sims":
            path = ROOT / room.replace(".", "/") / "__init__.py"
            assert not path.read_text(encoding="utf-8"), f"{path} must be empty"


def test_every_module_is_in_the_wheel():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    chosen = settings["packages"]["find"]
    assert chosen["namespaces"] is False
    packages = find_packages(str(ROOT), include=chosen["include"])
    folders = {path.parent for path in modules().values()}
    assert {ROOT / package.replace(".", "/") for package in packages} == folders


def loaded_by(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_a_training_round_loads_no_torch_and_no_vision_library():
    """Each of which takes longer to load than a round of training takes."""
    loaded = loaded_by(
        "import clients.app\n"
        "import numpy as np\n"
        "from fed_ist.classifier.layout import init_params\n"
        "from fed_ist.training.local import LocalTraining, train\n"
        "rng = np.random.default_rng(0)\n"
        "params = init_params(3, 4, 2, rng, 1, 'batch')\n"
        "examples = np.eye(3, dtype=np.float32), np.array([0, 1, 1])\n"
        "train(params, lambda _: examples, LocalTraining(1, 0, 2, 'adam', 0.1), 1.0, rng)"
    )
    assert "numpy" in loaded
    assert not loaded & set(HEAVY)


def test_help_loads_nothing_heavy():
    loaded = loaded_by("import fed_ist.cli.main")
    assert "typer" in loaded
    assert not loaded & {"torch", "timm", "flwr", "datasets", "pyarrow", "matplotlib", "numpy"}
