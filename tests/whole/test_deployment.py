"""A deployed federation: a SuperLink and SuperNodes as processes, each node with its own images."""

import csv
import json
import shutil

import pytest
from deployed import Deployed, outcome, settings

pytestmark = pytest.mark.flower


@pytest.fixture
def field(tmp_path, image_folder):
    """Two nodes that know different classes, one of them a class that the server does not."""
    for node, classes in {"a": ("beach", "forest"), "b": ("forest", "car-park")}.items():
        for name in classes:
            shutil.copytree(image_folder / name, tmp_path / node / name)
    shutil.copytree(image_folder / "farmland", tmp_path / "a" / "unheard-of")
    for name in ("beach", "car-park", "forest"):
        shutil.copytree(image_folder / name, tmp_path / "server" / name)
    field = Deployed(tmp_path)
    field.start_node(data_path=tmp_path / "a", name="north")
    field.start_node(data_path=tmp_path / "b")
    yield field
    field.end()


def test_nodes_with_their_own_folders_train_together(field, tmp_path):
    results = tmp_path / "results"
    options = settings(
        dataset=tmp_path / "server",
        results_dir=results,
        num_rounds=3,
        round_timeout_s=60,
        hidden_dim=64,
        batch_size=8,
        local_epochs=8,
        anchor="ridge",
        label_skew="calibrate",
        proximal=0.1,
        down_codec="int8",
        up_codec="int4",
        reply="update",
        statistics_codec="fp16",
        zstd="true",
    )
    code, said = outcome(field.run("--name", "deployed", *options))
    assert code == 0, said + field.log.read_text(errors="replace")
    summary = json.loads((results / "deployed" / "summary.json").read_text())
    assert (summary["clients"], summary["rounds"]) == (2, 3)
    assert summary["images"] == 48
    assert summary["images_of_unknown_classes"] == 12
    assert summary["accuracy"] > 0.5
    assert f"results     {results / 'deployed'}" in said
    with (results / "deployed" / "ledger.csv").open() as file:
        lines = list(csv.DictReader(file))
    kinds = [(line["kind"], line["direction"]) for line in lines]
    assert kinds.count(("statistics", "up")) == 2  # once from each node
    assert kinds.count(("train", "up")) == 6
    assert "north" in {line["node"] for line in lines}
