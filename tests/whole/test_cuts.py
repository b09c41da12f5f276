"""Servers that are killed while devices train: the run goes on, and nothing of it is lost."""

import shutil
import time

import pytest
from deployed import Deployed, outcome, settings
from faulty_grid import FaultyGrid

from fed_ist.config.derive import encoder_spec, open_run_data
from fed_ist.encoder.frozen import create_encoder
from sims.server_app import open_run_folder, run

pytestmark = [pytest.mark.flower, pytest.mark.slow]
CHANGES = {
    "num_rounds": 4,
    "hidden_dim": 64,
    "batch_size": 8,
    "local_epochs": 8,
    "anchor": "ridge",
    "round_timeout_s": 60,
}
NODES = {"0": ("beach", "forest"), "1": ("forest", "car-park")}


@pytest.fixture
def place(tmp_path, image_folder):
    for node, classes in (NODES | {"server": ("beach", "car-park", "forest")}).items():
        for name in classes:
            shutil.copytree(image_folder / name, tmp_path / node / name)
    return tmp_path


def uncut_model(place, make_config) -> bytes:
    """The model of the same run where nothing happens, in this process."""
    config = make_config(name="uncut", dataset=str(place / "server"), **CHANGES)
    grid = FaultyGrid(config, [1, 2])
    for name, context in zip(NODES, grid.contexts.values(), strict=True):
        context.node_config = {"data-path": str(place / name), "name": name}
    folder, _ = open_run_folder(config)
    encoder = create_encoder(encoder_spec(config))
    run(grid, config, encoder, open_run_data(config), folder, None)
    return (folder.path / "model.safetensors").read_bytes()


def wait_for_rounds(path, n_rounds):
    deadline = time.monotonic() + 600
    while not path.exists() or path.read_bytes().count(b"\n") < 2 + n_rounds:
        assert time.monotonic() < deadline, f"there were not {n_rounds} rounds"
        time.sleep(0.05)


def test_a_killed_serverapp_and_a_killed_superlink_cost_a_round_and_not_a_bit_of_the_model(
    place, make_config
):
    field = Deployed(place)
    try:
        for name in NODES:
            field.start_node(data_path=place / name, name=name)
        results = place / "results"
        options = settings(dataset=place / "server", results_dir=results, **CHANGES)
        command = field.run("--name", "cut", *options)
        wait_for_rounds(results / "cut" / "rounds.csv", 1)
        field.serverapp().kill()  # between two rounds, as far as the nodes are concerned
        code, said = outcome(command)
        assert (code, "--resume" in said) == (1, True), said

        command = field.run("--resume", str(results / "cut"))
        wait_for_rounds(results / "cut" / "rounds.csv", 2)
        time.sleep(3)  # the nodes train, or have their slices
        field.kill_superlink()
        code, said = outcome(command)
        assert (code, "--resume" in said) == (1, True), said
        field.start_superlink()

        code, said = outcome(field.run("--resume", str(results / "cut")))
        assert code == 0, said + field.log.read_text(errors="replace")
        model = (results / "cut" / "model.safetensors").read_bytes()
    finally:
        field.end()
    assert model == uncut_model(place, make_config)
