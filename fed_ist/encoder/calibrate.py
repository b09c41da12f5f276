"""Calibration of an encoder: the statistics of its embeddings on images without labels.

The result is a checkpoint with the encoder's weights and its features, see `features`, which is
given to a run as `encoder-weights`.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from fed_ist.encoder.backbone import ORIGIN, Backbone, create_backbone
from fed_ist.encoder.embeddings import embed, raw_mask
from fed_ist.encoder.features import Moments, features_of
from fed_ist.encoder.frozen import Encoder, ways_of_pooling
from fed_ist.encoder.spec import BUNDLED_ENCODERS, EncoderSpec, checkpoint_path
from fed_ist.errors import InputError
from fed_ist.files.installed import package_file
from fed_ist.files.sealed_tensors import PLACE, with_checksum
from fed_ist.files.seals import KEY
from fed_ist.images.source import ImageSource


def calibrate(
    spec: EncoderSpec, source: ImageSource, cache: Path, on_skip: Callable[[str], None]
) -> bytes:
    """The checkpoint of an encoder with its features on the whole images of a source.

    spec: its pooling has no part, as the features of all ways are kept. cache: for the embeddings.
    on_skip: called with the reason for each image that cannot be read. Raises `InputError` where
    there are fewer than two images, or the weights cannot be had.
    """
    backbone = create_backbone(spec.name, spec.weights, spec.in_chans, spec.img_px)
    bare = replace(backbone, features={})
    moments = [
        moments_of(replace(spec, pooling=way), bare, source, cache, on_skip)
        for way in ways_of_pooling(backbone.model)
    ]
    weights = {name: _smallest(value) for name, value in backbone.model.state_dict().items()}
    # One entry: safetensors writes several in random order, and equal calls must give equal files.
    about = _about(spec) | {KEY: PLACE.decode()}
    return with_checksum(save(weights | features_of(moments), {ORIGIN: json.dumps(about)}))


def moments_of(
    spec: EncoderSpec,
    bare: Backbone,
    source: ImageSource,
    cache: Path,
    on_skip: Callable[[str], None],
) -> Moments:
    """The sums over a source's embeddings, pooled as the spec says; for the rest see `calibrate`.

    bare: the model without features.
    """
    encoder = Encoder(spec, bare, cache)
    whole = raw_mask(encoder, "fixed", 0.0, channels=source.channels)
    found, _ = embed(source, whole, encoder, cache, on_skip, keep_packed=False)
    if len(found.values) < 2:
        raise InputError("Give two images or more that can be read: one alone does not vary.")
    moments = Moments()
    for start in range(0, len(found.values), 4096):
        moments.add(torch.from_numpy(found.values[start : start + 4096].copy()))
    return moments


def _about(spec: EncoderSpec) -> dict[str, object]:
    """What one of fed-ist's own checkpoints says of itself; empty for another one."""
    if spec.name not in BUNDLED_ENCODERS:
        return {}
    path = checkpoint_path(spec.weights) or package_file(BUNDLED_ENCODERS[spec.name])
    if path.suffix != ".safetensors":
        return {}
    with safe_open(path, framework="pt") as file:
        found: dict[str, object] = json.loads((file.metadata() or {}).get(ORIGIN, "{}"))
    return found


def _smallest(value: Tensor) -> Tensor:
    """A weight in fp16 where that loses nothing, as where it came from a file in fp16."""
    half = value.half()
    exact = value.is_floating_point() and torch.equal(half.to(value.dtype), value)
    return (half if exact else value).contiguous()
