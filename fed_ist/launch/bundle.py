"""The bundle that a deployment is sent of the app: its settings, and the names of its modules.

Each node fetches Flower's bundle once a run, uncompressed. With all modules it would have more
bytes than many a run sends in slices. Yet each device has the modules installed, with the encoder's
weights, so the bundle need not hold them.
"""

import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from fed_ist.config.toml import write_toml

# The bundle's two modules, the server's and the node's, and the installed app that each imports.
COMPONENTS = {"fed_ist_server": "sims.server_app:app", "fed_ist_node": "clients.app:app"}


@contextmanager
def slim_app(app: Path, components: Mapping[str, str] = COMPONENTS) -> Iterator[Path]:
    """A folder that `flwr run` takes for the app; its two modules import the installed one.

    components: names of the server's and of the node's module, each with the app that it imports,
    as MODULE:NAME.
    """
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
        tables = {
            "project": {key: project[key] for key in ("name", "version", "description", "license")},
            "tool.flwr.app": {"publisher": flower["publisher"]},
            "tool.flwr.app.components": {"serverapp": f"{server}:app", "clientapp": f"{node}:app"},
            "tool.flwr.app.config": flower["config"],
        }
        text = "\n".join(f"[{table}]\n{write_toml(values)}" for table, values in tables.items())
        (folder / "pyproject.toml").write_text(text, encoding="utf-8")
        yield folder
