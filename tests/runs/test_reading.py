"""The one reader of a run's folder: how far the run has come, and what it reads of which file."""

import ast
import inspect
import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_folders import ROUNDS, make_run, make_whole_run

from fed_ist.cli import outcome as cli_outcome
from fed_ist.config.run_config import RunConfig
from fed_ist.config.toml import kebab
from fed_ist.encoder.embeddings import Counts
from fed_ist.errors import InputError
from fed_ist.planning import runs as plan_runs
from fed_ist.reports import link_costs, watch
from fed_ist.reports import run as run_report
from fed_ist.reports import table as run_table
from fed_ist.runs import folder as results
from fed_ist.runs import summary as run_summary
from fed_ist.runs.folder import RunFolder
from fed_ist.runs.reading import open_run, read_resumable, read_run
from fed_ist.runs.summary import Course, summarise
from fed_ist.traffic import protocol
from fed_ist.traffic.ledger import Ledger

NODE = {key: float(10 * i) for i, key in enumerate(protocol.PREPARED, start=1)}
COURSE = Course([NODE, NODE], Counts(7, 3, 0, 0, 0), 192, 4, "ridge", "", is_done=True)


def summary_of(tmp_path, config: RunConfig, **changes):
    ledger = Ledger(tmp_path / "ledger.csv")
    return summarise(config, ROUNDS, ledger, Course(**(vars(COURSE) | changes)))


def test_a_summary_holds_nothing_that_the_settings_tell(tmp_path, make_config):
    config = make_config(groups=0)
    told = {kebab(key) for key in summary_of(tmp_path, config)} & set(config.to_mapping())
    assert told == {"groups"}  # where it is 0 in the settings, the summary has what it came to


def test_a_summary_adds_up_nodes_and_rounds(tmp_path, make_config):
    found = summary_of(tmp_path, make_config(strategy="ist"))
    assert (found["accuracy"], found["best_accuracy"], found["rounds"]) == (0.55, 0.6, 2)
    assert (found["asked"], found["answered"], found["rejected"]) == (4, 4, 1)
    assert (found["clients"], found["groups"], found["images"]) == (2, 2, 20)
    assert found["images_skipped"] == 2 * 20 + 3
    assert found["image_bytes_original"] == 2 * 40 / 20


@pytest.mark.parametrize(
    ("is_done", "reason", "state"),
    [(False, "", "running"), (True, "", "finished"), (True, "a limit", "ended-early")],
)
def test_a_run_says_itself_how_far_it_has_come(is_done, reason, state, tmp_path, make_config):
    config = make_config(num_rounds=2)
    folder = RunFolder(tmp_path, "run")
    folder.write_config(config, 2)
    for row in ROUNDS:
        folder.add_round(row)
    (folder.path / "accuracy.png").touch()  # which tells nothing any more
    folder.write_summary(summary_of(tmp_path, config, is_done=is_done, ended_early=reason))
    run = read_run(folder.path)
    assert run.state == state
    assert run.is_finished is is_done
    (folder.path / "error.txt").write_text("The disk is full.\n")
    assert read_run(folder.path).state == "failed"


def test_a_run_of_an_earlier_version_is_done_after_its_last_round_or_with_its_figure(
    tmp_path, make_config
):
    whole = make_run(tmp_path, "whole", make_config(num_rounds=2), with_summary=True)
    cut = make_run(tmp_path, "cut", make_config(num_rounds=5), with_summary=True)
    assert (read_run(whole).state, read_run(cut).state) == ("finished", "running")
    (cut / "accuracy.png").touch()
    (cut / "summary.json").write_text('{"ended_early": "a limit of 5 bytes"}')
    assert read_run(cut).state == "ended-early"


def test_who_needs_one_file_of_a_run_depends_on_no_other(tmp_path, make_config):
    run = make_whole_run(tmp_path, "run", make_config(num_rounds=2), 3)
    for name in ("rounds.csv", "ledger.csv", "summary.json", "images.json"):
        (run / name).write_bytes(b"\xff")
    assert open_run(run).model.class_names == ("beach", "forest")
    assert open_run(run).num_rounds == 2
    with pytest.raises(InputError, match=r"ledger\.csv' is damaged"):
        _ = open_run(run).ledger


def test_to_go_on_with_a_run_each_of_its_files_is_read_once(tmp_path, make_config):
    run = make_whole_run(tmp_path, "run", make_config(num_rounds=5), 2)
    opened: list[str] = []
    is_watched = True

    def note(event, arguments):
        if is_watched and event == "open" and str(arguments[0]).startswith(str(run)):
            opened.append(str(arguments[0])[len(str(run)) + 1 :])

    sys.addaudithook(note)
    try:
        resumed = read_resumable(run)
        seals = resumed.checkpoint.seals
        opened_to_read = list(opened)
        opened.clear()
        Ledger.reopen(run / "ledger.csv", resumed.tables["ledger.csv"], seals.files["ledger.csv"])
        folder = RunFolder.reopen(run, seals, resumed.tables)
        tables = [name for name in opened if name in resumed.tables]
    finally:
        is_watched = False
    assert sorted(opened_to_read) == sorted(set(opened_to_read))
    assert {"checkpoint.safetensors", *resumed.tables} < set(opened_to_read)
    assert sorted(tables) == sorted(resumed.tables)  # to be appended to
    assert [row.round for row in folder.rounds] == [0, 1]


READS = {"read_bytes", "read_text", "open", "reader", "DictReader"}
OTHERS = (results, cli_outcome, watch, run_report, run_table, plan_runs, link_costs, run_summary)


def test_no_other_module_of_runs_opens_a_run_s_files():
    """The writer reads back what it seals, and a report the table that it replaces."""
    found = {}
    for module in OTHERS:
        nodes = ast.walk(ast.parse(inspect.getsource(module)))
        calls = [node.func for node in nodes if isinstance(node, ast.Call)]
        names = {call.attr for call in calls if isinstance(call, ast.Attribute)}
        if reads := sorted(names & READS):
            found[module] = reads
    assert found == {results: ["read_bytes"], run_report: ["read_bytes"]}


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.floats() | st.none()))
def test_figures_that_are_no_numbers_are_null(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("run")
    (path / "summary.json").write_text(json.dumps(values))
    summary = open_run(path).summary
    assert set(summary) == set(values)
    assert json.dumps(summary, allow_nan=False)
