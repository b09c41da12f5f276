"""What a report's page says of settings: those that are not the defaults, and, folded, the rest."""

from fed_ist.reports.cells import MOST_SIDE, run_names, setting
from fed_ist.reports.page import Cell, Data, Section
from fed_ist.reports.run_data import PLACES


def settings_table(data: Data, *, are_usual: bool) -> Section:
    """The settings of all runs, a column for each run; those in which runs differ are marked.

    are_usual: whether they are the settings that every run has at its default, and those that say
    where runs are kept; otherwise they are all others.
    """
    runs = data["runs"]
    rows = []
    for name in dict.fromkeys(name for run in runs for name in run["settings"]):
        default = data["defaults"].get(name)
        is_default = all(run["settings"].get(name, default) == default for run in runs)
        if (is_default or name in PLACES) == are_usual:
            cells = [setting(data, i, name) for i in range(len(runs))]
            rows.append((Cell(name, name, is_marked=name in data["differing"]), *cells))
    header = ("setting", *run_names(data))
    if are_usual:
        title = "Settings at their defaults, and places"
        return Section(title, header=header, rows=tuple(rows), is_folded=True)
    known = any(run["settings"] for run in runs)
    lead = "Those that differ from the defaults." if rows else "All settings are the defaults."
    commands = [f"Repeat {run['name']}: {run['command']}" for run in runs if run["command"]]
    return Section(
        "Settings",
        lead=lead if known else "",
        header=header,
        rows=tuple(rows),
        notes=tuple(commands),
        is_cards=len(runs) > MOST_SIDE,
    )
