"""How fast this machine encodes masked images."""

import time
from collections.abc import Iterator

import numpy as np

from fed_ist.encoder import create_encoder
from fed_ist.masks import visible_patches
from fed_ist.packing import take_visible
from fed_ist.rng import generator

RATIOS = (0.0, 0.25, 0.5, 0.75, 0.9)


def encoding_speed(
    name: str, weights: str, batch_size: int, seconds: float
) -> Iterator[tuple[float, float]]:
    """(mask_ratio, images encoded in a second), from packed patches to embeddings."""
    encoder = create_encoder(name, weights, "avg", 0)
    rng = generator(0, "bench")
    side = encoder.img_px
    images = rng.integers(0, 256, (batch_size, side, side, 3), dtype=np.uint8)
    for mask_ratio in RATIOS:
        visible = visible_patches("fixed", images, encoder.grid, mask_ratio, rng)
        patches = take_visible(images, encoder.patch_px, visible)
        encoder.encode(patches, visible)  # the first call allocates
        n_batches, started = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - started) < seconds:
            encoder.encode(patches, visible)
            n_batches += 1
        yield mask_ratio, n_batches * batch_size / elapsed
