"""What images of each class are taken for, as a matrix of HTML that fits any screen."""

from collections.abc import Mapping, Sequence

from markupsafe import escape

from fed_ist.reports.page import Cell

MOST_CLASSES = 40  # of which a matrix still shows something
FEW = 14  # classes whose numbers and names fit a narrow screen


def confusion_matrix(
    title: str, names: Sequence[str], counts: Mapping[tuple[str, str], Cell]
) -> str:
    """A figure with a row for each class and a column for each that its images are taken for.

    counts: (class, what it is taken for) -> the cell of the number of images; none where it is 0.
    """
    sums = {name: sum(_number(counts.get((name, other))) for other in names) for name in names}
    size = "few" if len(names) <= FEW else "many"
    heads = "".join(
        f'<span role="columnheader"><span>{escape(name)}</span></span>' for name in names
    )
    rows = [f'<div role="row" class="heads"><span role="cell"></span>{heads}</div>']
    for name in names:
        cells = (_cell(name, other, counts.get((name, other)), sums[name]) for other in names)
        head = f'<span role="rowheader" title="{escape(name)}">{escape(name)}</span>'
        rows.append(f'<div role="row">{head}{"".join(cells)}</div>')
    told = "A row is what images are, a column what they are taken for; the order is the same."
    return (
        f'<figure class="wide"><figcaption>{escape(title)}<small>{told}</small></figcaption>'
        f'<div role="table" class="matrix {size}" style="--classes: {len(names)}">'
        f"{''.join(rows)}</div></figure>"
    )


def _cell(name: str, other: str, found: Cell | None, n_images: float) -> str:
    if found is None:
        return '<span role="cell"></span>'
    share = _number(found) / n_images
    kind = "right" if name == other else "wrong"
    # The root lets few mistakes among many images still be seen.
    shade = share if name == other else share**0.5
    strong = " strong" if shade > 0.5 else ""
    said = f"{name} taken for {other}: {found.text} of {n_images:.0f}"
    return (
        f'<span role="cell" class="{kind}{strong}" style="--share: {100 * shade:.0f}%" '
        f'title="{escape(said)}" data-key="{escape(found.key)}" '
        f'data-value="{escape(found.json_value)}">{escape(found.text)}</span>'
    )


def _number(found: Cell | None) -> float:
    return float(found.value) if found and isinstance(found.value, int | float) else 0.0
