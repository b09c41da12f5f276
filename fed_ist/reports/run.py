"""Writes the report on runs: report.html, report.json and, for several runs, rounds.csv."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fed_ist.errors import InputError
from fed_ist.files.atomic import write_atomic
from fed_ist.files.paths import require_writable
from fed_ist.reports.kept_images import KeptImage, cut_kept
from fed_ist.reports.page import Data, Page, render_html
from fed_ist.reports.run_data import collect
from fed_ist.reports.run_sections import build_sections
from fed_ist.runs.folder import KEPT
from fed_ist.runs.reading import RunFiles, read_run
from fed_ist.traffic.links import Link
from fed_ist.words import csv_text

if TYPE_CHECKING:
    from fed_ist.planning.plan import Question


def write_run_report(
    paths: Sequence[Path],
    out: Path | None,
    question: "Question | None" = None,
    links: Sequence[Link] = (),
) -> Path:
    """Write report.html and report.json of runs and, for several runs, rounds.csv of all of them.

    out: a folder; None for the folder of the only run, whose own rounds.csv stays. question: what
    to plan for on these links; None for no plan (see `fed_ist.planning.plan`). Returns the path of
    the page. Raises `InputError` for a folder that is no run, is damaged, or cannot be written to.
    """
    runs = [read_run(path) for path in dict.fromkeys(path.resolve() for path in paths)]
    if out is None and len(runs) > 1:
        raise InputError("Several runs side by side need a folder of their own: add --out FOLDER.")
    folder = out.resolve() if out else runs[0].path
    data = collect(runs, [link.name for link in links])
    if question:
        data["plan"] = plan_runs(runs, question, links)
    if folder != runs[0].path or len(runs) > 1:
        table = folder / "rounds.csv"
        if table.exists() and not table.read_bytes().startswith(b"run,"):
            raise InputError(
                f"--out '{folder}' holds a rounds.csv that is no report's, and no run is ever "
                "overwritten. Choose another folder."
            )
        require_writable(folder, "--out")
        write_atomic(table, render_rounds(data).encode())
    else:
        require_writable(folder, "RUN")
    text = json.dumps(data, indent=2, allow_nan=False)
    write_atomic(folder / "report.json", f"{text}\n".encode())
    title = data["runs"][0]["name"] if len(runs) == 1 else f"{len(runs)} runs"
    kept = [read_kept(run.path) for run in runs]
    page = Page(f"fed-ist: {title}", tuple(build_sections(data, kept)), data=data)
    write_atomic(folder / "report.html", render_html(page).encode())
    return folder / "report.html"


def read_kept(run: Path) -> list[KeptImage]:
    """The images in a run's kept.png; none where it has no such file, or cannot read it.

    It is a picture to look at, which no figure depends on, and has no seal: whoever wants the page
    without it may remove it.
    """
    try:
        return cut_kept((run / KEPT).read_bytes())
    except (OSError, ValueError):
        return []


def plan_runs(runs: Sequence[RunFiles], question: "Question", links: Sequence[Link]) -> Data:
    """The content of plan.json for these runs, or a note on why there is no plan."""
    from fed_ist.planning.plan import make_plans
    from fed_ist.planning.runs import planned_run
    from fed_ist.planning.table import plan_data

    try:
        return plan_data(make_plans([planned_run(run) for run in runs], links, question))
    except InputError as reason:
        return {"links": {}, "notes": [f"There is no plan: {reason}"]}


def render_rounds(data: Data) -> str:
    """The text of rounds.csv for several runs: their rows, with the run's name as first column."""
    rows = [{"run": run["name"], **row} for run in data["runs"] for row in run["rounds"]]
    names = dict.fromkeys(name for row in rows for name in row)
    return csv_text(list(names) or ["run"], rows)
