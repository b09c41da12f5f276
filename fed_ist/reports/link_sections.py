"""What a report's page says of links: what a node took on each."""

from dataclasses import replace

from fed_ist.reports.cells import MOST_SIDE, OF_A_NODE, UNKNOWN, cell, long_table
from fed_ist.reports.page import Data, Section

SHOWN = ("link", "air_s", "joules", "quota_share")
MEANING = (
    "Of a node in the whole run, the mean of all: how long its packets fill the link, what its "
    "radio takes, and the share of a month's quota. Packets are estimated for a device with TLS. "
    f"{UNKNOWN}: nobody published it, or nothing limits it."
)


def links_table(data: Data) -> Section:
    """What a node takes on each link; of several runs, how long their packets fill it."""
    runs = data["runs"]
    found = long_table(data, "On links", MEANING, "links", SHOWN)
    if len(runs) > 1:
        found = _air_times(data)
    if not found.rows:
        return found
    figures = [
        ("to a node that waits an hour", cell(data, "waiting", "link_bytes_down")),
        ("from it", cell(data, "waiting", "link_bytes_up")),
    ]
    if len(runs) == 1:  # the bytes are the same on every link
        first = ("runs", 0, "links", 0)
        figures = [
            ("to a node", cell(data, *first, "link_bytes_down")),
            ("from a node", cell(data, *first, "link_bytes_up")),
            *figures,
        ]
    return replace(found, figures=tuple(figures))


def links_details(data: Data) -> Section:
    """What a node of each of several runs takes on each link."""
    title = "On links, each run"
    if len(data["runs"]) < 2:
        return Section(title)
    found = long_table(data, title, MEANING, "links", labels=OF_A_NODE)
    return replace(found, is_folded=True)


def _air_times(data: Data) -> Section:
    """A row for each link, with a column for each run that tells."""
    title = "On links"
    told = [i for i, run in enumerate(data["runs"]) if run["links"]]
    if not told:
        return Section(title)
    links = [row["link"] for row in data["runs"][told[0]]["links"]]
    rows = []
    for j in range(len(links)):
        first = cell(data, "runs", told[0], "links", j, "link")
        rows.append((first, *(cell(data, "runs", i, "links", j, "air_s") for i in told)))
    lead = (
        "How long the packets of a node fill its link, in the whole run, the mean of all nodes. "
        "Packets are estimated for a device with TLS."
    )
    names = (data["runs"][i]["name"] for i in told)
    return Section(
        title,
        lead=lead,
        header=("link", *names),
        rows=tuple(rows),
        is_cards=len(told) > MOST_SIDE,
    )
