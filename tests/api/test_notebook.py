"""The notebook of the documents runs from its first cell to its last."""

import json
import os
import subprocess
import sys

from conftest import HANG_S, ROOT

NOTEBOOK = ROOT / "docs" / "examples" / "first_look.ipynb"


def test_the_notebook_trains_draws_and_predicts(tmp_path):
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] for cell in code)  # nothing of anybody's run is committed
    program = "\n".join("".join(cell["source"]) for cell in code)
    program += "\nprint(run.accuracy, len(axes.lines[0].get_xdata()), *predictions)\n"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "MPLBACKEND": "agg"},
        capture_output=True,
        text=True,
        timeout=HANG_S,
    )
    assert done.returncode == 0, done.stderr
    accuracy, n_points, *predictions = done.stdout.splitlines()[-1].split()
    assert float(accuracy) > 0.6
    assert int(n_points) == 11
    drawn = ["field", "orchard", "pond", "roofs"]
    assert sum(found == kind for found, kind in zip(predictions, drawn, strict=True)) >= 3
