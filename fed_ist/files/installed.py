"""Where the files are that came with the installed distribution.

Inside a Flower run `import fed_ist` finds the app bundle's copy of the code, which holds no weights
(a bundle carries only text). The installed distribution is found through its metadata instead,
which is the same in and out of a run, for a normal and for an editable installation.
"""

import json
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution, distributions
from pathlib import Path
from urllib.parse import unquote, urlparse

from fed_ist.errors import InputError


def checkout() -> Path | None:
    """The source checkout from which fed-ist was installed with `pip install -e`, else None."""
    # A process that starts in a checkout also finds the distribution that a build left there.
    for found in distributions(name="fed-ist"):
        origin = found.read_text("direct_url.json")
        url = json.loads(origin) if origin else {}
        if url.get("dir_info", {}).get("editable"):
            return Path(unquote(urlparse(url["url"]).path))
    return None


def installed_app() -> Path:
    """The folder of the installed app's pyproject.toml: the checkout, or one from the wheel.

    Raises `InputError` where fed-ist is not installed.
    """
    return checkout() or package_file("fed_ist/app/pyproject.toml").parent


def presets(app: Path) -> Mapping[str, Path]:
    """The presets of an app: name -> file. Those of a wheel lie with its modules."""
    folder = app / "sims" / "configs"
    if not folder.is_dir():
        folder = package_file("sims/__init__.py").parent / "configs"
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def package_file(relative: str) -> Path:
    """The path of a file of the installed distribution, such as the encoder's weights.

    relative: its path below the folder that holds the packages. Raises `InputError` where the file
    is missing.
    """
    root = checkout()
    try:
        path = root / relative if root else Path(str(distribution("fed-ist").locate_file(relative)))
    except PackageNotFoundError:
        path = Path(__file__).parent.parent.parent / relative
    if not path.is_file():
        raise InputError(
            f"'{path}' is missing: fed-ist is not installed for this Python. "
            "Install it with 'pip install .' in its checkout."
        )
    return path
