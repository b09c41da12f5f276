"""Whatever ends a run leaves its reason in the run's folder and on the terminal."""

import pathlib

import pytest
import typer
from run_folders import make_run

from fed_ist.cli.outcome import print_outcome
from fed_ist.errors import InputError
from fed_ist.launch.flower_run import Ended
from sims.server_app import conduct

ENDS = {
    KeyboardInterrupt(): "The run was interrupted.",
    SystemExit(0): "told to end: by a signal, or because its SuperLink ended.",
    ConnectionError("refused"): "lost its SuperLink (ConnectionError: refused)",
    MemoryError(): "too little memory",
    KeyError("weights"): "nobody foresaw (KeyError: 'weights'); see traceback.txt",
}


@pytest.mark.parametrize("end", ENDS, ids=lambda end: type(end).__name__)
def test_what_ends_the_servers_app_is_told_in_the_folder_of_the_run(end, make_config, capfd):
    config = make_config(name="cut", encoder_weights="random")

    def open_grid(_):
        raise end

    with pytest.raises(type(end)):
        conduct(config.to_mapping(), open_grid, is_simulated=True)
    folder = make_config().results_dir + "/cut"
    with pathlib.Path(f"{folder}/error.txt").open() as told:
        assert ENDS[end] in told.read()
    with pathlib.Path(f"{folder}/traceback.txt").open() as where:
        assert "open_grid" in where.read()


def test_the_reason_of_a_run_whose_process_was_killed_is_kept_and_how_to_go_on_is_told(
    tmp_path, make_config, capsys
):
    run = make_run(tmp_path, "cut", make_config())
    (run / "checkpoint.safetensors").write_bytes(b"")
    with pytest.raises(typer.Exit) as left:
        print_outcome(run, Ended(137), is_new=True)
    assert left.value.exit_code == 1
    reason = "The run did not finish: its process ended with code 137."
    assert (run / "error.txt").read_text() == f"{reason}\n"
    said = capsys.readouterr().err
    assert f"fed-ist: {reason}\n" in said
    assert f"fed-ist run --resume {run}" in said


def test_a_refused_run_takes_nothing_away_but_what_it_wrote_itself(tmp_path, make_config):
    for is_new, kept in ((True, {"mine.txt"}), (False, {"mine.txt", "error.txt", "rounds.csv"})):
        run = make_run(tmp_path, f"run-{is_new}", make_config(), n_rows=0)
        (run / "mine.txt").write_text("kept")
        (run / "error.txt").write_text("Too few nodes.\n")
        with pytest.raises(InputError, match=r"^Too few nodes\.$"):
            print_outcome(run, Ended(0), is_new=is_new)
        assert kept <= {path.name for path in run.iterdir()}
        assert (run / "rounds.csv").exists() is not is_new
