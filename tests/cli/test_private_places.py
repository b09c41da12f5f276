"""Who may look into what we make: caches and keys are their owner's, and a folder is one run's."""

import os
from pathlib import Path

import pytest
from run_folders import make_run

from fed_ist.cli.outcome import print_outcome
from fed_ist.deploy.certificates import write_certificates
from fed_ist.deploy.node_keys import write_node_key
from fed_ist.errors import InputError
from fed_ist.files.cache import keep
from fed_ist.files.paths import cache_dir, make_cache, require_cache
from fed_ist.launch.flower_run import Ended, run_and_tell
from sims.server_app import conduct


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.fixture
def usual_cache(tmp_path, monkeypatch):
    """The user's own cache, in a home that has none yet, and with a careless umask."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    (tmp_path / "home").mkdir(mode=0o755)
    before = os.umask(0)
    yield cache_dir("")
    os.umask(before)


def test_a_cache_is_made_for_its_owner_alone_with_what_is_missing_above_it(usual_cache):
    keep(usual_cache / "entry", b"x")
    assert mode(usual_cache) == mode(usual_cache.parent) == 0o700
    assert mode(usual_cache.parent.parent) == 0o755  # the home was there


def test_the_usual_cache_that_others_may_enter_is_made_private(usual_cache):
    usual_cache.mkdir(parents=True)
    assert mode(usual_cache) == 0o777
    require_cache(usual_cache)
    assert mode(usual_cache) == 0o700
    assert mode(usual_cache.parent) == 0o777  # which is not ours


def test_a_cache_that_somebody_named_is_private_if_it_is_made_and_theirs_if_it_is_there(
    usual_cache, tmp_path
):
    make_cache(tmp_path / "a" / "b")
    assert mode(tmp_path / "a") == mode(tmp_path / "a" / "b") == 0o700
    (tmp_path / "shared").mkdir(mode=0o775)
    make_cache(tmp_path / "shared")
    assert mode(tmp_path / "shared") == 0o775
    usual_cache.parent.mkdir(parents=True)
    usual_cache.symlink_to(tmp_path / "shared")
    make_cache(usual_cache)
    assert mode(tmp_path / "shared") == 0o775


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
@pytest.mark.parametrize("user", [1, 54321])
def test_a_folder_of_another_user_gets_no_key_whatever_its_mode(user, tmp_path):
    folder = tmp_path / "keys"
    folder.mkdir(mode=0o700)
    os.chown(folder, user, -1)
    for write in (lambda: write_certificates(folder, []), lambda: write_node_key(folder, "a")):
        with pytest.raises(InputError, match=r"belongs to another user .* choose a new folder"):
            write()
    assert not list(folder.iterdir())


def test_the_loser_of_a_race_for_a_name_leaves_the_winner_alone(tmp_path, make_config):
    """Both found the name free; the winner is at its second round."""
    config = make_config(name="mine", encoder_weights="random", num_rounds=5)
    winner = make_run(tmp_path / "results", "mine", config, n_rows=2)
    (winner / "checkpoint.safetensors").write_bytes(b"of the winner")
    before = {path: path.read_bytes() for path in winner.iterdir()}
    with pytest.raises(SystemExit) as end:
        conduct(config.to_mapping(), lambda _: pytest.fail("it began"), is_simulated=True)
    assert end.value.code == 3
    with pytest.raises(InputError, match=r"'mine' before this one began.* another --name") as told:
        print_outcome(winner, Ended(3, is_name_taken=True), is_new=True)
    assert "--resume" not in str(told.value)
    assert {path: path.read_bytes() for path in winner.iterdir()} == before


def test_flowers_log_tells_that_a_name_was_taken(tmp_path, make_config, caplog):
    config = make_config(name="mine", encoder_weights="random")
    make_run(tmp_path / "results", "mine", config)
    with pytest.raises(SystemExit):
        conduct(config.to_mapping(), lambda _: None, is_simulated=True)
    for text, is_taken in (
        (f"ERROR : {caplog.records[-1].getMessage()}\n", True),
        ("Successfully started run 7\n", False),
    ):
        (tmp_path / "log").write_text(text)
        stand_in = tmp_path / "flwr"
        stand_in.write_text(f"#!/bin/sh\ncat '{tmp_path / 'log'}'\n")
        stand_in.chmod(0o755)
        environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
        assert run_and_tell([], environment).is_name_taken is is_taken
