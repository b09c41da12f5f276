"""`fed-ist run --engine inline`: a run within one process, without Flower's simulation and Ray.

Strategies, ClientApp, messages and files are the same as in a run on Flower. The `fed-ist` command
calls this module with its options as one JSON object.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from clients.app import app as client_app
from fed_ist.config.toml import Value, read_defaults
from sims.local_grid import LocalGrid
from sims.server_app import conduct


@dataclass(frozen=True)
class InlineRun:
    """What is to be run. overrides: of the app's run config. n_nodes: how many to simulate."""

    overrides: dict[str, Value]
    n_nodes: int


def main() -> int:
    """Make the run; returns its exit code."""
    request = InlineRun(**json.loads(sys.argv[1]))
    node_ids = range(1, request.n_nodes + 1)
    settings = read_defaults(Path("pyproject.toml")) | request.overrides
    try:
        conduct(
            settings,
            lambda config: LocalGrid(client_app, config, node_ids),
            is_simulated=True,
        )
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
