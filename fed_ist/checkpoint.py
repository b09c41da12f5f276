"""What a run needs to go on after its last round: written after each, whole or not at all.

A safetensors file: the arrays, and in its metadata the round and plain values as JSON.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fed_ist.durable import write_atomic
from fed_ist.errors import InputError
from fed_ist.heads import Params

FILE = "checkpoint.safetensors"
FORMAT = "fed-ist checkpoint 3"
PARAMS = "params/"


@dataclass(frozen=True)
class State:
    """What a strategy remembers from round to round.

    arrays: of any dtype that numpy and safetensors share. values: what JSON can hold.
    """

    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)

    def under(self, prefix: str) -> dict[str, NDArray[Any]]:
        """The arrays whose names begin so, by what follows."""
        return {k[len(prefix) :]: v for k, v in self.arrays.items() if k.startswith(prefix)}


@dataclass(frozen=True)
class Checkpoint:
    """round: the last one that was completed, 0 before the first. params, state: the classifier and
    the strategy's state after it.
    """

    round: int
    params: Params
    state: State


def write_checkpoint(run: Path, checkpoint: Checkpoint) -> None:
    """Replace the checkpoint of a run."""
    head = {"format": FORMAT, "round": checkpoint.round, "values": checkpoint.state.values}
    arrays = checkpoint.state.arrays | prefixed(PARAMS, checkpoint.params)
    write_atomic(run / FILE, save(arrays, metadata={"fed-ist": json.dumps(head)}))


def remove_checkpoint(run: Path) -> None:
    """Of a run that has come to its end."""
    (run / FILE).unlink()


def prefixed(prefix: str, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The arrays under names that `State.under` finds again."""
    return {f"{prefix}{name}": np.ascontiguousarray(array) for name, array in arrays.items()}


def read_checkpoint(run: Path) -> Checkpoint:
    """The checkpoint of a run; raises `InputError` where there is none, or none that is whole."""
    path = run / FILE
    if not path.is_file():
        raise InputError(
            f"'{run}' cannot be resumed: there is no '{path}'. It has come to its end, or it was "
            "cut before it began; then start it anew, with another --name."
        )
    try:
        with safe_open(path, framework="numpy") as file:
            head = json.loads(file.metadata()["fed-ist"])
            if head["format"] != FORMAT:
                raise ValueError(f"its format is {head['format']!r}")
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            state = State(arrays, dict(head["values"]))
            return Checkpoint(int(head["round"]), state.under(PARAMS), state)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"'{path}' is cut short or no checkpoint of a run ({error}).") from None
