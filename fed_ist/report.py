"""A run's outcome for people: a figure, and one page that needs nothing else."""

import base64
import io
from collections.abc import Mapping, Sequence

from jinja2 import Environment

from fed_ist.results import Round

STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.figures { display: flex; flex-wrap: wrap; gap: 1rem 2.5rem; margin: 0; }
.figures div { display: flex; flex-direction: column-reverse; }
.figures dd { margin: 0; font-size: 1.6rem; font-weight: 600; }
img { max-width: 100%; background: white; border-radius: 6px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 0.2rem 0.8rem 0.2rem 0; text-align: right; border-bottom: 1px solid #8884; }
th:first-child, td:first-child { text-align: left; }
@media print { body { margin: 0; } }
"""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>fed-ist: {{ name }}</title>
<link rel="icon" href="data:,">
<style>{{ style | safe }}</style>
</head>
<body>
<h1>{{ name }}</h1>
<dl class="figures">
{%- for label, value in figures %}
<div><dt>{{ label }}</dt><dd>{{ value }}</dd></div>
{%- endfor %}
</dl>
<h2>Accuracy against rounds and bytes</h2>
<img src="data:image/png;base64,{{ figure }}" alt="Test accuracy against rounds, and against bytes">
<h2>Summary</h2>
<div class="scroll"><table>
{%- for key, value in summary.items() %}
<tr><td>{{ key }}</td><td>{{ value }}</td></tr>
{%- endfor %}
</table></div>
<h2>Rounds</h2>
<div class="scroll"><table>
<tr>{% for key in columns %}<th>{{ key }}</th>{% endfor %}</tr>
{%- for row in rounds %}
<tr>{% for key in columns %}<td>{{ row[key] }}</td>{% endfor %}</tr>
{%- endfor %}
</table></div>
</body>
</html>
"""


def readable_bytes(n_bytes: float) -> str:
    """Bytes in decimal units, as links and quotas are sold: `1.23 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000 or unit == "GB":
            return f"{n_bytes:.0f} B" if unit == "B" else f"{n_bytes:.2f} {unit}"
        n_bytes /= 1000
    raise AssertionError


def draw_accuracy(rounds: Sequence[Round], title: str) -> bytes:
    """Test accuracy against rounds and against bytes sent both ways, as a PNG file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    by_round, by_bytes = figure.subplots(1, 2, sharey=True)
    accuracy = [100 * row.accuracy for row in rounds]
    sent, total = [], 0
    for row in rounds:
        total += row.bytes_down + row.bytes_up
        sent.append(total / 1e6)
    by_round.plot([row.round for row in rounds], accuracy, marker=".", color="#0b6e4f")
    by_bytes.plot(sent, accuracy, marker=".", color="#c84c09")
    by_round.set(xlabel="round", ylabel="test accuracy (%)")
    by_bytes.set(xlabel="sent in all, both ways (MB)")
    for axes in (by_round, by_bytes):
        axes.grid(alpha=0.3)
        axes.set_ylim(0, 100)
    figure.suptitle(title, fontsize=11)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=130)
    return out.getvalue()


def render_page(
    name: str, summary: Mapping[str, object], rounds: Sequence[Round], figure: bytes
) -> str:
    """A self-contained HTML page of one run."""
    figures = [
        ("test accuracy", f"{100 * float(str(summary['accuracy'])):.1f}%"),
        ("to the nodes", readable_bytes(float(str(summary["bytes_down"])))),
        ("from the nodes", readable_bytes(float(str(summary["bytes_up"])))),
        ("rounds", summary["rounds"]),
        ("clients", summary["clients"]),
    ]
    template = Environment(autoescape=True).from_string(PAGE)
    return template.render(
        style=STYLE,
        name=name,
        figures=figures,
        summary=summary,
        rounds=[vars(row) for row in rounds],
        columns=list(vars(rounds[0])),
        figure=base64.b64encode(figure).decode(),
    )
