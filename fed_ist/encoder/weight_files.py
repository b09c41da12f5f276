"""Checkpoints of encoders as other projects save them: in dicts, under prefixes, with other models.

The place of an encoder in a file is found by the names of its own weights, not from a list of
prefixes.
"""

import argparse
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from fed_ist.errors import InputError
from fed_ist.files.sealed_tensors import require_unharmed

# Beginnings of the names of further weights that training leaves: of classifiers, MAE's decoder,
# and the projections of contrastive and of clustering methods.
OTHER_WEIGHTS = (
    *("head.", "head_dist.", "fc.", "decoder"),
    *("projector.", "projection_head.", "predictor.", "prototypes."),
)
# Where a file has two encoders, that of DINO and I-JEPA is the slow one, that of MoCo the fast one.
FIRST = ("teacher", "target_encoder")  # words in the names of encoders to prefer
LAST = ("ema", "momentum", "encoder_k")  # words in the names of encoders to avoid


@dataclass(frozen=True)
class EncoderWeights:
    """An encoder as it was found in a file.

    weights: by the encoder's own names; float32 where their dtype is a floating-point one.
    note: a sentence for the user where the file holds several encoders; else empty.
    """

    weights: dict[str, Tensor]
    note: str


@dataclass(frozen=True)
class _Place:
    """A place in a file: the keys of the dicts, and the prefix of names in the innermost dict."""

    keys: str
    prefix: str

    def __str__(self) -> str:
        return f"'{self.keys}{self.prefix}'" if self.keys or self.prefix else "no prefix"


def find_weights(
    path: Path, wanted: Collection[str], classifier: Collection[str] = ()
) -> EncoderWeights:
    """The weights at the place in a file where most of an encoder's names are found.

    wanted: names of the encoder's weights. classifier: names, or their beginnings up to a dot, of a
        classifier on top; these are left out, and so are `OTHER_WEIGHTS`, unless they are wanted.
    Where fewer than half of the names are found in any place, the file has another layout: then all
    weights of its largest dict are given, without the beginning that all their names share. Nothing
    in the file is ever executed. Raises `InputError` where it cannot be read or has no weights.
    """
    states = dict(_states(_read(path), ""))
    if not states:
        raise InputError(f"'{path}' holds no weights. Give a checkpoint of the encoder.")
    places = _places(states, set(wanted))
    most = max(places.values(), default=0)
    if 2 * most < len(wanted):
        weights, note = _unwrapped(max(states.values(), key=len)), ""
    else:
        fitting = sorted((place for place in places if places[place] == most), key=_rank)
        chosen, note = fitting[0], _say_others(path, fitting)
        weights = _below(states[chosen.keys], chosen.prefix)
    others = (*classifier, *OTHER_WEIGHTS)
    if "decoder_embed.weight" in weights:  # an MAE's; DINOv2 has a mask token of another use
        others += ("mask_token",)
    return EncoderWeights(
        {
            name: value.detach().float() if value.is_floating_point() else value
            for name, value in weights.items()
            if name in wanted or not name.startswith(others)
        },
        note,
    )


def require_finite(model: torch.nn.Module, path: Path) -> None:
    """Raise `InputError` where a weight that a file gave a model is not finite."""
    harmed = next((k for k, value in model.named_parameters() if not value.isfinite().all()), None)
    if harmed is None:  # a buffer may well be a mask, of minus infinity
        harmed = next((k for k, value in model.named_buffers() if value.isnan().any()), None)
    if harmed:
        raise InputError(
            f"Checkpoint '{path}' has numbers in '{harmed}' that are not finite. Give one that was "
            "trained at a lower rate, or is not damaged."
        )


def _read(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            require_unharmed(path)
            return load_file(path)
        # Official checkpoints of MAE and DINO also hold the command line, which is plain data.
        torch.serialization.add_safe_globals([argparse.Namespace])
        return torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except Exception as error:  # torch, pickle and safetensors raise many kinds
        raise InputError(
            f"'{path}' cannot be read as a checkpoint ({type(error).__name__}). Give a "
            ".safetensors file, or a .pth file that holds weights and nothing else."
        ) from error


def _states(found: object, keys: str) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Every dict in a file that holds weights, with the keys under which it lies: "teacher."."""
    if not isinstance(found, Mapping):
        return
    named = {key: value for key, value in found.items() if isinstance(key, str)}
    weights = {key: value for key, value in named.items() if isinstance(value, Tensor)}
    if weights:
        yield keys, weights
    for key, value in named.items():
        yield from _states(value, f"{keys}{key}.")


def _places(states: Mapping[str, Mapping[str, Tensor]], wanted: set[str]) -> Counter[_Place]:
    """The number of wanted names that are found in each place, in the order of the file."""
    found: Counter[_Place] = Counter()
    for keys, state in states.items():
        for name in state:
            words = name.split(".")
            for n_prefix in range(len(words)):
                if ".".join(words[n_prefix:]) in wanted:
                    found[_Place(keys, "".join(f"{word}." for word in words[:n_prefix]))] += 1
    return found


def _rank(place: _Place) -> int:
    names = f"{place.keys}{place.prefix}".split(".")
    words = {*names, *(word for name in names for word in name.split("_"))}
    if words.intersection(FIRST):
        return 0
    return 2 if words.intersection(LAST) else 1


def _say_others(path: Path, fitting: list[_Place]) -> str:
    if len(fitting) == 1:
        return ""
    places = [str(place) for place in fitting]
    return (
        f"Checkpoint '{path}' holds the encoder {len(fitting)} times: taken are the weights under "
        f"{places[0]}, not those under {', '.join(places[1:])}."
    )


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)
    }


def _unwrapped(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights without the beginning that all their names share, such as "module.backbone."."""
    while True:
        first = {name.partition(".")[0] for name in state}
        if len(first) > 1 or any("." not in name for name in state):
            return state
        state = _below(state, f"{first.pop()}.")
