"""The frozen encoder, which turns packed masked images into embeddings."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fed_ist.encoder.backbone import (
    Backbone,
    check_encoder_name,
    check_img_px,
    create_backbone,
    may_drop_patches,
)
from fed_ist.encoder.features import FEATURE_COVARIANCE, FLOOR, POWER, feature_maps
from fed_ist.encoder.masked_vit import FilledImage, VisibleVit
from fed_ist.encoder.onnx_export import cached_int8, require_onnx
from fed_ist.encoder.precision import Runner, check_precision, in_bfloat16, in_onnx, in_torch
from fed_ist.encoder.spec import EncoderSpec, checkpoint_path
from fed_ist.errors import InputError
from fed_ist.files.paths import cache_dir, require_cache
from fed_ist.images.masks import Grid, Indices
from fed_ist.prefetch import N_WORKERS, mapped
from fed_ist.rng import torch_seed

if TYPE_CHECKING:
    from fed_ist.images.packing import PackedBatch, PackedImages

# A model without patches of its own gets patches whose side is as near to this as possible.
USUAL_PATCH_PX = 16


class Encoder:
    """A frozen model with its preprocessing.

    cache: the folder where the int8 model is kept; None for the user's cache folder.
    img_px, patch_px: sides of images and patches in pixels. grid: (rows, cols) of patches.
    note: sentences for the user, where the model cannot leave out patches or its file holds several
        encoders; else empty.
    Raises `InputError` where the model does not have this pooling.
    """

    def __init__(self, spec: EncoderSpec, backbone: Backbone, cache: Path | None = None) -> None:
        self._cache = cache or cache_dir("")
        self.spec = spec
        self.interpolation = backbone.interpolation
        self._covariance = backbone.features.get(FEATURE_COVARIANCE)
        model = backbone.model.eval().requires_grad_(False)
        self.img_px = backbone.img_px
        if drops_patches(model):
            _check_pooling(spec, model)
            self.patch_px = int(model.patch_embed.patch_size[0])
            self.grid: Grid = tuple(model.patch_embed.grid_size)
            self.note = backbone.note
            module: nn.Module = _visible_vit(spec, backbone)
        else:
            _check_whole(spec)
            self.patch_px = _patch_px(self.img_px)
            self.grid = (self.img_px // self.patch_px, self.img_px // self.patch_px)
            cannot = (
                f"Encoder '{spec.name}' ({type(model).__name__}) cannot leave out patches: hidden "
                "ones get the mean colour and the whole image is computed, so masking saves bytes "
                "but no time."
            )
            self.note = f"{backbone.note} {cannot}".strip()
            make = partial(
                FilledImage, model, self.grid, self.patch_px, backbone.mean, backbone.std
            )
            module = make()
            if backbone.features:
                dim = self._width(module)
                module = make(feature_maps(backbone.features, dim, [0]))
        self.module = module.eval()
        check_precision(module, spec.precision, spec.name)
        if spec.precision == "int8":
            require_onnx()
        self.embed_dim = self._width(module)

    def _width(self, module: nn.Module) -> int:
        """The number of numbers that a module makes of an image."""
        blank = np.zeros((1, 1, self.patch_bytes), dtype=np.uint8)
        return int(in_torch(module)(blank, np.zeros(1, dtype=np.int64)).shape[1])

    @property
    def decorrelated(self) -> bool:
        """Whether embeddings come decorrelated, as the encoder carries their covariance."""
        return self._covariance is not None

    @property
    def patch_bytes(self) -> int:
        """The bytes of a raw patch."""
        return self.patch_px**2 * self.spec.in_chans

    @cached_property
    def _run(self) -> Runner:
        """The function that computes embeddings; made at its first use, as int8 takes seconds."""
        if self.spec.precision == "fp32":
            return in_torch(self.module)
        assert isinstance(self.module, VisibleVit)  # or `check_precision` would have refused
        if self.spec.precision == "bf16":
            return in_bfloat16(self.module)
        require_cache(self._cache)
        return in_onnx(
            cached_int8(self._cache, self.digest, self.module, self.patch_bytes, self.facts)
        )

    @property
    def facts(self) -> dict[str, object]:
        """How images become this encoder's patches, as values for JSON."""
        return {
            "encoder": self.spec.name,
            "pooling": self.spec.pooling,
            "img_px": self.img_px,
            "patch_px": self.patch_px,
            "channels": self.spec.in_chans,
            "grid": list(self.grid),
            "layout": "bytes of a patch: rows, then columns, then channels; patches numbered from "
            "0, row by row; normalisation is inside",
            "interpolation": self.interpolation,
            "embed_dim": self.embed_dim,
        }

    @cached_property
    def digest(self) -> str:
        """A digest that changes whenever the same patches would get other embeddings."""
        spec = self.spec
        settings = (spec.name, spec.pooling, self.img_px, self.interpolation, spec.precision)
        digest = hashlib.sha256(" ".join(map(str, settings)).encode())
        for name, value in sorted(self.module.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.contiguous().numpy().tobytes())
        # The matrix that follows from it has other last bits on another processor.
        if self._covariance is not None:
            digest.update(f"{POWER} {FLOOR}".encode() + self._covariance.numpy().tobytes())
        return digest.hexdigest()

    def encode(self, patches: NDArray[np.uint8], visible: Indices) -> NDArray[np.float32]:
        """The embeddings of packed images: float32 (N, embed_dim).

        patches: uint8 (N, K, patch_px * patch_px * in_chans); visible: int64 (N, K) or (K,).
        Computed in one thread, since several would give other last bits for a few images.
        """
        n_threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return self._run(patches, visible)
        finally:
            torch.set_num_threads(n_threads)

    def check_fits(self, packed: "PackedImages") -> None:
        """Raise `InputError` where a file was packed for an encoder with other patches."""
        layout = packed.layout
        if (layout.grid, layout.patch_px) != (self.grid, self.patch_px):
            raise InputError(
                f"'{packed.path}' was packed for a grid of {layout.grid} patches of "
                f"{layout.patch_px} px; encoder '{self.spec.name}' wants {self.grid} of "
                f"{self.patch_px} px. Pack the images again."
            )

    def encode_all(
        self, batches: Iterable["PackedBatch"], step: int = 0
    ) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
        """(embeddings float32 (n, embed_dim), labels int64 (n,)) of packed batches, in order.

        step: the number n of images at a time; 0 for the number that suits the processor's caches.
        Each core works on a step of its own, so that none waits for another, and decoding in the
        background slows down one core only. The numbers do not depend on how many cores there are.
        """

        def encode(images: "PackedBatch") -> tuple[NDArray[np.float32], NDArray[np.int64]]:
            return run(images.patches, images.visible), images.labels

        n_threads = torch.get_num_threads()
        run = self._run  # made here, once
        try:
            yield from mapped(
                encode,
                (images for batch in batches for images in in_steps(batch, step)),
                n_ahead=2 * N_WORKERS,
                begin=lambda: torch.set_num_threads(1),
            )
        finally:
            torch.set_num_threads(n_threads)  # MKL keeps one number for the whole process


def in_steps(batch: "PackedBatch", step: int = 0) -> Iterator["PackedBatch"]:
    """A batch in steps of `step` images; 0 for the number that suits the processor's caches."""
    size = step or images_in_step(batch.patches.shape[1])
    for start in range(0, len(batch.labels), size):
        rows = slice(start, start + size)
        visible = batch.visible if batch.visible.ndim == 1 else batch.visible[rows]
        yield replace(
            batch, patches=batch.patches[rows], visible=visible, labels=batch.labels[rows]
        )


# Tokens of all images in a step: more do not fit into the caches, fewer leave the cores idle.
TOKENS_IN_STEP = 2048


def images_in_step(n_visible: int) -> int:
    """The number of images to encode in one step where each keeps `n_visible` patches."""
    return max(1, TOKENS_IN_STEP // (n_visible + 1))


def drops_patches(model: Any) -> bool:
    """Whether a timm model can run on some of its patches without the others.

    For that, each patch must have a position of its own and be embedded from its own pixels only.
    """
    from timm.layers import PatchEmbed
    from timm.models.eva import Eva
    from timm.models.vision_transformer import VisionTransformer

    plain = type(model) in (VisionTransformer, Eva)
    return plain and type(model.patch_embed) is PatchEmbed


def ways_of_pooling(model: Any) -> list[str]:
    """How a model pools: of "cls", "avg" and "map" those it has, in the order of its features."""
    if not drops_patches(model):
        return ["avg"]
    has = {"cls": model.cls_token is not None, "avg": True, "map": model.attn_pool is not None}
    return [way for way in has if has[way]]


def _check_pooling(spec: EncoderSpec, vit: Any) -> None:
    ways = ways_of_pooling(vit)
    if spec.pooling in ways or (spec.pooling == "both" and "cls" in ways):
        return
    choices = ["cls", "avg", "both"] if "cls" in ways else ["avg"]
    choices += ["map"] if "map" in ways else []
    lacks = "attention pooling" if spec.pooling == "map" else "class token"
    raise InputError(
        f"Encoder '{spec.name}' has no {lacks}, so pooling = '{spec.pooling}' is not possible. "
        f"Choose pooling = {' or '.join(repr(choice) for choice in reversed(choices))}."
    )


def _check_whole(spec: EncoderSpec) -> None:
    if spec.pooling != "avg":
        raise InputError(
            f"Encoder '{spec.name}' cannot leave out patches and pools in its own way, so "
            f"pooling = '{spec.pooling}' is not possible. "
            "Choose pooling = 'avg', or a plain vision transformer."
        )


def _patch_px(img_px: int) -> int:
    """The side of the patches for a model that has none of its own."""
    divisors = [side for side in range(1, img_px + 1) if img_px % side == 0]
    return min(divisors, key=lambda side: (abs(side - USUAL_PATCH_PX), side))


def _visible_vit(spec: EncoderSpec, backbone: Backbone) -> VisibleVit:
    vit, features = backbone.model, backbone.features
    if features or spec.pooling != "map":
        ways = ways_of_pooling(vit)
        rows = [ways.index(way) for way in ("cls", "avg", "map") if way in _pooled(spec.pooling)]
        maps = feature_maps(features, int(vit.embed_dim), rows)
    else:
        maps = feature_maps({}, 1, [0])
    return VisibleVit(vit, spec.pooling, backbone.mean, backbone.std, maps)


def _pooled(pooling: str) -> tuple[str, ...]:
    return ("cls", "avg") if pooling == "both" else (pooling,)


def check_encoder(spec: EncoderSpec) -> None:
    """Raise `InputError` for mistakes that show before weights are fetched or images are read.

    These are a missing checkpoint, an unknown name, a pooling that no such model has, and a side of
    images that is not a whole number of patches.
    """
    checkpoint_path(spec.weights)
    check_encoder_name(spec.name)
    if not may_drop_patches(spec.name):
        _check_whole(spec)
    check_img_px(spec.name, spec.weights, spec.in_chans, spec.img_px)


def create_encoder(spec: EncoderSpec, cache: Path | None = None) -> Encoder:
    """The encoder of a spec; for `cache` see `Encoder`.

    Raises `InputError` for an unknown name, weights that cannot be had, a checkpoint that does not
    fit, and a pooling or a side of images that the model does not allow.
    """
    check_encoder(spec)
    torch.manual_seed(torch_seed(spec.seed, "encoder-weights"))
    backbone = create_backbone(spec.name, spec.weights, spec.in_chans, spec.img_px)
    return Encoder(spec, backbone, cache)
