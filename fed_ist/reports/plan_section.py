"""The plan on a report's page: what each way to an accuracy takes of a node on each link."""

from fed_ist.reports.cells import UNKNOWN, cell
from fed_ist.reports.page import Cell, Data, Section

PLAN_BYTES = {"bytes_down": "to the node", "bytes_up": "from the node"}
PLAN_TIMES = {"encode_s": "encoding", "train_s": "training", "link_s": "link", "total_s": "in all"}
PLAN_JOULES = {
    **{"encode_j": "encoding (J)", "train_j": "training (J)"},
    **{"radio_j": "radio (J)", "total_j": "in all (J)"},
}


def plan_times(data: Data) -> Section:
    """How long each way takes a node on each link, until the accuracy."""
    title, plan = "How long each way takes", data.get("plan")
    if not plan:
        return Section(title)
    if not plan["links"]:
        return Section(title, notes=tuple(plan["notes"]))
    links = plan["links"]
    first = next(iter(links))
    rows = []
    for j in range(len(links[first]["ways"])):
        of_way = ("plan", "links", first, "ways", j)
        times = (cell(data, "plan", "links", link, "ways", j, "total_s") for link in links)
        rows.append((cell(data, *of_way, "way"), cell(data, *of_way, "run"), *times))
    return Section(
        title,
        lead=f"Until {100 * plan['accuracy']:.1f}%, for one of {plan['nodes']} nodes like "
        f"{plan['device']}: encoding, training and the link. {UNKNOWN}: not reached, or not of a "
        "run.",
        header=("way", "run", *links),
        rows=tuple(rows),
        is_cards=True,
    )


def plan_details(data: Data) -> Section:
    """The bytes, times and joules of each way on each link, and how they are computed."""
    title, plan = "The whole budget: bytes, times and joules of each way", data.get("plan")
    if not plan or not plan["links"]:
        return Section(title)
    rows, notes = [], []
    for link, found in plan["links"].items():
        notes += found["notes"]
        for j in range(len(found["ways"])):
            of_way = ("plan", "links", link, "ways", j)
            names = ("way", "run", "round", *PLAN_BYTES, *PLAN_TIMES, *PLAN_JOULES)
            rows.append((Cell(link, link), *(cell(data, *of_way, name) for name in names)))
    return Section(
        title,
        header=(
            *("link", "way", "run", "round"),
            *PLAN_BYTES.values(),
            *PLAN_TIMES.values(),
            *PLAN_JOULES.values(),
        ),
        rows=tuple(rows),
        notes=(*plan["notes"], *notes),
        is_folded=True,
    )
