"""A run's folder as the data of a report, and that data as parts of a page."""

import csv
import json
import shutil
from itertools import pairwise

import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from run_folders import make_run, make_whole_run

from fed_ist.config.toml import read_defaults
from fed_ist.errors import InputError
from fed_ist.reports.cells import show
from fed_ist.reports.page import Cell, Page, Section, render_html, render_markdown
from fed_ist.reports.run import write_run_report
from fed_ist.reports.run_data import PLACES, collect
from fed_ist.reports.run_sections import build_sections
from fed_ist.reports.svg_axes import linear_ticks, log_ticks
from fed_ist.reports.svg_charts import spread
from fed_ist.runs.reading import read_run


@pytest.fixture
def finished(tmp_path, make_config):
    return make_run(tmp_path, "two", make_config(num_rounds=2))


def report(*paths):
    return collect([read_run(path) for path in paths])


def test_a_run_is_counted_from_its_tables(finished):
    (run,) = report(finished)["runs"]
    assert run["is_finished"]
    assert run["notes"] == []
    figures = run["figures"]
    assert (figures["accuracy"], figures["best_accuracy"], figures["rounds"]) == (0.55, 0.6, 2)
    assert (figures["bytes_down"], figures["bytes_up"]) == (4420, 4040)
    assert (figures["payload_bytes_down"], figures["payload_bytes_up"]) == (4000, 3200)
    assert figures["bytes_per_node"] == 4230
    assert figures["seconds"] == 10.2
    assert [row["bytes_per_node_so_far"] for row in run["rounds"]] == [30, 2130, 4230]


def test_bytes_are_told_by_kind_and_by_node(finished):
    (run,) = report(finished)["runs"]
    assert run["bytes_by_kind"][3] == {
        "kind": "train",
        "direction": "up",
        "messages": 4,
        "payload_bytes": 3200,
        "message_bytes": 4000,
        "link_bytes_down": 800,
        "link_bytes_up": 4800,
        "message_to_payload": 1.25,
    }
    assert run["bytes_by_kind"][0]["message_to_payload"] is None  # no arrays: no ratio
    assert run["bytes_by_node"] == [
        {
            "node": node,
            "messages": 6,
            "payload_bytes_down": 2000,
            "message_bytes_down": 2210,
            "payload_bytes_up": 1600,
            "message_bytes_up": 2020,
            "link_bytes_down": 3700,
            "link_bytes_up": 3600,
            "message_to_payload": 1.175,
        }
        for node in ("0", "1")
    ]


def test_a_run_that_goes_on_is_reported_as_far_as_it_is(tmp_path, make_config):
    path = make_run(tmp_path, "cut", make_config(num_rounds=5), n_rows=2)
    with (path / "rounds.csv").open("a") as file:
        file.write("2,0.7,1.")  # the next line, half written
    (run,) = report(path)["runs"]
    assert not run["is_finished"]
    assert "goes up to round 1 of 5." in run["notes"][0]
    assert run["notes"][1] == "The last line of rounds.csv is cut and left out."
    assert [row["round"] for row in run["rounds"]] == [0, 1]


def test_a_report_on_a_run_that_goes_on_does_not_make_it_a_finished_one(tmp_path, make_config):
    path = make_run(tmp_path, "cut", make_config(num_rounds=5), n_rows=2)
    write_run_report([path], None)
    assert (path / "report.html").exists()
    assert not read_run(path).is_finished


def test_a_run_before_its_first_round_and_one_that_failed_have_a_page(tmp_path, make_config):
    early = make_run(tmp_path, "early", make_config(), n_rows=0)
    assert "nothing was evaluated yet" in report(early)["runs"][0]["notes"][0]
    failed = make_run(tmp_path, "failed", make_config(), n_rows=1)
    (failed / "error.txt").write_text("Too few nodes.\n")
    assert report(failed)["runs"][0]["notes"] == ["The run stopped with an error: Too few nodes."]
    page = write_run_report([early, failed], tmp_path / "out").read_text()
    assert "nothing was evaluated yet" in page
    assert "Too few nodes." in page


def test_columns_that_are_not_known_are_shown_as_well(finished):
    for name, more in (("rounds.csv", "spare_bytes_down"), ("ledger.csv", "spare_bytes")):
        header, *lines = (finished / name).read_text().splitlines()
        text = [f"{header},{more}", *(f"{line},{7 + i}" for i, line in enumerate(lines))]
        (finished / name).write_text("\n".join(text) + "\n")
    data = report(finished)
    assert [row["spare_bytes_down"] for row in data["runs"][0]["rounds"]] == [7, 8, 9]
    # Of the ledger's twelve lines, 7 to 18, node 0 has the downs 7, 11, 15 and the ups 8, 12, 16.
    assert data["runs"][0]["bytes_by_node"][0]["spare_bytes"] == 33 + 36
    headers = {part.title: part.header for part in build_sections(data)}
    assert "spare bytes down" in headers["All rounds"]
    assert "spare bytes" in headers["Bytes of each node"]


def test_a_run_that_a_limit_ended_early_says_so(finished):
    (finished / "accuracy.png").touch()
    (finished / "summary.json").write_text('{"ended_early": "a limit of 5 bytes"}')
    (run,) = report(finished)["runs"]
    assert run["notes"] == ["The run ended after round 2: a limit of 5 bytes."]


def test_a_run_of_an_old_version_without_ledger_still_has_its_bytes(finished):
    (finished / "ledger.csv").unlink()
    (finished / "summary.json").write_text('{"clients": 2}')
    (run,) = report(finished)["runs"]
    assert run["figures"]["bytes_per_node"] == 4230
    assert run["bytes_by_node"] == []
    assert "no ledger.csv" in run["notes"][0]


def test_a_run_of_an_early_version_has_its_seconds_among_the_rounds(finished):
    rounds, times = (
        (finished / name).read_text().splitlines() for name in ("rounds.csv", "times.csv")
    )
    both = [f"{row},{time.split(',')[1]}" for row, time in zip(rounds, times, strict=True)]
    (finished / "rounds.csv").write_text("\n".join(both) + "\n")
    (finished / "times.csv").unlink()
    (run,) = report(finished)["runs"]
    assert [row["seconds"] for row in run["rounds"]] == [9.0, 0.5, 0.7]


def test_what_is_no_number_becomes_null(finished):
    path = finished / "rounds.csv"
    path.write_text(path.read_text().replace("1.25", "nan"))
    page = write_run_report([finished], None).read_text()
    data = json.loads((finished / "report.json").read_text())
    assert data["runs"][0]["rounds"][2]["loss"] is None
    assert "NaN" not in page


def test_several_runs_are_marked_where_they_differ(tmp_path, make_config):
    one = make_run(tmp_path, "one", make_config(num_rounds=2))
    other = make_run(tmp_path, "other", make_config(num_rounds=2, strategy="fedavg", name="x"))
    data = report(one, other)
    assert data["differing"] == ["strategy"]
    parts = {part.title: part for part in build_sections(data)}
    assert [cell.text for cell in parts["Summary"].rows[1]][:3] == ["other", "fedavg", "55.0%"]
    marked = [row[0].text for row in parts["Settings"].rows if row[1].is_marked]
    assert marked == ["strategy"]


def test_of_many_settings_in_which_runs_differ_one_column_tells(tmp_path, make_config):
    changes = {"strategy": "fedavg", "mask_ratio": 0.75, "batch_size": 8, "seed": 5}
    one = make_run(tmp_path, "one", make_config(num_rounds=2))
    other = make_run(tmp_path, "other", make_config(num_rounds=2, **changes))
    summary = {part.title: part for part in build_sections(report(one, other))}["Summary"]
    assert summary.header[1] == "what differs"
    said = {*summary.rows[1][1].text.split(", ")}
    assert said == {"strategy = fedavg", "mask-ratio = 0.75", "batch-size = 8", "seed = 5"}


def test_settings_that_are_not_the_defaults_are_shown_and_the_others_folded(finished):
    parts = {part.title: part for part in build_sections(report(finished))}
    defaults = read_defaults(ROOT / "pyproject.toml")
    shown = {row[0].text: row[1].text for row in parts["Settings"].rows}
    assert shown["num-rounds"] == "2"
    folded = parts["Settings at their defaults, and places"]
    assert folded.is_folded
    named = {row[0].text: row[1].value for row in folded.rows}
    assert not named.keys() & shown.keys()
    assert named.keys() | shown.keys() == defaults.keys()
    assert {key for key, value in named.items() if value != defaults[key]} <= {*PLACES}


def test_what_bytes_were_used_for_adds_up_to_what_was_on_the_link(finished):
    (run,) = report(finished)["runs"]
    uses = {row["use"]: row["bytes"] for row in run["bytes_by_use"]}
    assert uses["classifier to the node"] == 2000
    assert uses["classifier from the node"] == 1600
    assert uses["names and shapes around them"] == 210 + 420
    assert sum(uses.values()) == 3700 + 3600


def test_a_ledger_without_link_bytes_tells_the_uses_of_messages(finished):
    rows = [line.split(",")[:6] for line in (finished / "ledger.csv").read_text().splitlines()]
    (finished / "ledger.csv").write_text("\n".join(map(",".join, rows)) + "\n")
    (run,) = report(finished)["runs"]
    assert sum(row["bytes"] for row in run["bytes_by_use"]) == run["figures"]["bytes_per_node"]


def test_classes_come_the_worst_first_with_what_they_are_taken_for(tmp_path, make_config):
    path = make_whole_run(tmp_path, "run", make_config(num_rounds=2), 3)
    parts = {part.title: part for part in build_sections(report(path))}
    told = [tuple(found.text for found in row) for row in parts["Accuracy by class"].rows]
    assert told == [("forest", "60.0%", "5", "beach 2"), ("beach", "80.0%", "5", "forest 1")]
    page = write_run_report([path], None).read_text()
    for images in (4, 1, 2, 3):
        assert f'data-value="{images}"' in page[page.index('class="matrix') :]


def test_a_run_before_its_end_has_no_confusion(finished):
    parts = {part.title for part in build_sections(report(finished))}
    assert "Accuracy by class" not in parts
    assert "matrix" not in write_run_report([finished], None).read_text().split("<body>")[1]


def test_the_table_of_several_runs_names_each(tmp_path, make_config):
    paths = [make_run(tmp_path, name, make_config(num_rounds=2)) for name in "ab"]
    write_run_report(paths, tmp_path / "out")
    with (tmp_path / "out" / "rounds.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["run"] for row in rows] == ["a", "a", "a", "b", "b", "b"]
    assert rows[4]["accuracy"] == "0.6"


def test_runs_of_one_name_are_told_apart_by_their_place(tmp_path, make_config):
    for parent in ("x", "y"):
        make_run(tmp_path / parent, "same", make_config(num_rounds=2))
    data = report(tmp_path / "x" / "same", tmp_path / "y" / "same")
    assert [run["name"] for run in data["runs"]] == [
        str(tmp_path / parent / "same") for parent in ("x", "y")
    ]


def test_a_run_s_own_table_is_never_overwritten(tmp_path, finished, make_config):
    other = make_run(tmp_path, "other", make_config())
    before = (finished / "rounds.csv").read_bytes()
    with pytest.raises(InputError, match=r"holds a rounds\.csv that is no report's"):
        write_run_report([finished, other], finished)
    with pytest.raises(InputError, match="holds a rounds"):
        write_run_report([other], finished)
    write_run_report([finished], finished)
    assert (finished / "rounds.csv").read_bytes() == before
    with pytest.raises(InputError, match="add --out FOLDER"):
        write_run_report([finished, other], None)


DAMAGES = {
    "no folder": (lambda run: shutil.rmtree(run), "no such folder"),
    "no table": (lambda run: (run / "rounds.csv").unlink(), r"it has no rounds\.csv"),
    "another table": (
        lambda run: (run / "rounds.csv").write_text("a,b\n1,2\n"),
        "its first line lacks round, accuracy",
    ),
    "a word for a number": (
        lambda run: (run / "ledger.csv").write_text(
            "round,node,direction,kind,payload_bytes,message_bytes\n0,0,up,train,many,9\n"
        ),
        "is damaged: line 2 is '0,0,up,train,many,9'",
    ),
    "a short line": (
        lambda run: (run / "rounds.csv").write_text(
            "round,accuracy,loss,bytes_down,bytes_up\n0,0.1\n1,0.2,1,1,1\n"
        ),
        "is damaged: line 2",
    ),
    "no text": (lambda run: (run / "rounds.csv").write_bytes(b"\xff\xfe"), "cannot be read"),
    "half a summary": (lambda run: (run / "summary.json").write_text('{"a'), "is damaged"),
    "a list for a summary": (lambda run: (run / "summary.json").write_text("[1]"), "no JSON obj"),
    "no settings": (lambda run: (run / "config.toml").write_text("a = "), "is damaged"),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_a_damaged_or_foreign_folder_is_one_sentence(finished, case):
    damage, sentence = DAMAGES[case]
    damage(finished)
    with pytest.raises(InputError, match=sentence):
        read_run(finished)


def test_the_page_needs_nothing_else_and_cannot_be_broken_by_names(tmp_path, make_config):
    run = make_run(tmp_path, "x", make_config())
    (run / "error.txt").write_text("</script><script>alert(1)</script>")
    page = write_run_report([run], None).read_text()
    assert "<script>alert" not in page
    assert "http" not in page
    assert page.count("</script>") == 2


def test_a_section_is_told_alike_in_html_and_in_markdown():
    section = Section(
        "Ways",
        lead="To 70%.",
        header=("way", "J"),
        rows=((Cell("ist", "ist"), Cell("7 J", 7.0, "/ways/0/joules")),),
        points=("One.",),
        notes=("A plan.",),
    )
    page = Page("Plan", (section,), ("For all.",), {"ways": [{"joules": 7.0}]})
    html = render_html(page)
    assert '<td data-key="/ways/0/joules" data-value="7.0">7 J</td>' in html
    for text in ("<p>For all.</p>", "<h2>Ways</h2>", "To 70%.", "<li>One.</li>", "A plan."):
        assert text in html
    table = "| way | J |\n| --- | --- |\n| ist | 7 J |"
    told = f"# Plan\n\nFor all.\n\n## Ways\n\nTo 70%.\n\n{table}\n\n- One.\n\nA plan.\n"
    assert render_markdown(page) == told


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("accuracy", 0.5555, "55.5%"),
        ("message_bytes", 1234567, "1.23\xa0MB"),
        ("seconds", 12.34567, "12\xa0s"),
        ("loss", 0.12345, "0.1235"),
        ("loss", 0.00012345, "0.000123"),
        ("image_bytes_raw", 12288.0, "12.29\xa0kB"),
        ("air_s", 4000.0, "1.1\xa0h"),
        ("joules", 189.204, "189"),
        ("rescale", True, "true"),
        ("seconds", None, "-"),
    ],
)
def test_a_value_is_shown_by_what_its_column_is(name, value, text):
    assert show(name, value) == text


@given(st.lists(st.floats(0, 100), min_size=1, max_size=8))
def test_names_beside_lines_do_not_touch_and_stay_within_the_plot(places):
    found = spread(sorted(places), 13.0, 0.0, 120.0)
    assert found[0] >= 0
    assert found[-1] <= 120
    assert all(above - below >= 12.999 for below, above in pairwise(found))


def test_names_beside_lines_that_are_far_apart_stay_where_the_lines_end():
    assert spread([10.0, 50.0, 90.0], 13.0, 0.0, 120.0) == [10.0, 50.0, 90.0]


def test_ticks_are_round_numbers_around_the_values():
    assert linear_ticks(0, 10) == [0, 2, 4, 6, 8, 10]
    assert linear_ticks(3, 17) == [0, 5, 10, 15, 20]
    ticks = linear_ticks(5, 5)
    assert ticks[0] < 5 < ticks[-1]
    assert log_ticks(30, 2e6) == [10, 100, 1000, 10_000, 100_000, 1e6, 1e7]
    assert log_ticks(3, 40) == [2, 5, 10, 20, 50]
