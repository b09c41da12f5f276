"""What a report's page says of images: how many of each class, how well known, what is left out."""

from collections.abc import Mapping
from dataclasses import replace

from fed_ist.reports.cells import MOST_SIDE, UNKNOWN, cell, label, long_table, run_name, run_names
from fed_ist.reports.page import Cell, Data, Section

KNOWN = ("class", "accuracy", "test_images", "taken_for")
COUNTED = ("class", "train_images", "test_images")


def classes_table(data: Data) -> Section:
    """How many images of each class are recognised, the worst first; of several runs, by each."""
    title, runs = "Accuracy by class", data["runs"]
    notes = _image_notes(data)
    if len(runs) > 1:
        header = ("class", *run_names(data))
        rows = _accuracies(data)
        return Section(title, header=header, rows=rows, notes=notes, is_cards=len(runs) > MOST_SIDE)
    classes = runs[0]["classes"]
    if not any("accuracy" in row for row in classes):
        return Section("Images", notes=notes)
    order = sorted(range(len(classes)), key=lambda j: _worst_first(classes[j]))
    return Section(
        title,
        header=tuple(label(name) for name in KNOWN),
        rows=tuple(
            tuple(cell(data, "runs", 0, "classes", j, name) for name in KNOWN) for j in order
        ),
        notes=notes,
    )


def counts_table(data: Data) -> Section:
    """How many images of each class the server of each run found."""
    lead = "As the server found them at the start; on devices, each node has images of its own."
    found = long_table(data, "Images of each class", lead, "classes", COUNTED)
    return replace(found, is_folded=True)


def _accuracies(data: Data) -> tuple[tuple[Cell, ...], ...]:
    """A row for each class, with a column for each run; none where no run tells classes apart."""
    runs = data["runs"]
    if not any("accuracy" in row for run in runs for row in run["classes"]):
        return ()
    at = [{row["class"]: j for j, row in enumerate(run["classes"])} for run in runs]
    rows = []
    for name in dict.fromkeys(name for places in at for name in places):
        cells = [
            cell(data, "runs", i, "classes", places[name], "accuracy")
            if name in places
            else Cell(UNKNOWN)
            for i, places in enumerate(at)
        ]
        rows.append((Cell(name, name), *cells))
    return tuple(rows)


def _worst_first(row: Mapping[str, object]) -> float:
    accuracy = row.get("accuracy")
    return accuracy if isinstance(accuracy, int | float) else 2.0


def _image_notes(data: Data) -> tuple[str, ...]:
    """Sentences on what the images of each run are."""
    names_of: dict[str, list[str]] = {}
    for run in data["runs"]:
        if not (found := run["images"]):
            continue
        formats = ", ".join(f"{words} ({n:,})" for words, n in found["formats"].items())
        said = [f"{found['kind'].capitalize()}. {formats}.", *found["notes"]]
        if n_skipped := run["figures"].get("images_skipped"):
            said.append(f"{n_skipped:,} images could not be read when they were encoded.")
        for note in said:
            names_of.setdefault(note, []).append(run["name"])
    n_runs = len(data["runs"])
    return tuple(
        note if len(names) == n_runs else f"{', '.join(names)}: {note}"
        for note, names in names_of.items()
    )


def left_out_table(data: Data) -> Section:
    """What is not learnt from and why, and identical images, each with a count and an example."""
    runs = data["runs"]
    several = len(runs) > 1
    rows = []
    for i, run in enumerate(runs):
        first = (run_name(data, i),) if several else ()
        for kind in ("left_out", "identical"):
            for reason in run["images"].get(kind, {}):
                named = (kind, "examples")
                cells = (cell(data, "runs", i, "images", name, reason) for name in named)
                rows.append((*first, Cell(label(kind)), Cell(reason, reason), *cells))
    header = (*(("run",) if several else ()), "what", "why", "images", "example")
    return Section("Images left out, and identical ones", header=header, rows=tuple(rows))
