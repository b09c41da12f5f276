"""Nothing that a user or a node hands in is ever run: there is no pickle that would be read."""

import argparse
import ast
import pickle
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from faulty_grid import silence
from federation import NODES
from flwr.app import Array

from clients.data import EMBEDDINGS, STATE
from fed_ist.encoder.embeddings import load_cached
from fed_ist.encoder.frozen import create_encoder
from fed_ist.encoder.spec import EncoderSpec
from fed_ist.errors import InputError
from fed_ist.pretraining.checkpoints import load_checkpoint
from fed_ist.pretraining.stages import PretrainConfig
from fed_ist.runs import checkpoint
from fed_ist.runs.reading import open_run
from fed_ist.traffic import protocol

PACKAGES = ("fed_ist", "strategies", "clients", "sims")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
UNPICKLERS = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}
WITHOUT_CODE = {"torch.load"}  # where it is told so


class Trap:
    """Leaves a file where it is unpickled."""

    def __init__(self, sprung: Path) -> None:
        self.sprung = sprung

    def __reduce__(self):
        return Path.touch, (self.sprung,)


@pytest.fixture
def trap(tmp_path):
    """A pickle that would be noticed, and is checked to be one that works."""
    sprung = tmp_path / "sprung"
    pickle.loads(pickle.dumps(Trap(sprung)))
    assert sprung.exists()
    sprung.unlink()
    yield Trap(sprung)
    assert not sprung.exists()


def nodes_of(path):
    return ast.walk(ast.parse(path.read_text()))


def imported(path):
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").split(".")[0]


def calls(path):
    """(name as written, keywords) of each call."""
    for node in nodes_of(path):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_can_unpickle(path):
    assert not UNPICKLERS & set(imported(path))
    for name, keywords in calls(path):
        assert "allow_pickle" not in keywords
        assert name not in ("eval", "exec", "torch.jit.load", "load_state_dict")  # timm's
        if name in WITHOUT_CODE:
            assert keywords.get("weights_only") == "True"


def test_what_is_looked_for_is_there():
    """Else the test above would say nothing."""
    found = {name for path in SOURCES for name, _ in calls(path)}
    assert WITHOUT_CODE | {"np.load"} <= found


@pytest.mark.parametrize("ending", ["pth", "pt", "safetensors"])
def test_encoder_weights_are_not_run(ending, trap, tmp_path):
    path = tmp_path / f"weights.{ending}"
    torch.save({"patch_embed.proj.weight": trap}, path)
    if ending == "safetensors":
        path.write_bytes(pickle.dumps(trap))
    with pytest.raises(InputError, match="cannot be read as a checkpoint"):
        create_encoder(EncoderSpec(weights=str(path), pooling="cls", seed=0, in_chans=3))


def test_what_a_command_line_in_a_checkpoint_holds_is_not_run(trap, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"model": {}, "args": argparse.Namespace(lr=trap)}, path)
    with pytest.raises(InputError, match="cannot be read as a checkpoint"):
        create_encoder(EncoderSpec(weights=str(path)))


def test_a_checkpoint_of_pre_training_is_not_run(trap, tmp_path):
    path = tmp_path / "checkpoint.pt"
    torch.save({"config": trap}, path)
    with pytest.raises(InputError, match="cannot be read as a checkpoint"):
        load_checkpoint(path, PretrainConfig(), "cpu")


@pytest.mark.parametrize(("name", "is_array"), [("embeddings.npy", True), ("labels.npy", False)])
def test_cached_embeddings_are_not_run(name, is_array, trap, federate):
    """A node whose cache somebody has changed computes it anew."""
    federation = federate().begin()
    state = federation.grid.contexts[NODES[1]].state.config_records[STATE]
    folder = Path(str(state[EMBEDDINGS]))
    kept = (folder / name).read_bytes()
    if is_array:
        np.save(folder / name, np.array([trap], dtype=object), allow_pickle=True)
    else:
        (folder / name).write_bytes(pickle.dumps(trap))
    assert load_cached(folder) is None
    federation.round(1)
    errors = {r.error.reason for r in federation.received("train").values() if r.has_error()}
    assert errors == {"This node's embeddings are gone from its cache."}
    assert federation.counts.rejected == 1
    federation.round(2)
    assert federation.counts.rejected == 0
    assert (folder / name).read_bytes() == kept


def test_the_model_and_the_checkpoint_of_a_run_are_not_run(trap, tmp_path):
    for name, read in (
        ("model", lambda run: open_run(run).model),
        ("checkpoint", checkpoint.read_checkpoint),
    ):
        (tmp_path / f"{name}.safetensors").write_bytes(pickle.dumps(trap))
        with pytest.raises(InputError, match=f"{name}.safetensors'"):
            read(tmp_path)


def pickled_array(trap, dtype, shape):
    """An array that declares what it likes and holds a pickle, in numpy's format."""
    data = Array(np.zeros(1, np.float32))
    holder = trap.sprung.with_name("object.npy")
    np.save(holder, np.array([trap], dtype=object), allow_pickle=True)
    return Array(dtype=dtype, shape=shape, stype=data.stype, data=holder.read_bytes())


@pytest.mark.parametrize("dtype", ["object", "float32"])
@pytest.mark.parametrize("strategy", ["topk", "fedpft"])
def test_arrays_in_a_reply_are_not_run(strategy, dtype, trap, federate, embedded, caplog):
    name = {"topk": "values", "fedpft": "means"}[strategy]

    def fault(reply, asked):
        arrays = reply.content.array_records[protocol.ARRAYS]
        arrays[name] = pickled_array(trap, dtype, arrays[name].shape)
        return reply

    federate = partial(federate, strategy=strategy, num_rounds=1, cache_dir=embedded)
    courses = []
    for each in (fault, silence):
        federation = federate()
        federation.grid.faults = {NODES[1]: each}
        if strategy == "fedpft":
            federation.grid.faulty_type = protocol.STATISTICS_QUERY
        courses.append(federation.begin().round())
    assert all((courses[0][name] == courses[1][name]).all() for name in courses[1])
    says = "cannot be unpacked" if dtype == "float32" else f"'{name}' is object"
    assert f"of node 1 rejected: '{name}'" in caplog.text  # by its name, its partition
    assert says in caplog.text
