"""What the stages of pre-training learn from: decoded images, and what a teacher makes of them."""

import hashlib
from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from fed_ist.images.source import ImageSource, squares
from fed_ist.pretraining.stages import PretrainConfig
from fed_ist.pretraining.teacher import Teacher
from fed_ist.pretraining.views import Views, ViewSettings, join_views, taught_views, tell_skipped
from fed_ist.rng import generator


def decode_all(source: ImageSource, side_px: int) -> NDArray[np.uint8]:
    """All readable images of a source: uint8 (n, side_px, side_px, C), with a progress bar.

    Raises `InputError` where there are none.
    """
    images: list[NDArray[np.uint8]] = []
    skipped: list[str] = []
    for _, pixels, _ in tqdm(
        squares(source, side_px, skipped.append), total=len(source), desc="decode"
    ):
        images.append(pixels)
    tell_skipped(skipped, len(images))
    return np.stack(images)


def sampled(source: ImageSource, most: int, seed: int) -> ImageSource:
    """The images of a source, or a random choice of `most` of them, in their order; 0: all."""
    if not 0 < most < len(source):
        return source
    chosen = generator(seed, "pretrain-sample").permutation(len(source))[:most]
    return source.subset(np.sort(chosen).astype(np.int64))


class Lessons:
    """What the stages learn from; each is made when it is first asked for.

    out: the folder of the run, where the teacher's outputs are kept.
    """

    def __init__(
        self, sources: Sequence[ImageSource], out: Path, config: PretrainConfig, device: str
    ) -> None:
        self._sources = sources
        self._out = out
        self._config = config
        self._device = device

    @cached_property
    def _decoded(self) -> tuple[NDArray[np.uint8], list[int]]:
        found = [decode_all(source, 2 * self._config.shape.img_px) for source in self._sources]
        return np.concatenate(found), [len(images) for images in found]

    @cached_property
    def _taught(self) -> tuple[Views, list[int]]:
        config, spec = self._config, self._config.teacher
        assert spec is not None  # or there would be no stage that asks
        teacher = Teacher(spec, self._device)
        if teacher.note:
            tqdm.write(teacher.note)
        found = []
        settings = partial(
            ViewSettings,
            img_px=config.shape.img_px,
            min_area=config.distil.min_area,
            seed=config.seed,
        )
        for source, *counts in zip(self._sources, config.n_views, config.n_blends, strict=True):
            found.append(taught_views(source, teacher, settings(*counts), self._out / "teacher"))
        return join_views(found), [len(views) for views in found]

    @property
    def images(self) -> Tensor:
        """The images at twice the side that the encoder takes: uint8 (n, C, S, S)."""
        return torch.from_numpy(self._decoded[0]).permute(0, 3, 1, 2)

    @property
    def views(self) -> Views:
        """The views of the images with the teacher's outputs."""
        return self._taught[0]

    @property
    def sizes(self) -> list[int]:
        """The number of readable images of each data set."""
        return (self._taught if self._config.teacher else self._decoded)[1]

    @cached_property
    def digest(self) -> str:
        """A digest of the pixels of all images, or of their views, and of the data sets' sizes."""
        pixels = self.views.pixels if self._config.teacher else self._decoded[0]
        found = hashlib.sha256(f"{self.sizes} {pixels.shape}".encode())
        found.update(np.ascontiguousarray(pixels).data)
        return found.hexdigest()

    @property
    def whole(self) -> Tensor:
        """The whole images, at least at the side that the encoder takes: uint8 (n, C, S, S)."""
        if self._config.teacher:
            first = self.views.starts[:-1]
            return torch.from_numpy(self.views.pixels[first]).permute(0, 3, 1, 2)
        return self.images
