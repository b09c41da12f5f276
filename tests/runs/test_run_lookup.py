"""One rule for where runs are, in every command: the current folder, then the folder of runs."""

from pathlib import Path

import pytest
from programs import fed_ist
from run_folders import make_run

from fed_ist.errors import InputError
from fed_ist.runs.lookup import look_up


def test_a_name_is_looked_up_folder_by_folder(tmp_path, make_config):
    here, runs = tmp_path / "here", tmp_path / "runs"
    settings = make_config(num_rounds=2)
    make_run(runs, "one", settings)
    make_run(runs, "two", settings)
    make_run(here, "one", settings)
    (here / "two").mkdir()  # of the same name, and no run
    assert look_up(Path("one"), [here, runs]) == here / "one"
    assert look_up(Path("two"), [here, runs]) == runs / "two"
    assert look_up(runs / "one", [here, runs]) == runs / "one"


def test_a_run_that_is_nowhere_is_told_with_what_is_there(tmp_path, make_config):
    for i in range(10):
        make_run(tmp_path / "runs", f"run-{i}", make_config(num_rounds=2))
    with pytest.raises(InputError) as told:
        look_up(Path("absent"), [tmp_path, tmp_path / "runs"])
    text = str(told.value)
    assert text.startswith(
        f"There is no run 'absent', neither in '{tmp_path}' nor in '{tmp_path / 'runs'}'. "
    )
    assert text.count("run-") == 8
    assert "and 2 more" in text


COMMANDS = {
    "predict": ["predict", "absent", "image.png"],
    "report": ["report", "absent"],
    "watch": ["watch", "absent", "--wait-s", "0"],
    "table": ["table", "absent"],
    "plan": ["plan", "absent"],
    "links": ["links", "absent"],
    "resume": ["run", "--resume", "absent"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_at_once_that_a_run_is_nowhere(command, tmp_path, make_config):
    make_run(tmp_path, "another", make_config(num_rounds=2))
    done = fed_ist(*COMMANDS[command], cwd=tmp_path)
    assert done.returncode == 2
    assert "There is no run 'absent', neither in" in done.stderr
    assert "another" in done.stderr
    assert "Traceback" not in done.stderr
