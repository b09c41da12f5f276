"""Classify images with the model of a finished run."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from fed_ist.datasets.data_set import open_all
from fed_ist.encoder.embeddings import choose_patches, raw_mask
from fed_ist.encoder.frozen import Encoder, create_encoder
from fed_ist.errors import InputError
from fed_ist.images.bands import require_rasterio
from fed_ist.images.decoding import UnreadableImageError
from fed_ist.images.memory import room
from fed_ist.images.packing import take_visible
from fed_ist.images.source import NO_CLASSES, ImageSource, square
from fed_ist.printable import printable
from fed_ist.runs.folder import Model
from fed_ist.training.local import log_softmax, predict


def encoder_of(model: Model) -> Encoder:
    """The encoder that a model was trained on; raises `InputError` where its weights changed."""
    encoder = create_encoder(model.encoder_spec)
    if encoder.digest != model.encoder_digest:
        raise InputError(
            f"The weights of encoder '{model.encoder}' ({model.encoder_weights}) are not those "
            "that this model was trained on. Restore them, or train again."
        )
    return encoder


def require_fit(model: Model, embed_dim: int) -> None:
    """Raise `InputError` where the classifier does not fit the embeddings or the class names.

    A model of an earlier version has no checksum by which damage would be found.
    """
    try:
        shape = predict(model.params, np.zeros((1, embed_dim), np.float32)).shape
    except (LookupError, TypeError, ValueError, AssertionError) as error:
        raise InputError(f"The classifier of this model is damaged ({error}).") from None
    if shape != (1, len(model.class_names)):
        raise InputError(
            f"The classifier of this model tells {shape[-1]} classes apart, and the model names "
            f"{len(model.class_names)}: it is damaged."
        )


@dataclass(frozen=True)
class Classified:
    """What a model makes of an image.

    name: of the image, printable. probabilities: of the model's classes, float32 (num_classes,).
    truth: the image's class by its folder or table; empty where it has none that the model knows.
    """

    name: str
    probabilities: NDArray[np.float32]
    truth: str


def classify(
    model: Model, paths: Sequence[Path], on_skip: Callable[[str], None]
) -> Iterator[Classified]:
    """What the model makes of each image, in the order of the paths.

    paths: image files, folders and tables; of the latter two every image is taken. The images are
    masked as in training. What cannot be read is left out, and `on_skip` is told why.
    """
    encoder = open_fitting(model)
    for path in paths:
        try:
            source = open_all(str(path), model.reading, no_class=-1)
        except InputError as reason:
            on_skip(str(reason))
            continue
        yield from classify_source(model, encoder, source, on_skip)


def open_fitting(model: Model) -> Encoder:
    """The encoder of a model whose classifier fits it; raises `InputError` where one does not."""
    if model.reading.bands is not None:
        require_rasterio()
    encoder = encoder_of(model)
    require_fit(model, encoder.embed_dim)
    return encoder


def classify_source(
    model: Model, encoder: Encoder, source: ImageSource, on_skip: Callable[[str], None]
) -> Iterator[Classified]:
    """What the model makes of each image of a source; for `on_skip` see `classify`.

    encoder: the model's own.
    """
    spec = raw_mask(
        encoder,
        model.mask,
        model.mask_ratio,
        channels=model.reading.n_channels,
        seed=model.seed,
    )
    for i in range(len(source)):
        try:
            with room():
                picture, _ = source.load(i, encoder.img_px)
                images = square(picture, encoder.img_px, encoder.interpolation)[None]
        except UnreadableImageError as reason:
            on_skip(str(reason))
            continue
        visible = choose_patches(images, [source.content(i)], spec)
        embedding = encoder.encode(take_visible(images, encoder.patch_px, visible), visible)
        with threadpool_limits(1, user_api="blas"):  # as where the run was evaluated
            probabilities = np.exp(log_softmax(predict(model.params, embedding)))[0]
        yield Classified(source.name(i), probabilities, _truth(source, i, model.class_names))


def _truth(source: ImageSource, i: int, class_names: Sequence[str]) -> str:
    """The class of an image by its table or its folder; empty where it is none of these."""
    label = int(source.labels[i])
    if source.class_names != NO_CLASSES and label >= 0:
        told = source.class_names[label]
        return told if told in class_names else ""
    folder = Path(source.name(i)).parent.name
    return next((name for name in class_names if printable(name) == folder), "")
