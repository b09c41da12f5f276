"""Ray for one simulation, which begins before Flower asks for it and ends with its standard input.

By itself Flower starts Ray only once a run's processes have loaded, one after the other, and a
run's user waits for the sum.
"""

import sys

import ray


def main() -> None:
    """Hold a Ray of this machine alone; its port is the environment's RAY_GCS_SERVER_PORT."""
    # By this address the simulation is told of it, which has to be the node's own.
    ray.init(include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
    sys.stdin.read()


if __name__ == "__main__":
    main()
