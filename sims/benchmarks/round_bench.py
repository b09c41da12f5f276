"""`fed-ist bench round`: what a round costs by number of nodes, and the least that it can cost.

For each number of nodes, a run on Flower's simulation measures rounds of IST, empty rounds and
rounds of Flower's own FedAvg and, in the same process, the same rounds without Flower. The
`fed-ist` command calls this module with its options as one JSON object.
"""

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fed_ist.config.toml import Value
from fed_ist.errors import InputError
from fed_ist.launch.bundle import slim_app
from fed_ist.launch.simulation import simulate
from fed_ist.words import table
from sims.benchmarks.cases import measure_cases
from sims.benchmarks.round_data import write_examples
from sims.benchmarks.round_steps import STEPS

TIMEOUT_S = 3600.0
COMPONENTS = {
    "round_server": "sims.benchmarks.round_app:app",
    "round_node": "sims.benchmarks.round_app:node",
}


@dataclass(frozen=True)
class RoundBench:
    """What `fed-ist bench round` is asked for.

    n_nodes: of each run. n_rounds: how many are measured. images: of each node. out: the folder for
    round.json and history.jsonl, which gets a line from each benchmark.
    """

    n_nodes: list[int]
    n_rounds: int
    images: int
    hidden_dim: int
    hidden_layers: int
    local_steps: int
    out: str


def measure(request: RoundBench) -> Iterator[dict[str, Any]]:
    """The figures of each number of nodes: `nodes`, `cores`, `seconds`, `ratios`.

    Raises `InputError` where a run fails.
    """
    for n_nodes in request.n_nodes:
        with (
            tempfile.TemporaryDirectory(prefix="fed-ist-round-data-") as name,
            slim_app(Path.cwd(), COMPONENTS) as app,
        ):
            folder = Path(name)
            write_examples(folder, n_nodes * request.images)
            settings: dict[str, Value] = {
                "dataset": name,
                "results-dir": name,
                "name": "round.json",
                "hidden-dim": request.hidden_dim,
                "hidden-layers": request.hidden_layers,
                "local-steps": request.local_steps,
                "num-rounds": request.n_rounds + 1,
                "min-nodes": n_nodes,
                "round-timeout-s": TIMEOUT_S,
                "prepare-timeout-s": TIMEOUT_S,
            }
            figures = folder / "round.json"
            ended = simulate(app, settings, n_nodes, figures.exists)
            if not figures.exists():
                raise InputError(f"The run of {n_nodes} nodes failed: {ended.reason}.")
            found: dict[str, Any] = json.loads(figures.read_text(encoding="utf-8"))
            yield found | {"ratios": ratios(found["seconds"])}


def ratios(seconds: Mapping[str, Mapping[str, float]]) -> dict[str, float | None]:
    """The seconds of rounds with and without Flower over the least that they can take.

    One ratio is to FedAvg's seconds, None if these were not measured.
    """
    whole, plain = seconds["flower"]["round"], seconds["plain"]["round"]
    return {
        "flower / (plain + empty)": whole / (plain + seconds["empty"]["round"]),
        "flower / fedavg": whole / seconds["fedavg"]["round"] if "fedavg" in seconds else None,
        "inline / plain": seconds["inline"]["round"] / plain,
    }


def render(found: Sequence[Mapping[str, Any]]) -> str:
    """Two tables in Markdown: milliseconds of a round by step, and whole rounds of each way."""
    ways = ("flower", "fedavg", "empty", "inline", "plain")
    shares = list(found[0]["ratios"]) if found else []
    steps, wholes = [], []
    for case in found:
        measured = case["seconds"]
        cells = (f"{1000 * measured['flower'][key]:.0f}" for key in (*STEPS, "round"))
        steps.append((case["nodes"], *cells))
        whole = [f"{1000 * measured[w]['round']:.0f}" if w in measured else "-" for w in ways]
        ratios = [case["ratios"][share] for share in shares]
        whole += ["-" if ratio is None else f"{ratio:.2f}" for ratio in ratios]
        wholes.append((case["nodes"], *whole))
    header = ("nodes", *(f"{step} ms" for step in STEPS), "round ms")
    whole_header = ("nodes", *(f"{way} ms" for way in ways), *shares)
    return f"{table(header, steps)}\n\n{table(whole_header, wholes)}\n"


def main() -> int:
    """Measure; returns the exit code."""
    request = RoundBench(**json.loads(sys.argv[1]))
    return measure_cases("round", request, measure(request), len(request.n_nodes), render)


if __name__ == "__main__":
    sys.exit(main())
