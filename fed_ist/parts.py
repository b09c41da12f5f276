"""A report's page: parts of figures, a table and notes, and the data that they show.

Every number on the page carries the JSON pointer (RFC 6901) of its value in that data, which the
page holds too. A section more is one more `Part` in the list that `render_page` gets.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment

from fed_ist.page_style import SCRIPT, STYLE

# JSON as Python has it: report.json and its parts.
Data = dict[str, Any]

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<link rel="icon" href="data:,">
<style>{{ style | safe }}</style>
</head>
<body>
{%- macro keyed(cell) %}
{%- if cell.key %} data-key="{{ cell.key }}" data-value="{{ cell.json_value }}"{% endif %}
{%- endmacro %}
<h1>{{ title }}</h1>
{%- for part in parts %}
{%- if part.title %}
<h2>{{ part.title }}</h2>
{%- endif %}
{%- if part.lead %}
<p class="lead">{{ part.lead }}</p>
{%- endif %}
{%- if part.figures %}
<dl class="figures">
{%- for label, cell in part.figures %}
<div><dt>{{ label }}</dt><dd{{ keyed(cell) }}>{{ cell.text }}</dd></div>
{%- endfor %}
</dl>
{%- endif %}
{%- if part.plots %}
<div class="plots">
{%- for plot in part.plots %}
{{ plot | safe }}
{%- endfor %}
</div>
{%- endif %}
{%- if part.rows %}
<div class="scroll" tabindex="0" role="region" aria-label="{{ part.title }}">
<table class="sortable">
<thead><tr>
{%- for head in part.header %}
<th scope="col"{% if part.is_text[loop.index0] %} class="text"{% endif %}>{{ head }}</th>
{%- endfor %}
</tr></thead>
<tbody>
{%- for row in part.rows %}
<tr>
{%- for cell in row %}
{%- set text = part.is_text[loop.index0] %}
<td{% if text or cell.is_marked %} class="{{ 'text' if text }}
 {{- ' marked' if cell.is_marked }}"{% endif %}{{ keyed(cell) }}>{{ cell.text }}</td>
{%- endfor %}
</tr>
{%- endfor %}
</tbody>
</table>
</div>
{%- endif %}
{%- for note in part.notes %}
<p class="note">{{ note }}</p>
{%- endfor %}
{%- endfor %}
<script type="application/json" id="report">{{ data | safe }}</script>
<script>{{ script | safe }}</script>
</body>
</html>
"""


@dataclass(frozen=True)
class Cell:
    """A value as it is shown.

    text: for people. value: what it is, by which the table is sorted. key: the value's JSON pointer
    in the page's data; empty where it is not there. is_marked: stands out.
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
class Part:
    """A part of the page; all but the title may be empty.

    lead: a sentence above the rest. figures: single values with their labels, shown large. plots:
    markup, as `fed_ist.charts` draws it. header, rows: a table; each row is as long as the header.
    notes: sentences below.
    """

    title: str
    lead: str = ""
    figures: tuple[tuple[str, Cell], ...] = ()
    plots: tuple[str, ...] = ()
    header: tuple[str, ...] = ()
    rows: tuple[tuple[Cell, ...], ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        assert all(len(row) == len(self.header) for row in self.rows)

    @property
    def is_text(self) -> list[bool]:
        """Which columns hold a text, and are not aligned as numbers are."""
        columns = zip(*self.rows, strict=True)
        return [any(isinstance(cell.value, str) for cell in column) for column in columns]


def pointer(*steps: str | int) -> str:
    """The JSON pointer of a value: keys and indices from the outermost on."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in steps)


def render_page(title: str, parts: Iterable[Part], data: Data) -> str:
    """A self-contained page that also holds its data, as JSON with the id `report`."""
    # '<' could end the script element, or open a comment in it.
    embedded = json.dumps(data, allow_nan=False).replace("<", "\\u003c")
    template = Environment(autoescape=True).from_string(PAGE)
    return template.render(
        title=title, parts=list(parts), style=STYLE, script=SCRIPT, data=embedded
    )
