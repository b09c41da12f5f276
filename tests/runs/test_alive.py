"""Whether the process that writes a run is still there, as far as that can be told."""

import json
import socket
import subprocess
import sys

import pytest

from fed_ist.runs.alive import PROCESS, forget_alive, has_died, mark_alive


@pytest.fixture
def ended() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_run_of_a_process_that_goes_on_is_alive(tmp_path):
    mark_alive(tmp_path)
    assert not has_died(tmp_path)
    forget_alive(tmp_path)
    assert list(tmp_path.iterdir()) == []
    forget_alive(tmp_path)


def change(run, **changes: object) -> None:
    mark_alive(run)
    found = json.loads((run / PROCESS).read_text())
    (run / PROCESS).write_text(json.dumps(found | changes))


def test_a_run_has_died_where_its_process_is_gone_or_the_machine_was_started_again(tmp_path, ended):
    change(tmp_path, pid=ended)
    assert has_died(tmp_path)
    change(tmp_path, boot="another")
    assert has_died(tmp_path)


def test_nothing_is_claimed_of_another_host_or_without_a_file_that_can_be_read(tmp_path, ended):
    change(tmp_path, pid=ended, host=f"not-{socket.gethostname()}")
    assert not has_died(tmp_path)
    for text in ("", "[]", "{}", '{"pid": "x", "host": "", "boot": ""}'):
        (tmp_path / PROCESS).write_text(text)
        assert not has_died(tmp_path)
    (tmp_path / PROCESS).unlink()
    assert not has_died(tmp_path)
