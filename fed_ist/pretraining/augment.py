"""Random views of images for pre-training."""

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from fed_ist.pretraining.boxes import random_box

GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601


def crops(images: Tensor, img_px: int, min_area: float, rng: torch.Generator) -> Tensor:
    """One random crop of each image, resized, flipped and turned: uint8 (N, C, img_px, img_px).

    Turns are quarter turns, as images seen from above have no upper side. images: uint8
    (N, C, S, S). min_area: of a crop, as a share of the image.
    """
    draw = numpy_rng(rng)
    out = []
    for image in images:
        box = np.multiply(random_box(draw, min_area), images.shape[-1])
        left, top, right, bottom = box.round().astype(int).tolist()
        out.append(
            transforms.resized_crop(
                image, top, left, bottom - top, right - left, [img_px, img_px], antialias=True
            )
        )
    return turned(torch.stack(out), rng)


def numpy_rng(rng: torch.Generator) -> np.random.Generator:
    """A stream of numpy's that follows from one of torch's, which goes on."""
    return np.random.default_rng(int(torch.randint(2**62, (1,), generator=rng)))


def turned(images: Tensor, rng: torch.Generator) -> Tensor:
    """The images, each in one of the eight ways to turn and flip a square: as `images`.

    images: (N, C, S, S), of any dtype.
    """
    way = torch.randint(8, (len(images),), generator=rng)
    out = torch.empty_like(images)
    for i in range(8):
        some = torch.rot90(images[way == i], i % 4, (2, 3))
        out[way == i] = some.flip(3) if i >= 4 else some
    return out


def recolour(images: Tensor, strength: float, rng: torch.Generator) -> Tensor:
    """The images with random brightness, contrast, saturation and tint; one in ten becomes grey.

    images: float (N, C, H, W) in [0, 1], as the result. Where C is not 3, saturation and grey have
    no meaning, and only brightness, contrast and the tint of channels change.
    """
    n, channels = images.shape[:2]

    def factors(width: int, spread: float) -> Tensor:
        return 1 + spread * (2 * torch.rand(n, width, 1, 1, generator=rng) - 1)

    images = images * factors(1, strength)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    images = (images - mean) * factors(1, strength) + mean
    if channels == 3:
        grey = (images * torch.tensor(GREY).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
        keep = (torch.rand(n, 1, 1, 1, generator=rng) >= 0.1).to(images.dtype)
        images = (images - grey) * (factors(1, strength) * keep) + grey
    return (images * factors(channels, strength / 4)).clamp(0, 1)
