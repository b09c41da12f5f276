"""fed-ist as a device or a user without a checkout has it: a wheel in an environment of its own."""

import os
import shutil
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

from conftest import ROOT

PROGRAM = "#!{python}\nimport sys\nfrom {module} import {name}\nsys.exit({name}())\n"


def build_wheel(folder: Path) -> Path:
    """The wheel of this checkout; built without a network, from what is installed here."""
    for name in ("fed_ist", "strategies", "clients", "sims"):  # it writes beside the sources
        shutil.copytree(ROOT / name, folder / "app" / name)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "app")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    command += ["--no-index", "-w", str(folder), str(folder / "app")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    return wheel


def install(wheel: Path, folder: Path) -> Path:
    """A virtual environment with the wheel and all else that is here; its folder of programs.

    fed-ist itself, which is here as well, is left out, and Flower's programs are its own.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    command = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "install"]
    subprocess.run([*command, "--no-deps", "--no-index", "--quiet", str(wheel)], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    for place in (Path(entry) for entry in sys.path if entry.endswith("site-packages")):
        for path in place.iterdir():
            is_ours = path.name.lower().startswith(("fed_ist", "__editable__", "__pycache__"))
            if not is_ours and path.suffix != ".pth" and not (packages / path.name).exists():
                (packages / path.name).symlink_to(path)
    for program in distribution("flwr").entry_points.select(group="console_scripts"):
        path = folder / "bin" / program.name
        python = folder / "bin" / "python"
        path.write_text(PROGRAM.format(python=python, module=program.module, name=program.attr))
        path.chmod(0o755)
    return folder / "bin"


def fed_ist(programs: Path, place: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """The installed command, in a folder; its environment names nothing of this checkout."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [str(programs / "fed-ist"), *map(str, words)]
    return subprocess.run(
        command, cwd=place, env=environment, capture_output=True, text=True, check=False
    )
