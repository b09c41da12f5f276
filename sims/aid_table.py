"""The README's table: AID at three mask ratios, IST against FedAvg on the same embeddings.

`python -m sims.aid_table FOLDER`, where FOLDER holds aid-train.parquet and aid-test.parquet. Runs
that are done are not repeated; the table goes to results/aid-table.md.
"""

import subprocess
import sys
from pathlib import Path

from tqdm import tqdm

from fed_ist.durable import write_atomic
from fed_ist.environment import own_environment
from fed_ist.run_files import open_run
from fed_ist.run_table import render_table

PRESETS = ("aid-mask00-w4", "aid-mask50-w4", "aid-mask75-w4")
NODES = 4


def main() -> int:
    data = Path(sys.argv[1]).resolve()
    root = Path(__file__).resolve().parent.parent
    results = root / "results"
    cases = [(preset, strategy) for preset in PRESETS for strategy in ("ist", "fedavg")]
    done = []
    for preset, strategy in tqdm(cases, desc="AID runs"):
        name = f"{preset}-{strategy}"
        done.append(name)
        if open_run(results / name).is_finished:
            continue
        settings = [
            f"dataset={data / 'aid-train.parquet'}",
            f"test-dataset={data / 'aid-test.parquet'}",
            f"strategy={strategy}",
        ]
        command = ["fed-ist", "run", "--app", str(root), "--nodes", str(NODES)]
        command += ["--preset", preset, "--name", name]
        command += [part for setting in settings for part in ("--set", setting)]
        code = subprocess.run(command, env=own_environment(), check=False).returncode
        if code != 0:
            return code
    table = render_table([open_run(results / name) for name in done])
    write_atomic(results / "aid-table.md", (table + "\n").encode())
    print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
