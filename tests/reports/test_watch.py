"""Following a run: the rounds that are there, those that come, and the end."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import HANG_S, ROOT
from run_folders import make_run

from fed_ist.errors import InputError
from fed_ist.reports.watch import follow, wait_for

LAST = "2,0.55,1.25,2200,2000,2,2,1,3400,3200\r\n"
LAST_TIME = "2,0.7\r\n"


def test_a_finished_run_is_told_at_once(tmp_path, make_config):
    path = make_run(tmp_path, "run", make_config(num_rounds=2))
    said: list[str] = []
    follow(path, said.append)
    assert [line.split()[0] for line in said] == ["round", "0/2", "1/2", "2/2", "finished"]
    assert " ".join(said[2].split()) == "1/2 60.00% 1.100 2.20 kB 2.00 kB 0.5 0.5 s"


def test_the_time_left_is_that_of_the_rounds_so_far(tmp_path, make_config):
    path = make_run(tmp_path, "run", make_config(num_rounds=102))
    (path / "accuracy.png").write_bytes(b"")  # ended early: what is left is told all the same
    said: list[str] = []
    follow(path, said.append)
    assert said[1].endswith("9.0")  # encoding tells nothing about rounds
    assert said[3].endswith("1 min")  # 100 rounds of 0.6 s, the median of 0.5 and 0.7


def test_rounds_are_told_as_they_come(tmp_path, make_config):
    path = make_run(tmp_path, "run", make_config(num_rounds=2), n_rows=2)
    said: list[str] = []
    watcher = threading.Thread(target=follow, args=(path, said.append))
    watcher.start()
    wait_until(lambda: len(said) == 3)
    with (path / "times.csv").open("a", newline="") as file:
        file.write(LAST_TIME)
    with (path / "rounds.csv").open("a", newline="") as file:
        for half in (LAST[:9], LAST[9:]):  # half a line is none yet
            file.write(half)
            file.flush()
            time.sleep(0.6)
    watcher.join(HANG_S)
    assert said[3].split()[:2] == ["2/2", "55.00%"]
    assert said[3].split()[-3:] == ["0.7", "0", "s"]
    assert said[4] == f"finished  {path}"


def test_a_folder_that_comes_later_is_waited_for(tmp_path, make_config):
    make_run(tmp_path, "other", make_config(num_rounds=2))
    said: list[str] = []
    found: list[Path] = []

    def wait() -> None:
        found.append(wait_for(tmp_path / "run", HANG_S, said.append))

    watcher = threading.Thread(target=wait)
    watcher.start()
    wait_until(lambda: bool(said))
    assert said == [
        f"There is no run '{tmp_path / 'run'}'. The runs there: other. "
        f"Waiting {HANG_S:g} s for it to begin."
    ]
    make_run(tmp_path, "run", make_config(num_rounds=2))
    watcher.join(HANG_S)
    assert found == [tmp_path / "run"]


def test_a_folder_that_does_not_come_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match=r"No runs are there\. None began within 0\.1 s"):
        wait_for(tmp_path / "absent", 0.1, lambda _: None)


def test_the_error_of_a_run_is_that_of_its_watcher(tmp_path, make_config):
    path = make_run(tmp_path, "run", make_config(), n_rows=1)
    (path / "error.txt").write_text("Too few nodes.\n")
    with pytest.raises(InputError, match=r"^Too few nodes\.$"):
        follow(path, lambda _: None)


def test_a_run_whose_process_was_killed_is_seen_to_have_died(tmp_path, make_config):
    path = make_run(tmp_path, "run", make_config(num_rounds=9))
    with writer(path) as process:
        said: list[str] = []
        failures: list[InputError] = []

        def watch() -> None:
            try:
                follow(path, said.append)
            except InputError as error:
                failures.append(error)

        watcher = threading.Thread(target=watch)
        watcher.start()
        wait_until(lambda: len(said) == 4)
        assert watcher.is_alive()
        process.kill()  # it stays as a zombie until it is waited for
        watcher.join(HANG_S)
    (died,) = failures
    assert str(died).startswith("The run has died")
    assert f"fed-ist run --resume {path}" in str(died)


@contextmanager
def writer(run: Path) -> Iterator[subprocess.Popen]:
    """A process that writes a run, and does nothing more."""
    code = (
        "import sys, pathlib; from fed_ist.runs.alive import mark_alive; "
        "mark_alive(pathlib.Path(sys.argv[1])); print(flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(run)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout
    process.stdout.readline()
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def fed_ist(*words: object) -> subprocess.CompletedProcess:
    code = "from fed_ist.cli.main import main; main()"
    command = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_commands_print_plain_lines_where_there_is_no_terminal(tmp_path, make_config):
    path = make_run(tmp_path, "run", make_config(num_rounds=2))
    done = fed_ist("watch", path)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 5
    done = fed_ist("report", path)
    assert done.stdout == f"report    {path / 'report.html'}\n"
    for words in (
        ["watch", tmp_path / "absent", "--wait-s", "0"],
        ["report", tmp_path],
        ["report", path, "--out", "/proc/x"],
    ):
        done = fed_ist(*words)
        assert (done.returncode, done.stderr.count("\n"), done.stdout) == (2, 1, "")


def wait_until(holds) -> None:
    deadline = time.monotonic() + HANG_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)
