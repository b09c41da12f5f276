"""What a deployment is sent of the app: its settings, and a word on where the code is.

A node fetches Flower's bundle of the app once a run, uncompressed. With all modules that is more
than many a run sends in slices; yet each device has them installed, with the encoder's weights.
"""

import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from fed_ist.config.toml import write_toml

# Modules of the bundle, of the server and of nodes -> where their app is.
COMPONENTS = {"fed_ist_server": "sims.server_app:app", "fed_ist_node": "clients.app:app"}


@contextmanager
def slim_app(app: Path, components: Mapping[str, str] = COMPONENTS) -> Iterator[Path]:
    """A folder that `flwr run` takes for the app; its two modules import the installed one."""
    with (app / "pyproject.toml").open("rb") as file:
        settings = tomllib.load(file)
    project, flower = settings["project"], settings["tool"]["flwr"]["app"]
    server, node = components
    with tempfile.TemporaryDirectory(prefix="fed-ist-bundle-") as name:
        folder = Path(name)
        for module, place in components.items():
            source, name = place.split(":")
            # Flower looks for the assignment in the text.
            text = f"import {source}\n\napp = {source}.{name}\n"
            (folder / f"{module}.py").write_text(text, encoding="utf-8")
        parts = {
            "project": {key: project[key] for key in ("name", "version", "description", "license")},
            "tool.flwr.app": {"publisher": flower["publisher"]},
            "tool.flwr.app.components": {"serverapp": f"{server}:app", "clientapp": f"{node}:app"},
            "tool.flwr.app.config": flower["config"],
        }
        text = "\n".join(f"[{table}]\n{write_toml(values)}" for table, values in parts.items())
        (folder / "pyproject.toml").write_text(text, encoding="utf-8")
        yield folder
