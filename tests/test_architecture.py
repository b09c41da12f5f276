"""Who may import whom, and what a device must not have to load."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from conftest import ROOT

from sims.message_app import HEAVY

FORBIDDEN = {
    "fed_ist": {"flwr", "strategies", "clients", "sims"},
    "strategies": {"clients", "sims"},
    "clients": {"strategies", "sims"},
    "sims": set(),
}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


@pytest.mark.parametrize("package", FORBIDDEN)
def test_imports_go_one_way(package):
    for path in (ROOT / package).glob("*.py"):
        tops = {name.split(".")[0] for name in imports(path)}
        assert not tops & FORBIDDEN[package], path


def test_few_modules_touch_timm():
    users = {
        p.name
        for p in (ROOT / "fed_ist").glob("*.py")
        if any(n.startswith("timm") for n in imports(p))
    }
    assert users == {
        *("backbone.py", "encoder.py", "encoder_build.py", "mae.py", "timm_weights.py"),
    }


def test_every_package_is_in_the_wheel():
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"][
        "packages"
    ]
    assert set(packages) == set(FORBIDDEN) | {"fed_ist.config"}


def loaded_by(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_a_training_round_loads_no_torch_and_no_vision_library():
    """Each of which takes longer to load than a round of training takes."""
    loaded = loaded_by(
        "import clients.app\n"
        "import numpy as np\n"
        "from fed_ist.heads import init_params\n"
        "from fed_ist.training import LocalTraining, train\n"
        "rng = np.random.default_rng(0)\n"
        "params = init_params(3, 4, 2, rng, 1, 'batch')\n"
        "examples = np.eye(3, dtype=np.float32), np.array([0, 1, 1])\n"
        "train(params, lambda _: examples, LocalTraining(1, 0, 2, 'adam', 0.1), 1.0, rng)"
    )
    assert not loaded & set(HEAVY)


def test_help_loads_nothing_heavy():
    loaded = loaded_by("import fed_ist.cli")
    assert not loaded & {"torch", "timm", "flwr", "datasets", "pyarrow", "matplotlib", "numpy"}
