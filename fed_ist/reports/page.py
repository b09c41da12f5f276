"""A page of sections, each with figures, plots, a table and sentences, as Markdown and as HTML.

The HTML page needs no other file. It may hold the data that it shows: then each number on it
carries the JSON pointer (RFC 6901) of its value in that data.
"""

import base64
import json
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment

from fed_ist.reports.style import SCRIPT, STYLE
from fed_ist.words import bullets, table

# An object of JSON: report.json, or an object within it.
Data = dict[str, Any]

HTML = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ page.title }}</title>
<link rel="icon" href="data:,">
<style>{{ style | safe }}</style>
</head>
<body>
{%- macro keyed(cell) %}
{%- if cell.key %} data-key="{{ cell.key }}" data-value="{{ cell.json_value }}"{% endif %}
{%- endmacro %}
<h1>{{ page.title }}</h1>
{%- for note in page.notes %}
<p>{{ note }}</p>
{%- endfor %}
{%- for section in page.sections %}
{%- if section.is_folded %}
<details><summary>{{ section.title }}</summary>
{%- elif section.title %}
<h{{ section.level }}>{{ section.title }}</h{{ section.level }}>
{%- endif %}
{%- if section.picture %}
<div class="scroll"><img src="data:image/png;base64,{{ section.picture.base64 }}"
 alt="{{ section.picture.alt }}"></div>
{%- endif %}
{%- if section.lead %}
<p class="lead">{{ section.lead }}</p>
{%- endif %}
{%- if section.figures %}
<dl class="figures">
{%- for label, cell in section.figures %}
<div><dt>{{ label }}</dt><dd{{ keyed(cell) }}>{{ cell.text }}</dd></div>
{%- endfor %}
</dl>
{%- endif %}
{%- if section.plots %}
<div class="plots">
{%- for plot in section.plots %}
{{ plot | safe }}
{%- endfor %}
</div>
{%- endif %}
{%- if section.rows %}
<div class="scroll" tabindex="0" role="region" aria-label="{{ section.title }}">
<table class="sortable{{ ' cards' if section.is_cards }}">
<thead><tr>
{%- for head in section.header %}
<th scope="col"{% if section.is_text[loop.index0] %} class="text"{% endif %}>{{ head }}</th>
{%- endfor %}
</tr></thead>
<tbody>
{%- for row in section.rows %}
<tr>
{%- for cell in row %}
{%- set text = section.is_text[loop.index0] %}
<td{% if text or cell.is_marked %} class="{{ 'text' if text }}
 {{- ' marked' if cell.is_marked }}"{% endif %}{{ keyed(cell) }}
 {%- if section.is_cards %} data-label="{{ section.header[loop.index0] }}"{% endif %}>
 {{- cell.text }}</td>
{%- endfor %}
</tr>
{%- endfor %}
</tbody>
</table>
</div>
{%- endif %}
{%- if section.points %}
<ul>
{%- for sentence in section.points %}
<li>{{ sentence }}</li>
{%- endfor %}
</ul>
{%- endif %}
{%- for note in section.notes %}
<p class="note">{{ note }}</p>
{%- endfor %}
{%- if section.is_folded %}
</details>
{%- endif %}
{%- endfor %}
{%- if data %}
<script type="application/json" id="report">{{ data | safe }}</script>
{%- endif %}
<script>{{ script | safe }}</script>
</body>
</html>
"""


@dataclass(frozen=True)
class Cell:
    """A value as a page shows it.

    text: for people. value: by which the table is sorted; None to sort by the text. key: the
    value's JSON pointer in the page's data; "" where it is not in there. is_marked: whether it
    stands out.
    """

    text: str
    value: str | int | float | bool | None = None
    key: str = ""
    is_marked: bool = False

    @property
    def json_value(self) -> str:
        """The value as JSON, but a text without its quotes."""
        return self.value if isinstance(self.value, str) else json.dumps(self.value)


@dataclass(frozen=True)
class Picture:
    """A PNG file. name: of the file in the folder of a Markdown page. alt: what it shows."""

    png: bytes
    name: str
    alt: str

    @property
    def base64(self) -> str:
        """The file's bytes as an HTML page holds them."""
        return base64.b64encode(self.png).decode()


@dataclass(frozen=True)
class Section:
    """A section of a page; any field may be empty.

    level: of its heading, 2 or 3. lead: a sentence above everything else. figures: single values
    with their labels, which are shown large. plots: HTML of figures, such as SVG from
    `fed_ist.reports.svg_charts`, which a Markdown page leaves out. header, rows: a table; each row
    is as long as the header. points: a list of sentences. notes: sentences below everything else.
    is_folded: whether only the title shows until it is clicked, which print leaves out. is_cards:
    whether a narrow screen shows each row of the table as a block of lines.
    """

    title: str
    level: int = 2
    picture: Picture | None = None
    lead: str = ""
    figures: tuple[tuple[str, Cell], ...] = ()
    plots: tuple[str, ...] = ()
    header: tuple[str, ...] = ()
    rows: tuple[tuple[Cell, ...], ...] = ()
    points: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    is_folded: bool = False
    is_cards: bool = False

    def __post_init__(self) -> None:
        assert all(len(row) == len(self.header) for row in self.rows)

    @property
    def texts(self) -> tuple[tuple[str, ...], ...]:
        """The texts of the table's cells, row by row."""
        return tuple(tuple(cell.text for cell in row) for row in self.rows)

    @property
    def is_text(self) -> list[bool]:
        """Which columns of the table hold texts, which are not aligned as numbers are."""
        columns = zip(*self.rows, strict=True)
        return [any(isinstance(cell.value, str) for cell in column) for column in columns]


@dataclass(frozen=True)
class Page:
    """A whole page.

    notes: sentences above the sections. data: what the page shows, if the page is to hold it.
    """

    title: str
    sections: tuple[Section, ...]
    notes: tuple[str, ...] = ()
    data: Data | None = None


def pointer(*steps: str | int) -> str:
    """The JSON pointer of a value. steps: its keys and indices, the outermost first."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in steps)


def render_html(page: Page) -> str:
    """The page as HTML; its data are JSON in the element with the id `report`."""
    # '<' could end the script element, or open a comment in it.
    data = page.data and json.dumps(page.data, allow_nan=False).replace("<", "\\u003c")
    template = Environment(autoescape=True).from_string(HTML)
    return template.render(page=page, style=STYLE, script=SCRIPT, data=data)


def render_markdown(page: Page) -> str:
    """The page as Markdown, for a file in the same folder as its pictures."""
    blocks = [f"# {page.title}", *page.notes]
    for section in page.sections:
        picture = section.picture
        blocks += [
            f"{'#' * section.level} {section.title}" if section.title else "",
            f"![{picture.alt}]({picture.name})" if picture else "",
            section.lead,
            bullets(f"{label}: {cell.text}" for label, cell in section.figures),
            table(section.header, section.texts) if section.rows else "",
            bullets(section.points),
            *section.notes,
        ]
    return "\n\n".join(block for block in blocks if block) + "\n"
