"""Classify images with the model of a finished run."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from fed_ist.bands import parse_bands, require_rasterio
from fed_ist.encoder import Encoder, create_encoder
from fed_ist.errors import InputError
from fed_ist.images import (
    UnreadableImageError,
    image_files,
    load_file,
    square,
)
from fed_ist.masks import visible_patches
from fed_ist.packing import take_visible
from fed_ist.results import Model
from fed_ist.rng import generator
from fed_ist.training import log_softmax, predict


def open_encoder(model: Model) -> Encoder:
    """The encoder that the model was trained on; raises `InputError` where it is another now."""
    encoder = create_encoder(model.encoder_spec)
    if encoder.digest != model.encoder_digest:
        raise InputError(
            f"The weights of encoder '{model.encoder}' ({model.encoder_weights}) are not those "
            "that this model was trained on. Restore them, or train again."
        )
    return encoder


def classify(
    model: Model, paths: Sequence[Path], on_skip: Callable[[str], None]
) -> Iterator[tuple[Path, str, float]]:
    """(image, class, probability) for each image file, and each in the folders, named.

    The images are masked as in training. What cannot be read is passed to `on_skip` and left out.
    """
    bands = parse_bands(model.bands, model.band_range)
    if bands is not None:
        require_rasterio()
    encoder = open_encoder(model)
    for path in paths:
        files = image_files(path) if path.exists() else []
        if not files:
            on_skip(f"{path}: there is no such file, or no image in the folder")
        for file in files:
            try:
                picture, _ = load_file(file, encoder.img_px, bands)
            except UnreadableImageError as reason:
                on_skip(str(reason))
                continue
            images = square(picture, encoder.img_px, encoder.interpolation)[None]
            rng = generator(model.seed, "mask", 0)
            visible = visible_patches(model.mask, images, encoder.grid, model.mask_ratio, rng)
            embedding = encoder.encode(take_visible(images, encoder.patch_px, visible), visible)
            probability = np.exp(log_softmax(predict(model.params, embedding)))[0]
            best = int(np.argmax(probability))
            yield file, model.class_names[best], float(probability[best])
