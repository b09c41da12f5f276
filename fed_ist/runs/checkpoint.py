"""The checkpoint of a run: what the run needs to go on after its last whole round.

It is replaced whole after each round. It is a safetensors file with a checksum; its metadata hold,
as JSON, the round, plain values, and the seals of the run's other files after that round (see
`fed_ist.runs.seals`).
"""

from collections.abc import Mapping
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fed_ist.classifier.layout import Params
from fed_ist.errors import InputError
from fed_ist.files.atomic import write_atomic
from fed_ist.files.sealed_tensors import load_sealed, save_sealed
from fed_ist.files.seals import Seal
from fed_ist.runs.seals import RunSeals

CHECKPOINT_FILE = "checkpoint.safetensors"
FORMAT = "fed-ist checkpoint 4"
PARAMS = "params/"


@dataclass(frozen=True)
class State:
    """What a strategy remembers from round to round.

    arrays: by name, of any shape and of any dtype that numpy and safetensors share. values: what
    JSON can hold.
    """

    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)

    def under(self, prefix: str) -> dict[str, NDArray[Any]]:
        """The arrays whose names begin with `prefix`, without it; their shapes and dtypes stay."""
        return {k[len(prefix) :]: v for k, v in self.arrays.items() if k.startswith(prefix)}


@dataclass(frozen=True)
class Checkpoint:
    """A run after one of its rounds.

    round: the last one that was completed; 0 before the first. params, state: the classifier and
    the strategy's state after that round, arrays of any shape and dtype. seals: of the run's other
    files after it.
    """

    round: int
    params: Params
    state: State
    seals: RunSeals = field(default_factory=RunSeals)


def write_checkpoint(run: Path, checkpoint: Checkpoint) -> None:
    """Replace the checkpoint in a run's folder."""
    head = {
        "format": FORMAT,
        "round": checkpoint.round,
        "values": checkpoint.state.values,
        "files": {name: astuple(seal) for name, seal in checkpoint.seals.files.items()},
        "own": checkpoint.seals.own,
    }
    arrays = checkpoint.state.arrays | prefixed(PARAMS, checkpoint.params)
    write_atomic(run / CHECKPOINT_FILE, save_sealed(arrays, head))


def remove_checkpoint(run: Path) -> None:
    """Remove the checkpoint of a run that has come to its end."""
    (run / CHECKPOINT_FILE).unlink()


def prefixed(prefix: str, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The arrays under names that begin with `prefix`, which `State.under` takes off again.

    Their shapes and dtypes stay.
    """
    return {f"{prefix}{name}": np.ascontiguousarray(array) for name, array in arrays.items()}


def read_checkpoint(run: Path) -> Checkpoint:
    """The checkpoint of a run; raises `InputError` where there is none, or where it is damaged."""
    path = run / CHECKPOINT_FILE
    if not path.is_file():
        raise InputError(
            f"'{run}' cannot be resumed: there is no '{path}'. It has come to its end, or it was "
            "cut before it began; then start it anew, with another --name."
        )
    arrays, head = load_sealed(path, "no checkpoint of a run", is_old_read=True)
    if (found := head.get("format")) != FORMAT:
        raise InputError(
            f"'{run}' cannot be resumed: its checkpoint is of another version of fed-ist "
            f"({found}). Resume it with that one, or start another run."
        )
    state = State(arrays, head["values"])
    files = {name: Seal(*numbers) for name, numbers in head["files"].items()}
    seals = RunSeals(files, tuple(head["own"]))
    return Checkpoint(head["round"], state.under(PARAMS), state, seals)
