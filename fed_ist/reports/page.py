"""A page: sections of figures, plots, a table and sentences, as Markdown and as HTML.

The HTML page needs nothing else. It may hold the data that it shows, and then each number on it
carries the JSON pointer (RFC 6901) of its value there. One section more is one more `Section`.
"""

import base64
import json
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment

from fed_ist.reports.style import SCRIPT, STYLE
from fed_ist.words import bullets, table

# JSON as Python has it: report.json and its parts.
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
{%- if section.title %}
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
<table class="sortable">
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
 {{- ' marked' if cell.is_marked }}"{% endif %}{{ keyed(cell) }}>{{ cell.text }}</td>
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
    """A value as it is shown.

    text: for people. value: what it is, by which the table is sorted; None to sort by the text.
    key: the value's JSON pointer in the page's data; empty where it is not there. is_marked: stands
    out.
    """

    text: str
    value: str | int | float | bool | None = None
    key: str = ""
    is_marked: bool = False

    @property
    def json_value(self) -> str:
        """The value as JSON has it; a text without its quotes."""
        return self.value if isinstance(self.value, str) else json.dumps(self.value)


@dataclass(frozen=True)
class Picture:
    """A PNG file. name: that of the file beside a Markdown page. alt: what it shows, in words."""

    png: bytes
    name: str
    alt: str

    @property
    def base64(self) -> str:
        """The file as an HTML page holds it."""
        return base64.b64encode(self.png).decode()


@dataclass(frozen=True)
class Section:
    """A section of a page, all of which may be empty.

    level: of its heading, 2 or 3. lead: a sentence above the rest. figures: single values with
    their labels, shown large. plots: SVG, as `fed_ist.reports.svg_charts` draws it, which a
    Markdown page leaves out. header, rows: a table; each row is as long as the header. points: a
    list of sentences. notes: sentences below.
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

    def __post_init__(self) -> None:
        assert all(len(row) == len(self.header) for row in self.rows)

    @property
    def texts(self) -> tuple[tuple[str, ...], ...]:
        """The rows as they are shown."""
        return tuple(tuple(cell.text for cell in row) for row in self.rows)

    @property
    def is_text(self) -> list[bool]:
        """Which columns hold a text, and are not aligned as numbers are."""
        columns = zip(*self.rows, strict=True)
        return [any(isinstance(cell.value, str) for cell in column) for column in columns]


@dataclass(frozen=True)
class Page:
    """notes: sentences above the sections. data: what the page shows, where it is to hold it."""

    title: str
    sections: tuple[Section, ...]
    notes: tuple[str, ...] = ()
    data: Data | None = None


def pointer(*steps: str | int) -> str:
    """The JSON pointer of a value: keys and indices from the outermost on."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in steps)


def render_html(page: Page) -> str:
    """A self-contained page, which holds its data as JSON with the id `report`."""
    # '<' could end the script element, or open a comment in it.
    data = page.data and json.dumps(page.data, allow_nan=False).replace("<", "\\u003c")
    template = Environment(autoescape=True).from_string(HTML)
    return template.render(page=page, style=STYLE, script=SCRIPT, data=data)


def render_markdown(page: Page) -> str:
    """The page for a file that lies beside its pictures."""
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
