"""How far a run is, as its own command tells it while it goes on."""

import time

from conftest import HANG_S
from run_folders import ROUNDS, make_run

from fed_ist.reports.progress import following, progress_of
from fed_ist.runs.folder import ROUND_COLUMNS
from fed_ist.runs.reading import open_run


def test_progress_has_the_round_the_bytes_so_far_and_the_time_left(tmp_path, make_config):
    run = open_run(make_run(tmp_path, "run", make_config(num_rounds=102)))
    assert progress_of(run).words == "round 2 of 102  55.00%  8.46 kB  1 min left"
    assert progress_of(run, 1).words == "round 0 of 102  10.00%  60 B"  # encoding tells nothing
    assert progress_of(run, 0) is None


def test_the_last_round_leaves_no_time(tmp_path, make_config):
    run = open_run(make_run(tmp_path, "run", make_config(num_rounds=2)))
    assert progress_of(run).words == "round 2 of 2  55.00%  8.46 kB"


def test_rounds_are_told_while_a_run_goes_on_and_all_of_them_at_its_end(tmp_path, make_config):
    said: list[str] = []
    with following(tmp_path / "run", said.append):
        make_run(tmp_path, "run", make_config(num_rounds=2))
        wait_until(lambda: bool(said))
    assert [line.split("  ")[0] for line in said] == [f"round {i} of 2" for i in range(3)]


def test_rounds_from_before_a_run_was_resumed_are_not_told_again(tmp_path, make_config):
    path = make_run(tmp_path, "run", make_config(num_rounds=2), n_rows=2)
    said: list[str] = []
    with following(path, said.append):
        with (path / "times.csv").open("a", newline="") as file:
            file.write("2,0.7\r\n")
        with (path / "rounds.csv").open("a", newline="") as file:
            cells = [str(getattr(ROUNDS[2], name)) for name in ROUND_COLUMNS]
            file.write(",".join(cells) + "\r\n")
    assert [line.split("  ")[0] for line in said] == ["round 2 of 2"]


def test_a_run_that_never_begins_says_nothing(tmp_path):
    said: list[str] = []
    with following(tmp_path / "absent", said.append):
        pass
    assert said == []


def wait_until(holds) -> None:
    deadline = time.monotonic() + HANG_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)
