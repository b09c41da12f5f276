"""Flower's log: kept in the run's folder, printed where it is asked for or tells a reason."""

import sys

import pytest

from fed_ist.launch.flower_run import run_and_tell
from fed_ist.launch.run_log import open_run_log


@pytest.mark.parametrize("is_shown", [False, True])
def test_lines_are_kept_and_printed_only_where_that_is_asked_for(tmp_path, capsys, is_shown):
    with open_run_log(is_shown=is_shown) as log:
        for i in range(100):
            log.write(f"line {i}\n")
        log.keep(tmp_path)
        log.print_end()
    lines = [f"line {i}" for i in range(100)]
    assert (tmp_path / "flower.log").read_text().splitlines() == lines
    said = capsys.readouterr()
    assert said.out.splitlines() == (lines if is_shown else [])
    assert said.err.splitlines() == ([] if is_shown else lines[-40:])


def test_the_log_of_a_resumed_run_comes_after_what_was_there(tmp_path):
    for text in ("first\n", "second\n"):
        with open_run_log(is_shown=False) as log:
            log.write(text)
            log.keep(tmp_path)
    assert (tmp_path / "flower.log").read_text() == "first\nsecond\n"


def test_a_run_without_a_folder_keeps_no_log_and_none_is_made(tmp_path):
    with open_run_log(is_shown=False) as log:
        log.write("line\n")
        log.keep(tmp_path / "absent")
    assert list(tmp_path.iterdir()) == []


def test_what_a_terminal_would_obey_is_not_kept(tmp_path):
    with open_run_log(is_shown=False) as log:
        log.write("\x1b[92mINFO\x1b[0m: \x1b]0;owned\x07\n")
        log.keep(tmp_path)
    assert (tmp_path / "flower.log").read_text() == "INFO: \\x1b]0;owned\\x07\n"


def test_both_outputs_of_flower_go_to_the_log(tmp_path, capsys, monkeypatch):
    flwr = tmp_path / "flwr"
    flwr.write_text(
        f"#!{sys.executable}\nimport sys\nprint('Successfully started run 7')\n"
        "print('trouble', file=sys.stderr)\n"
    )
    flwr.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with open_run_log(is_shown=False) as log:
        told = run_and_tell(["run"], {"PATH": f"{tmp_path}:/usr/bin:/bin"}, log)
        log.keep(tmp_path)
    assert told.run_id == "7"
    lines = (tmp_path / "flower.log").read_text().splitlines()
    assert sorted(lines) == ["Successfully started run 7", "trouble"]
    assert capsys.readouterr() == ("", "")
