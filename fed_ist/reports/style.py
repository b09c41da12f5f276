"""The style of all pages, for light, dark and paper, and the script that sorts their tables.

Both are text in a module, not files, because the bundle that Flower makes of the app holds modules
only.
"""

# Series differ in colour and in dashes. The colours are Okabe and Ito's, as in curve_figure, which
# colour-blind eyes tell apart; the dark ones of them are lighter on a dark page.
STYLE = """
:root {
  --page: #ffffff; --text: #1a1a1a; --muted: #555555; --line: #d5d5d5; --mark: #fff3c4;
  --hidden: #c9c9c9; --empty: #f3f3f3;
  --s0: #0b6e4f; --s1: #c84c09; --s2: #0072b2; --s3: #a3478a; --s4: #8a6a00; --s5: #222222;
}
@media screen {
  :root { color-scheme: light dark; }
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --page: #16181b; --text: #e8e8e8; --muted: #a9adb2; --line: #3c4045; --mark: #4a3f12;
    --hidden: #3c4045; --empty: #22252a;
    --s0: #4cc79a; --s1: #ff8f50; --s2: #5db7ef; --s3: #e39acb; --s4: #e3c044; --s5: #f0f0f0;
  }
}
* { box-sizing: border-box; }
body {
  font: 16px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem;
  background: var(--page); color: var(--text); overflow-wrap: anywhere;
}
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin: 2rem 0 0.5rem; }
p, ul { max-width: 50rem; }
summary { font-weight: 600; margin: 0.5rem 0; min-height: 1.5rem; cursor: pointer; }
.figures { display: flex; flex-wrap: wrap; gap: 1rem 2.5rem; margin: 0 0 1rem; }
.figures div { display: flex; flex-direction: column-reverse; }
.figures dd { margin: 0; font-size: 1.6rem; font-weight: 600; }
dt, .note, figcaption small { color: var(--muted); }
img { max-width: 100%; background: white; border-radius: 6px; }
.scroll { overflow-x: auto; }
.scroll img { max-width: none; width: max(100%, 44rem); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td {
  padding: 0.2rem 0.8rem 0.2rem 0; text-align: right; vertical-align: top;
  border-bottom: 1px solid var(--line); overflow-wrap: normal;
}
th { vertical-align: bottom; }
.text, th:first-child, td:first-child { text-align: left; }
td:not(.text) { white-space: nowrap; }
td.text { overflow-wrap: anywhere; min-width: 7em; }
.marked { background: var(--mark); font-weight: 600; }
th button {
  font: inherit; color: inherit; background: none; border: 0; padding: 0; cursor: pointer;
  text-align: inherit; min-height: 1.5rem;
}
th button::after { content: "\\00a0↕" / ""; color: var(--muted); }
th[aria-sort="ascending"] button::after { content: "\\00a0↑" / ""; color: inherit; }
th[aria-sort="descending"] button::after { content: "\\00a0↓" / ""; color: inherit; }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 22rem), 1fr));
  gap: 1.5rem 2rem; margin: 1rem 0; }
.wide { grid-column: 1 / -1; }
.strip { list-style: none; display: grid; gap: 0.8rem; margin: 0.5rem 0; padding: 0;
  max-width: 72rem; grid-template-columns: repeat(auto-fill, minmax(4.6rem, 1fr)); }
@media (min-width: 40rem) { .strip { grid-template-columns: repeat(8, minmax(0, 8rem)); } }
.strip li { font-size: 0.85rem; color: var(--muted); text-align: center; line-height: 1.2; }
.strip img { display: block; width: 100%; background: var(--hidden); border-radius: 3px;
  image-rendering: pixelated; margin-bottom: 0.2rem; }
.matrix { display: grid; gap: 1px; font-size: 0.75rem; margin-top: 0.5rem; align-items: stretch;
  grid-template-columns: 8rem repeat(var(--classes), minmax(0, 4rem)); }
.matrix > div { display: contents; }
.matrix [role=rowheader] { overflow: hidden; text-overflow: ellipsis; white-space: nowrap;
  padding-right: 0.4rem; line-height: 1.5rem; }
.matrix [role=columnheader] { display: flex; justify-content: center; align-items: end; }
.matrix [role=columnheader] span { writing-mode: vertical-rl; transform: rotate(180deg);
  white-space: nowrap; }
.matrix [role=cell] { text-align: center; line-height: 1.5rem; min-height: 1.5rem;
  overflow: hidden; background: var(--empty); }
.matrix .heads [role=cell] { background: none; }
.matrix .right { background: color-mix(in srgb, var(--s0) var(--share), var(--empty)); }
.matrix .wrong { background: color-mix(in srgb, var(--s1) var(--share), var(--empty)); }
.matrix .strong { color: var(--page); }
figure { margin: 0; min-width: 0; } figcaption { font-weight: 600; }
figcaption small { display: block; font-weight: 400; }
figure svg { display: block; width: 100%; height: auto; }
figure svg text { font: 12px system-ui, sans-serif; fill: var(--text); }
figure .grid { stroke: var(--line); fill: none; } figure .axis { stroke: var(--muted); fill: none; }
figure .curve { fill: none; stroke-width: 2; stroke-linejoin: round; }
figure .point { stroke: var(--page); stroke-width: 1; }
figure .leader { fill: none; stroke: currentColor; stroke-width: 1; opacity: 0.6; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 0 1rem; margin: 0; padding: 0;
  font-size: 0.85rem; }
.legend svg { display: inline-block; width: 2rem; height: 0.7rem; margin-right: 0.4rem; }
.s0 { color: var(--s0); } .s1 { color: var(--s1); } .s2 { color: var(--s2); }
.s3 { color: var(--s3); } .s4 { color: var(--s4); } .s5 { color: var(--s5); }
.curve { stroke: currentColor; } .point, .bar { fill: currentColor; }
@media (max-width: 40rem) {
  .matrix { grid-template-columns: 6rem repeat(var(--classes), minmax(0, 1fr)); }
  .matrix.many .heads { display: none; }
  .matrix.many [role=cell] { font-size: 0; line-height: 1.1rem; min-height: 1.1rem; }
  .matrix.many [role=rowheader] { line-height: 1.1rem; }
  th, td { padding-right: 0.5rem; }
  td.text { min-width: 4em; } td.text:last-child { min-width: 8em; }
  td.text:first-child { overflow-wrap: break-word; }
  table { font-size: 0.85rem; }
  .cards { width: 100%; font-size: 1rem; }
  .cards thead { display: none; }
  .cards :is(tbody, tr, td) { display: block; }
  .cards tr { border-bottom: 1px solid var(--line); padding: 0.4rem 0; }
  .cards td { border: 0; padding: 0; display: flex; justify-content: space-between; gap: 1rem; }
  .cards td.text { min-width: 0; text-align: right; }
  .cards td::before { content: attr(data-label); color: var(--muted); text-align: left;
    font-weight: 400; flex: none; max-width: 60%; }
}
@media screen {
  .sortable :is(th, td):first-child:not(.marked) {
    position: sticky; left: 0; background: var(--page);
  }
}
@page { margin: 15mm; }
@media print {
  body { margin: 0; padding: 0; max-width: none; font-size: 10pt; }
  .scroll { overflow: visible; }
  table { font-size: 7pt; max-width: 100%; }
  th, td { padding-right: 0.3rem; } td.text { min-width: 4em; }
  .scroll img { width: 100% !important; }
  thead { display: table-header-group; }
  tr, figure { break-inside: avoid; }
  .matrix, .strip { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  .strip { grid-template-columns: repeat(8, 1fr); }
  details { display: none; }
  h2, h3, .lead { break-after: avoid; }
  .plots { grid-template-columns: 1fr 1fr; gap: 1rem; }
  th button::after { content: "" !important; }
}
"""

# Cells are sorted by their data-value, or by the number with which the text begins, or by the text;
# empty cells come last in both directions. A header is a real button, so that the keyboard reaches
# it; its arrow has no name for screen readers, as aria-sort tells the direction.
SCRIPT = r"""
"use strict";
(() => {
  const unit = { B: 1, kB: 1e3, MB: 1e6, GB: 1e9 };
  const read = (cell) => {
    const text = (cell.dataset.value ?? cell.textContent).trim();
    if (["", "-", "never", "unknown"].includes(text)) return null;
    const found = /^([-+]?[\d,]*\.?\d+(?:e[-+]?\d+)?)\s*(B|kB|MB|GB)?(?![\w.:-])/.exec(text);
    return found ? Number(found[1].replaceAll(",", "")) * (unit[found[2]] ?? 1) : text;
  };
  const compare = (a, b) =>
    typeof a === "number" && typeof b === "number"
      ? a - b
      : String(a).localeCompare(String(b), "en", { numeric: true });
  const sort = (table, header, index) => {
    const descending = header.getAttribute("aria-sort") === "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => [read(row.cells[index]), row]);
    rows.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null);
      return descending ? compare(b, a) : compare(a, b);
    });
    body.append(...rows.map(([, row]) => row));
  };
  for (const table of document.querySelectorAll("table.sortable"))
    [...table.tHead.rows[0].cells].forEach((header, index) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...header.childNodes);
      button.addEventListener("click", () => sort(table, header, index));
      header.append(button);
    });
})();
"""
