"""Reports of many runs: sections of a table and sentences, as Markdown and as one page."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jinja2 import Environment

from fed_ist.budgets import Floats, mean_and_spread
from fed_ist.findings import many
from fed_ist.page_style import SCRIPT, STYLE

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ report.title }}</title>
<link rel="icon" href="data:,">
<style>{{ style | safe }}
td { white-space: nowrap; }
.scroll img { max-width: none; width: max(100%, 44rem); }
</style>
</head>
<body>
<h1>{{ report.title }}</h1>
{%- for note in report.notes %}
<p>{{ note }}</p>
{%- endfor %}
{%- for chapter, figure in chapters %}
<h2>{{ chapter.title }}</h2>
<div class="scroll"><img src="data:image/png;base64,{{ figure }}"
 alt="{{ chapter.alt }}"></div>
{%- for section in chapter.sections %}
<h3>{{ section.title }}</h3>
{%- if section.lead %}
<p>{{ section.lead }}</p>
{%- endif %}
{%- if section.rows %}
<div class="scroll"><table class="sortable">
<thead><tr>{% for cell in report.header %}<th scope="col">{{ cell }}</th>{% endfor %}</tr></thead>
<tbody>
{%- for row in section.rows %}
<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{%- endfor %}
</tbody>
</table></div>
{%- endif %}
<ul>
{%- for sentence in section.sentences %}
<li>{{ sentence }}</li>
{%- endfor %}
</ul>
{%- endfor %}
{%- endfor %}
<script>{{ script | safe }}</script>
</body>
</html>
"""


@dataclass(frozen=True)
class Section:
    """A table, its cells under the report's header, and what it says; both may be empty."""

    title: str
    lead: str
    rows: tuple[tuple[str, ...], ...]
    sentences: tuple[str, ...]


@dataclass(frozen=True)
class Chapter:
    """A figure, a PNG file of this name beside the Markdown, and sections."""

    title: str
    figure: bytes
    figure_name: str
    alt: str
    sections: tuple[Section, ...]


@dataclass(frozen=True)
class Report:
    """header: of all tables."""

    title: str
    notes: tuple[str, ...]
    header: tuple[str, ...]
    chapters: tuple[Chapter, ...]


def round_length(settings: Mapping[str, object]) -> str:
    """How long a client trains in a round, from the run-config keys."""
    steps = settings["local-steps"]
    return many(steps, "step") if steps else many(settings["local-epochs"], "local epoch")


def show_accuracy(values: Floats) -> str:
    """Mean over seeds (s,) in percent and, where there are several, the standard deviation."""
    mean, deviation = mean_and_spread(values)
    spread = f" ± {100 * deviation:.1f}" if len(values) > 1 else ""
    return f"{100 * mean:.1f}%{spread}"


def render_markdown(report: Report) -> str:
    """The report for a file that lies beside its figures."""
    parts = [f"# {report.title}", *report.notes]
    for chapter in report.chapters:
        parts += [f"## {chapter.title}", f"![{chapter.alt}]({chapter.figure_name})"]
        for section in chapter.sections:
            table = [report.header, ("---",) * len(report.header), *section.rows]
            parts += [
                f"### {section.title}",
                section.lead,
                "\n".join(table_line(cells) for cells in table) if section.rows else "",
                "\n".join(f"- {sentence}" for sentence in section.sentences),
            ]
    return "\n\n".join(part for part in parts if part) + "\n"


def table_line(cells: Sequence[str]) -> str:
    """A row of a Markdown table."""
    escaped = (cell.replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(escaped)} |"


def render_page(report: Report) -> str:
    """The report as an HTML page that needs nothing else."""
    chapters = [(chapter, base64.b64encode(chapter.figure).decode()) for chapter in report.chapters]
    template = Environment(autoescape=True).from_string(PAGE)
    return template.render(style=STYLE, script=SCRIPT, report=report, chapters=chapters)
