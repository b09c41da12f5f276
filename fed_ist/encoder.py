"""The frozen encoder: a ViT that runs on the visible patches alone. The only place that knows timm.

The order is the MAE reference's: embed the patches, add each one's position, then drop the hidden
ones, add the class token, and run the blocks. As only the visible patches are stored, they alone
are embedded, which gives the same tokens. timm's own `PatchDropout` is of no use here: in
evaluation mode it drops nothing.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fed_ist.bundled import package_file
from fed_ist.errors import InputError
from fed_ist.masks import Grid, Indices
from fed_ist.packing import PackedBatch, PackedImages
from fed_ist.rng import torch_seed

VIT_MEAN = (0.485, 0.456, 0.406)
VIT_STD = (0.229, 0.224, 0.225)
BATCH_SIZE = 128

# timm's modules whose models are plain `VisionTransformer`s, or can be.
VIT_FAMILIES = ("timm.models.vision_transformer", "timm.models.deit")


@dataclass(frozen=True)
class VitShape:
    """The architecture of a plain ViT with a class token."""

    img_px: int = 64
    patch_px: int = 8
    embed_dim: int = 192
    depth: int = 8
    num_heads: int = 6


# Names, in a checkpoint of ours, of the mean and deviation of each embedding feature over the
# pre-training images: float32 (2, dim), first of the `cls`, then of the `avg` embedding.
FEATURE_MEAN, FEATURE_STD = "fed_ist.feature_mean", "fed_ist.feature_std"

BUNDLED_ENCODERS: dict[str, tuple[VitShape, str]] = {
    "vit_mae_patch8_64.aid": (VitShape(), "fed_ist/weights/vit_mae_patch8_64.aid.safetensors"),
}


def build_vit(shape: VitShape) -> Any:
    """A timm `VisionTransformer` of this shape, randomly initialised, without a classifier."""
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(
        img_size=shape.img_px,
        patch_size=shape.patch_px,
        embed_dim=shape.embed_dim,
        depth=shape.depth,
        num_heads=shape.num_heads,
        num_classes=0,
    )


class Encoder:
    """A frozen ViT with its preprocessing, pooling and, where known, feature statistics.

    model: a timm `VisionTransformer` with learned absolute positions and square patches.
    pooling: "cls", "avg" (the mean of the visible patch tokens) or "both", concatenated.
    features: the checkpoint's `FEATURE_MEAN` and `FEATURE_STD`. Embeddings are standardised by
        them, as the batch norm in MAE's linear probe does: a head learns several times faster.
    Raises `InputError` where the model or the pooling cannot work on visible patches alone.
    """

    def __init__(
        self,
        name: str,
        model: Any,
        pooling: str,
        mean: Any,
        std: Any,
        features: dict[str, Tensor] | None = None,
    ) -> None:
        self.name = name
        self.pooling = pooling
        self.model = model.eval().requires_grad_(False)
        _check_supported(name, model, pooling)
        self.patch_px = int(model.patch_embed.patch_size[0])
        self.img_px = int(model.patch_embed.img_size[0])
        self.grid: Grid = tuple(model.patch_embed.grid_size)
        self.embed_dim = int(model.embed_dim) * (2 if pooling == "both" else 1)
        self._weight, self._bias = _embedding_of_bytes(model, self.patch_px, mean, std)
        rows = {"cls": [0], "avg": [1], "both": [0, 1]}[pooling]
        features = features or {}
        none = torch.zeros(2, int(model.embed_dim))
        self._feature_mean = features.get(FEATURE_MEAN, none)[rows].flatten()
        self._feature_std = features.get(FEATURE_STD, none + 1)[rows].flatten()

    @cached_property
    def digest(self) -> str:
        """Changes whenever the same patches would get other embeddings."""
        digest = hashlib.sha256(f"{self.name} {self.pooling} {self.img_px}".encode())
        for tensor in (self._weight, self._bias, self._feature_mean, self._feature_std):
            digest.update(tensor.numpy().tobytes())
        for name, value in sorted(self.model.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.contiguous().numpy().tobytes())
        return digest.hexdigest()

    @torch.inference_mode()
    def tokens(self, patches: NDArray[np.uint8], visible: Indices) -> Tensor:
        """Prefix and visible patch tokens after the last norm: float32 (N, prefix + K, dim).

        patches: uint8 (N, K, patch_px * patch_px * 3); visible: int64 (N, K) or (K,).
        """
        model = self.model
        pixels = torch.from_numpy(np.array(patches, dtype=np.float32))
        x = model.patch_embed.norm(torch.nn.functional.linear(pixels, self._weight, self._bias))
        index = torch.from_numpy(np.ascontiguousarray(visible))
        position = model.pos_embed[0]
        prefix = [t[0] for t in (model.cls_token, model.reg_token) if t is not None]
        # Unless `no_embed_class`, the first positions belong to the prefix tokens.
        n_positioned = 0 if model.no_embed_class else model.num_prefix_tokens
        x = x + position[index + n_positioned]
        if prefix:
            first = torch.cat(prefix)
            if n_positioned:
                first = first + position[:n_positioned]
            x = torch.cat([first.expand(len(x), -1, -1), x], dim=1)
        tokens: Tensor = model.norm(model.blocks(model.norm_pre(x)))
        return tokens

    def encode(self, patches: NDArray[np.uint8], visible: Indices) -> NDArray[np.float32]:
        """Embeddings of packed images: float32 (N, embed_dim)."""
        tokens = self.tokens(patches, visible)
        n_prefix = self.model.num_prefix_tokens
        pooled = []
        if self.pooling in ("cls", "both"):
            pooled.append(tokens[:, 0])
        if self.pooling in ("avg", "both"):
            # timm moves the last norm behind an average pooling (`fc_norm`).
            pooled.append(self.model.fc_norm(tokens[:, n_prefix:].mean(dim=1)))
        embeddings = (torch.cat(pooled, dim=1) - self._feature_mean) / self._feature_std
        return embeddings.numpy()

    def encode_packed(
        self, packed: PackedImages
    ) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
        """(embeddings, labels) of a packed file, batch by batch."""
        layout = packed.layout
        if (layout.grid, layout.patch_px) != (self.grid, self.patch_px):
            raise InputError(
                f"'{packed.path}' was packed for a grid of {layout.grid} patches of "
                f"{layout.patch_px} px; encoder '{self.name}' wants {self.grid} of "
                f"{self.patch_px} px. Pack the images again."
            )
        for batch in packed.batches():
            yield from self._in_steps(batch)

    def _in_steps(
        self, batch: PackedBatch
    ) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
        for start in range(0, len(batch.labels), BATCH_SIZE):
            rows = slice(start, start + BATCH_SIZE)
            visible = batch.visible if batch.visible.ndim == 1 else batch.visible[rows]
            yield self.encode(batch.patches[rows], visible), batch.labels[rows]


def _embedding_of_bytes(model: Any, patch_px: int, mean: Any, std: Any) -> tuple[Tensor, Tensor]:
    """The patch embedding as one matrix over raw bytes, with the normalisation folded in.

    conv(((x / 255) - mean) / std) is linear in x; folded, the stored bytes are used as they are.
    Returns weight (dim, patch_px * patch_px * 3), pixels channels last, and bias (dim,).
    """
    kernel = model.patch_embed.proj.weight.detach().double()  # (dim, 3, patch_px, patch_px)
    mean, std = torch.tensor(mean).double(), torch.tensor(std).double()
    scaled = kernel / (255 * std).view(1, 3, 1, 1)
    bias = -(kernel * (mean / std).view(1, 3, 1, 1)).sum(dim=(1, 2, 3))
    if model.patch_embed.proj.bias is not None:
        bias = bias + model.patch_embed.proj.bias.detach().double()
    weight = scaled.permute(0, 2, 3, 1).reshape(len(kernel), -1)
    return weight.float().contiguous(), bias.float()


def _check_supported(name: str, model: Any, pooling: str) -> None:
    from timm.models.vision_transformer import VisionTransformer

    if type(model) is not VisionTransformer or model.pos_embed is None:
        raise _unsupported(name, type(model).__name__)
    if pooling in ("cls", "both") and model.cls_token is None:
        raise InputError(
            f"Encoder '{name}' has no class token, so pooling = '{pooling}' is not possible. "
            "Choose pooling = 'avg'."
        )


def _unsupported(name: str, kind: str) -> InputError:
    return InputError(
        f"Encoder '{name}' is of the kind '{kind}', which cannot run on visible patches alone. "
        "Choose a plain timm VisionTransformer with learned positions, such as "
        f"vit_small_patch16_224, or {', '.join(BUNDLED_ENCODERS)}."
    )


def check_encoder_name(name: str) -> None:
    """Raise `InputError` unless `name` is a bundled encoder or a timm model."""
    if name in BUNDLED_ENCODERS:
        return
    import timm

    if not timm.is_model(name):
        close = timm.list_models(f"*{name.split('.')[0].split('_')[0]}*")[:5]
        hint = f" Similar timm names: {', '.join(close)}." if close else ""
        raise InputError(
            f"Unknown encoder '{name}'. Choose from: {', '.join(BUNDLED_ENCODERS)}, or any timm "
            f"VisionTransformer (timm.list_models('vit*')).{hint}"
        )
    family = timm.models.model_entrypoint(name.split(".")[0]).__module__
    if family not in VIT_FAMILIES:  # said before any weights are fetched
        raise _unsupported(name, family.split(".")[-1])


def create_encoder(name: str, weights: str, pooling: str, seed: int) -> Encoder:
    """Make any encoder: the one place where names become models.

    name: a bundled encoder or a timm model name.
    weights: "pretrained" (bundled, or timm's from the hub), "random" (drawn from `seed`), or the
        path of a checkpoint (.safetensors, .pth) of the same architecture.
    Raises `InputError` for an unknown name, weights that cannot be had, or a checkpoint that does
    not fit.
    """
    check_encoder_name(name)
    torch.manual_seed(torch_seed(seed, "encoder-weights"))
    path = Path(weights) if weights not in ("pretrained", "random") else None
    if name in BUNDLED_ENCODERS:
        shape, bundled = BUNDLED_ENCODERS[name]
        model, mean, std = build_vit(shape), VIT_MEAN, VIT_STD
        if weights == "pretrained":
            path = package_file(bundled)
    else:
        model, mean, std = _timm_model(name, pretrained=weights == "pretrained")
    features = _load_checkpoint(name, model, path) if path else None
    return Encoder(name, model, pooling, mean, std, features)


def _timm_model(name: str, pretrained: bool) -> tuple[Any, Any, Any]:
    import timm
    from timm.data import resolve_model_data_config

    try:
        model = timm.create_model(name, pretrained=pretrained, num_classes=0)
    except Exception as error:  # the hub client raises many kinds when there is no network
        if not pretrained:
            raise InputError(f"timm cannot build encoder '{name}': {error}") from error
        raise InputError(
            f"The weights of encoder '{name}' could not be fetched ({type(error).__name__}). "
            "Check the network, or download them elsewhere and give encoder-weights the path of "
            f"the file, or use the bundled encoder {next(iter(BUNDLED_ENCODERS))}."
        ) from error
    data = resolve_model_data_config(model)
    return model, data["mean"], data["std"]


def _load_checkpoint(name: str, model: Any, path: Path) -> dict[str, Tensor]:
    """Load encoder weights, ignoring classifiers and MAE decoders that a checkpoint may hold.

    Returns the feature statistics, where the checkpoint has them.
    """
    from timm.models import load_state_dict

    if not path.is_file():
        raise InputError(
            f"encoder-weights = '{path}' is not a file. "
            "Give 'pretrained', 'random', or the path of a checkpoint."
        )
    try:
        found = load_state_dict(str(path), use_ema=False, weights_only=True)
    except Exception as error:
        raise InputError(
            f"'{path}' cannot be read as a checkpoint ({type(error).__name__}: {error})."
        ) from error
    features = {key: found.pop(key).float() for key in (FEATURE_MEAN, FEATURE_STD) if key in found}
    wanted = model.state_dict()
    others = ("head", "fc_norm", "decoder", "mask_token")
    found = {k: v for k, v in found.items() if k in wanted or not k.startswith(others)}
    problem = next(
        (f"it lacks '{key}'" for key in wanted if key not in found),
        next(
            (f"it has '{key}', which the encoder has not" for key in found if key not in wanted), ""
        ),
    ) or next(
        (
            f"'{key}' is {tuple(found[key].shape)} there and {tuple(wanted[key].shape)} here"
            for key in wanted
            if found[key].shape != wanted[key].shape
        ),
        "",
    )
    if problem:
        raise InputError(
            f"Checkpoint '{path}' is of another architecture than encoder '{name}': {problem}."
        )
    model.load_state_dict({key: value.float() for key, value in found.items()})
    return features
