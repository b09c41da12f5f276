"""`fed_ist.embed`: the embeddings of images, as a node of a run computes them."""

from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fed_ist.datasets.data_set import open_all
from fed_ist.encoder.embeddings import embed as embed_source
from fed_ist.encoder.embeddings import raw_mask
from fed_ist.encoder.frozen import create_encoder
from fed_ist.encoder.spec import BUNDLED_ENCODER, EncoderSpec
from fed_ist.errors import InputError
from fed_ist.files.paths import cache_dir
from fed_ist.images.arrays import array_source
from fed_ist.images.source import ImageSource

Images = str | Path | Sequence[NDArray[np.uint8] | Image.Image]


def embed(
    images: Images,
    *,
    encoder: str = BUNDLED_ENCODER,
    weights: str = "pretrained",
    pooling: str = "cls",
    precision: str = "fp32",
    mask: str = "fixed",
    mask_ratio: float = 0.5,
    seed: int = 0,
) -> NDArray[np.float32]:
    """The embeddings of images of which some patches are dropped: float32 (n, embed_dim).

    images: the path of a folder, a table or an image; or images in memory, each uint8
    (height, width, 3), or a PIL image. The other arguments are named as the settings of a run.
    What was embedded from a path is kept in the cache. Raises `InputError` for what is not
    possible, and for an image that cannot be read: no row of the result is left out.

    >>> import numpy as np, fed_ist
    >>> fed_ist.embed(np.zeros((2, 96, 96, 3), np.uint8), mask_ratio=0.75).shape
    (2, 192)
    """
    source = source_of(images)
    model = create_encoder(EncoderSpec(encoder, weights, pooling, seed, precision=precision))
    spec = raw_mask(model, mask, mask_ratio, channels=source.channels, seed=seed)
    found, _ = embed_source(source, spec, model, cache_dir(""), refuse, keep_packed=False)
    return np.array(found.values)


def source_of(images: Images) -> ImageSource:
    """Images as a source: by a path, or in memory, each uint8 (height, width, 3) or a PIL image."""
    return open_all(str(images)) if isinstance(images, str | Path) else array_source(images)


def refuse(reason: str) -> NoReturn:
    """Raise `InputError`: where images are rows of a result, none may be left out."""
    raise InputError(f"{reason} Leave it out, as each image is a row of the result.")
