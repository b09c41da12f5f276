"""Encoders as the cache remembers them: enough to find embeddings, without an import of torch.

A run over embeddings that are there needs an encoder's digest and the size of its patches, yet no
model; to import torch and to build one takes each process seconds.
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

RECIPE = 2  # counts the ways of making encoders that there have been: what is known of older is not


@dataclass(frozen=True)
class Traits:
    """What `Encoder` calls so."""

    digest: str
    img_px: int
    patch_px: int
    embed_dim: int
    interpolation: str
    note: str


@dataclass(frozen=True)
class KnownEncoder(Traits):
    """An encoder that was made before; `whole` is made when images are to be encoded."""

    spec: EncoderSpec
    cache: Path

    @cached_property
    def whole(self) -> "Encoder":
        """Raises `InputError` where it is no longer the one that was known."""
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
    """What the cache knows of an encoder, or else the encoder; raises as `create_encoder` does."""
    checkpoint_path(spec.weights)  # or torch would be loaded to say so
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
    """The file of an encoder's traits; None for one that only the hub could tell from others."""
    weights = None if spec.weights in ("pretrained", "random") else Path(spec.weights)
    if spec.weights == "pretrained":
        if spec.name not in BUNDLED_ENCODERS:
            return None
        weights = package_file(BUNDLED_ENCODERS[spec.name])
    parts: dict[str, object] = {**asdict(spec), "recipe": RECIPE}
    parts |= {package: version(package) for package in ("torch", "timm")}
    if weights is not None:
        try:
            with weights.open("rb") as file:
                parts["weights"] = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            return None
    return cache / f"encoder-{digest(parts)}.json"
