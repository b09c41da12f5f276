"""The sections of a report's page, made of its data: pictures first, then tables.

Each function takes the content of report.json (`fed_ist.reports.run_data.collect`) and returns a
`Section`. To add a section, write a function and call it in `build_sections`.
"""

from collections.abc import Sequence
from dataclasses import replace

from fed_ist.reports.cells import (
    OF_A_NODE,
    UNKNOWN,
    cell,
    label,
    long_table,
    run_name,
    run_names,
    setting,
)
from fed_ist.reports.image_sections import classes_table, counts_table, left_out_table
from fed_ist.reports.kept_images import KeptImage
from fed_ist.reports.link_sections import links_details, links_table
from fed_ist.reports.page import Cell, Data, Section
from fed_ist.reports.plan_section import plan_details, plan_times
from fed_ist.reports.run_charts import kept_strips, matrix, plots
from fed_ist.reports.settings_sections import settings_table

MOST_DIFFERING = 3  # settings that have a column each where runs are compared


def build_sections(data: Data, kept: Sequence[Sequence[KeptImage]] = ()) -> list[Section]:
    """All sections of the page that have content.

    kept: images of each run as its nodes keep them.
    """
    sections = [
        headline(data),
        compared(data),
        kept_strips(data, kept),
        plots(data),
        matrix(data),
        classes_table(data),
        links_table(data),
        plan_times(data),
        settings_table(data, are_usual=False),
        left_out_table(data),
        counts_table(data),
        plan_details(data),
        links_details(data),
        rounds_table(data),
        kinds_table(data),
        nodes_table(data),
        figures_table(data),
        settings_table(data, are_usual=True),
    ]
    return [s for s in sections if s.rows or s.plots or s.figures or s.notes]


def headline(data: Data) -> Section:
    """The main figures of a single run, and the notes on all runs."""
    runs = data["runs"]
    several = len(runs) > 1
    notes = [f"{run['name']}: {note}" if several else note for run in runs for note in run["notes"]]
    figures: tuple[tuple[str, Cell], ...] = ()
    if not several:
        names = {
            "accuracy": "test accuracy",
            "best_accuracy": "best round",
            "rounds": "rounds",
            "bytes_per_node": "a node, both ways",
            "bytes_down": "to all nodes",
            "bytes_up": "from all nodes",
            "seconds": "until the last evaluation",
        }
        figures = tuple(
            (words, cell(data, "runs", 0, "figures", name)) for name, words in names.items()
        )
    return Section("", figures=figures, notes=tuple(notes))


def compared(data: Data) -> Section:
    """A row for each of several runs: the settings in which they differ, and their outcome."""
    runs, differing = data["runs"], data["differing"]
    if len(runs) < 2:
        return Section("Summary")
    outcome = ("accuracy", "best_accuracy", "rounds", "bytes_per_node", "seconds")
    are_many = len(differing) > MOST_DIFFERING
    rows = []
    for i in range(len(runs)):
        if are_many:
            settings = [replace(cell(data, "runs", i, "differs"), is_marked=True)]
        else:
            settings = [setting(data, i, key) for key in differing]
        figures = [cell(data, "runs", i, "figures", name) for name in outcome]
        rows.append((run_name(data, i), *settings, *figures, _joules(data, i)))
    shown = ("what differs",) if are_many else tuple(differing)
    radio = f"radio of a node on {data['radio']} (J)"
    header = ("run", *shown, *(label(name) for name in outcome), radio)
    same = "The settings of these runs are the same."
    lead = "Marked are the settings in which the runs differ." if differing else same
    return Section("Summary", lead=lead, header=header, rows=tuple(rows), is_cards=True)


def _joules(data: Data, i: int) -> Cell:
    """What a node's radio takes in a run on the link on which runs are compared."""
    for j, row in enumerate(data["runs"][i]["links"]):
        if row["link"] == data["radio"]:
            return cell(data, "runs", i, "links", j, "joules")
    return Cell(UNKNOWN)


def rounds_table(data: Data) -> Section:
    """The rows of rounds.csv, the runs one below the other."""
    lead = (
        "Bytes are of messages as serialised; on links, they are the IP packets of these messages, "
        "requests and answers included, as estimated for devices with TLS."
    )
    return replace(long_table(data, "All rounds", lead, "rounds"), is_folded=True)


def kinds_table(data: Data) -> Section:
    """The bytes of each kind of message."""
    lead = "Of all nodes. Messages are what Flower serialises for the arrays."
    return replace(
        long_table(data, "Bytes by kind of message", lead, "bytes_by_kind"), is_folded=True
    )


def nodes_table(data: Data) -> Section:
    """The bytes of each node."""
    lead = "What each node received and sent in the whole run."
    found = long_table(data, "Bytes of each node", lead, "bytes_by_node", labels=OF_A_NODE)
    return replace(found, is_folded=True)


def figures_table(data: Data) -> Section:
    """All figures, a column for each run."""
    runs = data["runs"]
    names = dict.fromkeys(name for run in runs for name in run["figures"])
    rows = tuple(
        (
            Cell(label(name), label(name)),
            *(cell(data, "runs", i, "figures", name) for i in range(len(runs))),
        )
        for name in names
    )
    return Section("All figures", header=("figure", *run_names(data)), rows=rows, is_folded=True)
