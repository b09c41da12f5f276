"""What can be wrong with the settings of pre-training, found before any image is read."""

import math
from dataclasses import replace
from pathlib import Path

from fed_ist.encoder.backbone import VitShape, read_shape
from fed_ist.encoder.spec import require_whole_patches
from fed_ist.errors import InputError
from fed_ist.images.masks import count_visible
from fed_ist.pretraining.stages import PretrainConfig
from fed_ist.pretraining.teacher import check_teacher


def check_config(config: PretrainConfig) -> None:
    """Raise `InputError`, in the words of the command's options, for what cannot be trained."""
    _check_shape(config.shape)
    if config.teacher:
        check_teacher(config.teacher, config.shape.in_chans)
    elif config.mae.epochs + config.contrast.epochs == 0:
        raise InputError("--epochs 0 and --tune-epochs 0 leave nothing to train: raise one.")
    n_patches = (config.shape.img_px // config.shape.patch_px) ** 2
    n_visible = count_visible(n_patches, config.mask_ratio)
    if config.mae.epochs and n_visible == n_patches:
        raise InputError(
            f"--mask-ratio {config.mask_ratio} hides none of the {n_patches} patches, and masked "
            "autoencoding restores hidden ones. Raise it, or give --epochs 0."
        )
    for option, stage in (
        ("--learning-rate", config.mae),
        ("--tune-learning-rate", config.contrast),
        ("--distil-learning-rate", config.distil),
    ):
        if not 0 < stage.learning_rate < math.inf:
            raise InputError(
                f"{option} {stage.learning_rate} is not possible: give a number above 0."
            )
    if config.init:
        _check_init(config.init, config.shape)


def _check_shape(shape: VitShape) -> None:
    said = f"--img-px {shape.img_px}"
    require_whole_patches(said, shape.img_px, shape.patch_px, f"--patch-px {shape.patch_px}")
    if shape.embed_dim % shape.num_heads:
        raise InputError(
            f"--embed-dim {shape.embed_dim} is no multiple of --num-heads {shape.num_heads}."
        )


def _check_init(init: str, shape: VitShape) -> None:
    if not Path(init).is_file():
        raise InputError(f"--init '{init}' is not a file. Give a checkpoint, or 'pretrained'.")
    found = read_shape(Path(init))
    if found and replace(found, in_chans=shape.in_chans) != shape:
        raise InputError(
            f"--init '{init}' is an encoder of another shape: give --img-px {found.img_px} "
            f"--patch-px {found.patch_px} --embed-dim {found.embed_dim} --depth {found.depth} "
            f"--num-heads {found.num_heads}."
        )
