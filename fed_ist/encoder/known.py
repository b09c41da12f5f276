"""Encoders as the cache remembers them: enough to find embeddings, without importing torch.

A run whose embeddings are all in the cache needs an encoder's digest and the size of its patches,
but no model; importing torch and building one takes each process seconds.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from fed_ist.encoder.spec import BUNDLED_ENCODERS, EncoderSpec, checkpoint_path
from fed_ist.errors import InputError
from fed_ist.files.cache import digest, keep, recall
from fed_ist.files.installed import package_file

if TYPE_CHECKING:
    from fed_ist.encoder.frozen import Encoder

RECIPE = 3  # the version of our way of making encoders: what the cache has of older ones is stale


@dataclass(frozen=True)
class Traits:
    """The attributes of an `Encoder` that the cache remembers, under the same names."""

    digest: str
    img_px: int
    patch_px: int
    embed_dim: int
    interpolation: str
    decorrelated: bool
    note: str


@dataclass(frozen=True)
class KnownEncoder(Traits):
    """An encoder that was made before; the model itself is made where `whole` is first used."""

    spec: EncoderSpec
    cache: Path

    @cached_property
    def whole(self) -> "Encoder":
        """The encoder with its model; raises `InputError` where its digest is another one now."""
        from fed_ist.encoder.frozen import create_encoder

        encoder = create_encoder(self.spec, self.cache)
        if encoder.digest != self.digest:
            _remember(encoder, _path(self.spec, self.cache))
            raise InputError(
                f"Encoder '{self.spec.name}' is not the one that the cache '{self.cache}' knew, "
                "which it has put right: run this again."
            )
        return encoder


AnyEncoder: TypeAlias = "Encoder | KnownEncoder"


def open_encoder(spec: EncoderSpec, cache: Path) -> AnyEncoder:
    """An encoder as the cache remembers it, or a new one; raises what `create_encoder` raises."""
    checkpoint_path(spec.weights)  # first, as `create_encoder` would load torch before it raises
    path = _path(spec, cache)
    known = _recall(path, spec, cache)
    if known is not None:
        return known
    from fed_ist.encoder.frozen import create_encoder

    encoder = create_encoder(spec, cache)
    _remember(encoder, path)
    return encoder


def _recall(path: Path | None, spec: EncoderSpec, cache: Path) -> KnownEncoder | None:
    kept = recall(path) if path is not None else None
    if kept is None:
        return None
    try:
        return KnownEncoder(**json.loads(kept), spec=spec, cache=cache)
    except (ValueError, TypeError):  # of another version
        return None


def _remember(encoder: "Encoder", path: Path | None) -> None:
    if path is not None:
        traits = {field.name: getattr(encoder, field.name) for field in fields(Traits)}
        keep(path, json.dumps(traits).encode())


def _path(spec: EncoderSpec, cache: Path) -> Path | None:
    """The cache file of an encoder's traits; None where only the hub knows the version of it."""
    weights = None if spec.weights in ("pretrained", "random") else Path(spec.weights)
    if spec.weights == "pretrained":
        if spec.name not in BUNDLED_ENCODERS:
            return None
        weights = package_file(BUNDLED_ENCODERS[spec.name])
    key: dict[str, object] = {**asdict(spec), "recipe": RECIPE}
    key |= {package: version(package) for package in ("torch", "timm")}
    if weights is not None:
        try:
            with weights.open("rb") as file:
                key["weights"] = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            return None
    return cache / f"encoder-{digest(key)}.json"
