"""A Ray for one simulation, which starts before Flower asks for it.

It ends with its standard input.

Flower by itself starts Ray only after a run's processes have loaded, one after the other, so that
the user waits for all of them in turn.
"""

import sys

import ray


def main() -> None:
    """Keep a Ray of this machine alone; its port is in the environment's RAY_GCS_SERVER_PORT."""
    # The simulation connects to this address, so the Ray node must have it too.
    ray.init(include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
    sys.stdin.read()


if __name__ == "__main__":
    main()
