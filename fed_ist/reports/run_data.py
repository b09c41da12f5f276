"""The data of a report on runs: the content of report.json, with each number that the page shows.

Bytes are those of messages as serialised, unless a name says payload, which is the arrays alone, or
link, which is IP packets. Bytes of a node are the mean of all nodes, both ways.
"""

from collections.abc import Iterable, Mapping, Sequence

from fed_ist.config.toml import kebab, read_defaults
from fed_ist.errors import InputError
from fed_ist.files.installed import installed_app
from fed_ist.reports.link_costs import cost_rows, sum_node_rounds, total_rows
from fed_ist.reports.page import Data
from fed_ist.reports.run_bytes import bytes_by_kind, bytes_by_node, bytes_by_use, numbers
from fed_ist.runs.reading import RunFiles
from fed_ist.runs.tables import CellValue, Row
from fed_ist.traffic.ledger import DIRECTIONS
from fed_ist.traffic.links import read_links
from fed_ist.traffic.packets import bytes_of_waiting

# Settings that do not count as a difference between runs: they say where a run is kept.
PLACES = ("name", "results-dir", "cache-dir", "resume")
ON_LINKS = ("link_bytes_down", "link_bytes_up", "air_s", "joules", "quota_share")
USUAL_LINK = "wifi"  # on which joules are compared where nobody chose one


def collect(runs: Sequence[RunFiles], links: Sequence[str] = ()) -> Data:
    """The content of report.json.

    links: those that the user chose. runs: each as `collect_run` gives it. waiting: the bytes of a
    node on its link in an hour without messages. differing: the settings in which the runs differ,
    except those in `PLACES`. defaults: the settings of a run of which nothing is said. radio: the
    link on which the joules of runs are compared.
    """
    hour = bytes_of_waiting(3600)
    names = [run.path.name for run in runs]
    labels = [
        name if names.count(name) == 1 else str(run.path)
        for name, run in zip(names, runs, strict=True)
    ]
    differing = [
        key
        for key in dict.fromkeys(key for run in runs for key in run.settings)
        if key not in PLACES and len({repr(run.settings.get(key)) for run in runs}) > 1
    ]
    defaults = read_defaults(installed_app() / "pyproject.toml")
    return {
        "runs": [
            {
                **collect_run(run, label),
                "differs": _unusual(run.settings, differing, defaults),
            }
            for run, label in zip(runs, labels, strict=True)
        ],
        "waiting": {"link_bytes_down": hour.down, "link_bytes_up": hour.up},
        "differing": differing,
        "defaults": defaults,
        "radio": links[0] if len(links) == 1 else USUAL_LINK,
    }


def _unusual(settings: Row, keys: Sequence[str], defaults: Mapping[str, CellValue]) -> str:
    """Those of the settings that are not at their defaults, as words."""
    found = [key for key in keys if settings.get(key) != defaults.get(key)]
    return ", ".join(f"{key} = {settings.get(key)}" for key in found) or "the defaults"


def collect_run(run: RunFiles, name: str) -> Data:
    """One run of report.json.

    It has the name, path, is_finished, notes, command, figures, settings, images, rounds, what the
    test images are taken for, and bytes by kind, by use, by node and on links.
    """
    nodes = bytes_by_node(run.ledger)
    return {
        "name": name,
        "path": str(run.path),
        "is_finished": run.is_finished,
        "notes": [*_state(run), *run.notes],
        "command": run.command,
        "figures": _figures(run, len(nodes)),
        "settings": run.settings,
        "images": run.images,
        "rounds": _with_bytes_so_far(run.rounds, len(nodes) or _clients(run)),
        "confusion": _confusion(run),
        "classes": _classes(run),
        "bytes_by_kind": bytes_by_kind(run.ledger),
        "bytes_by_use": bytes_by_use(run.ledger, len(nodes)),
        "bytes_by_node": nodes,
        "links": on_links(run),
    }


def on_links(run: RunFiles) -> list[Row]:
    """What a node took in the whole run, the mean of all nodes: a row for each known link.

    It is empty for runs of earlier versions, whose ledgers do not tell.
    """
    try:
        node_rounds = sum_node_rounds(run)
    except InputError:
        return []
    rows = []
    for link in read_links().values():
        totals = total_rows(cost_rows(link, node_rounds, compute_s=0.0))
        means: Row = {"link": link.name}
        for name in ON_LINKS:
            values = [total[name] for total in totals]
            unknown = any(value is None for value in values)
            means[name] = None if unknown else float(f"{sum(values) / len(values):.6g}")
        rows.append(means)
    return rows


def _state(run: RunFiles) -> list[str]:
    """A sentence on how far a run has come, unless it came to its last round."""
    if run.is_finished:
        reason = run.summary.get("ended_early")
        last = run.rounds[-1]["round"] if run.rounds else 0
        return [f"The run ended after round {last}: {reason}."] if reason else []
    if run.error:
        return [f"The run stopped with an error: {run.error}"]
    if not run.rounds:
        return ["The run is not finished, and nothing was evaluated yet."]
    planned = f" of {run.num_rounds}" if run.num_rounds else ""
    return [
        "The run is not finished: it is going on or was interrupted. What follows goes up to "
        f"round {run.rounds[-1]['round']}{planned}."
    ]


def _figures(run: RunFiles, n_nodes: int) -> Row:
    """The main figures of a run: from its tables, and from summary.json what these do not have.

    What is a setting is left out, as the settings have it.
    """
    rounds = run.rounds
    found: Row = {
        "accuracy": rounds[-1]["accuracy"] if rounds else None,
        "best_accuracy": max(numbers(rounds, "accuracy"), default=None),
        "loss": rounds[-1]["loss"] if rounds else None,
        "rounds": rounds[-1]["round"] if rounds else None,
        "seconds": round(sum(numbers(rounds, "seconds")), 3),
    }
    # The ledger is taken first, as it also has the messages of a round that was cut.
    table, name = (run.ledger, "message_bytes") if run.ledger else (rounds, "bytes")
    for direction in DIRECTIONS:
        if run.ledger:
            rows = [row for row in table if row["direction"] == direction]
            found[f"bytes_{direction}"] = sum(numbers(rows, name))
            found[f"payload_bytes_{direction}"] = sum(numbers(rows, "payload_bytes"))
        else:
            found[f"bytes_{direction}"] = sum(numbers(rounds, f"{name}_{direction}"))
    total = sum(numbers([found], "bytes_down")) + sum(numbers([found], "bytes_up"))
    n_nodes = n_nodes or _clients(run)
    found["bytes_per_node"] = round(total / n_nodes) if n_nodes else None
    known = {"state", *(key for key in run.summary if kebab(key) in run.settings)}
    more = {key: value for key, value in run.summary.items() if key not in known}
    return found | {key: value for key, value in more.items() if key not in found}


def _clients(run: RunFiles) -> int:
    """How many nodes a run without a ledger had; 0 if that is not known."""
    value = run.summary.get("clients")
    return value if isinstance(value, int) else 0


def _with_bytes_so_far(rounds: Iterable[Row], n_nodes: int) -> list[Row]:
    """The rows, each with the bytes that a node has received and sent up to then."""
    rows, total = [], 0.0
    for row in rounds:
        total += sum(numbers([row], "bytes_down")) + sum(numbers([row], "bytes_up"))
        rows.append({**row, "bytes_per_node_so_far": round(total / n_nodes) if n_nodes else None})
    return rows


def _confusion(run: RunFiles) -> list[Row]:
    """A row for each class and each class that its images are taken for, with their number."""
    counts = run.confusion.counts() if run.confusion else ()
    return [{"class": truth, "taken_for": found, "images": n} for truth, found, n in counts]


def _classes(run: RunFiles) -> list[Row]:
    """A row for each class of the images: how many there are, and how many are recognised."""
    known = {row[0]: row[1:] for row in run.confusion.rows()} if run.confusion else {}
    counts = run.images.get("counts", {})
    found: list[Row] = []
    for name in counts or known:
        of_class: Mapping[str, CellValue] = counts.get(name, {})
        n_test, accuracy, wrong = known.get(name, (None, None, None))
        row: Row = {"class": name, "train_images": of_class.get("train")}
        row |= {"test_images": of_class.get("test", n_test)}
        found.append(row | {"accuracy": accuracy, "taken_for": wrong} if known else row)
    return found
