"""The views from which a student learns: each image and crops of it, with a teacher's outputs.

The teacher sees the same view at its own, larger side. That takes longest of all, so it is done
once and kept in a folder, one view of a part of the images at a time: a run that is cut loses one
of these at most. Each is found by what it was made from (the teacher and the pixels that it sees),
so it is computed again exactly when one of these changes.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from fed_ist.errors import InputError
from fed_ist.files.atomic import sweep, write_atomic
from fed_ist.files.sealed_tensors import load_sealed, save_sealed
from fed_ist.files.seals import DamagedError
from fed_ist.images.decoding import RGB, UnreadableImageError
from fed_ist.images.memory import room
from fed_ist.images.source import ImageSource
from fed_ist.prefetch import mapped
from fed_ist.pretraining.blends import Blend, blended, draw_blend
from fed_ist.pretraining.boxes import WHOLE, Boxes, crops_of, random_box
from fed_ist.pretraining.teacher import Teacher
from fed_ist.rng import generator

PART = 256  # images
PART_BYTES = 1 << 28  # of one view of these, as the teacher sees it


@dataclass(frozen=True)
class ViewSettings:
    """How views are cut.

    n_views: of an image; the first is all of it, the others are crops. n_blends: of an image, crops
    of it blended with such of others. img_px: side for the student. min_area: of a crop, as a share
    of the image's largest square.
    """

    n_views: int
    n_blends: int
    img_px: int
    min_area: float
    seed: int


@dataclass(frozen=True)
class Views:
    """The views of some images, those of an image one after another, and the teacher's outputs.

    pixels: uint8 (n_views, img_px, img_px, 3). outputs: float16 (n_views, output_dim).
    starts: int64 (n_images + 1,); image i has the views from starts[i] up to starts[i + 1].
    """

    pixels: NDArray[np.uint8]
    outputs: NDArray[np.float16]
    starts: NDArray[np.int64]

    def __len__(self) -> int:
        """The number of images."""
        return len(self.starts) - 1


def join_views(parts: Sequence[Views]) -> Views:
    """The views of all images of several sets, one set after another."""
    counts = np.concatenate([np.diff(part.starts) for part in parts])
    return Views(
        np.concatenate([part.pixels for part in parts]),
        np.concatenate([part.outputs for part in parts]),
        np.concatenate([[0], np.cumsum(counts)]),
    )


def taught_views(
    source: ImageSource, teacher: Teacher, settings: ViewSettings, folder: Path
) -> Views:
    """The views of all readable images of a source, with a progress bar.

    folder: for the parts that are kept. Raises `InputError` where no image can be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sweep(folder)
    skipped: list[str] = []
    pixels, outputs = [], []
    with tqdm(total=len(source), desc="teacher", unit="image") as bar:
        cut = cut_views(source, teacher.img_px, settings, skipped)
        size = min(PART, max(1, PART_BYTES // (teacher.img_px**2 * RGB)))
        while images := list(islice(cut, size)):
            small, large = (np.stack(side) for side in zip(*images, strict=True))
            each = [_outputs(large[:, view], teacher, folder) for view in range(large.shape[1])]
            pixels.append(small.reshape(-1, *small.shape[2:]))
            outputs.append(np.stack(each, axis=1).reshape(len(pixels[-1]), -1))
            bar.update(len(images))
    tell_skipped(skipped, len(pixels))
    found, n_each = np.concatenate(pixels), settings.n_views + settings.n_blends
    return Views(found, np.concatenate(outputs), np.arange(0, len(found) + 1, n_each))


def tell_skipped(skipped: list[str], n_read: int) -> None:
    """Say how many images could not be read; raise `InputError` where none could.

    skipped: the reason for each. n_read: how many were read, or parts of them.
    """
    if skipped:
        tqdm.write(f"skipped {len(skipped)} unreadable images, the first: {skipped[0]}")
    if not n_read:
        raise InputError("None of the images could be decoded, so there is nothing to train on.")


def _outputs(large: NDArray[np.uint8], teacher: Teacher, folder: Path) -> NDArray[np.float16]:
    """The teacher's outputs of one view of each image of a part, kept or computed.

    large: the views as the teacher sees them. Returns float16 (n, output_dim).
    """
    made_of = hashlib.sha256(teacher.digest.encode() + str(large.shape).encode())
    made_of.update(np.ascontiguousarray(large).data)
    path = folder / f"{made_of.hexdigest()[:32]}.safetensors"
    if path.exists():
        try:
            kept: NDArray[np.float16] = load_sealed(path, "no outputs of a teacher")[0]["outputs"]
            return kept
        except (DamagedError, KeyError):
            pass  # they are computed anew
    outputs = teacher.outputs(large)
    write_atomic(path, save_sealed({"outputs": outputs}, {}))
    return outputs


def cut_views(
    source: ImageSource, teacher_px: int, settings: ViewSettings, skipped: list[str]
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """The views of each readable image, then its blends, for the student and for the teacher.

    Each is uint8 (n_views + n_blends, side, side, 3), with sides of `settings.img_px` and
    `teacher_px`. skipped: gets the reason for each image that cannot be read.
    """
    sides = settings.img_px, teacher_px
    least_px = math.ceil(max(sides) / math.sqrt(settings.min_area))

    def cut(i: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]] | UnreadableImageError:
        blends = draw_blends(settings, i, len(source))
        boxes = np.concatenate([draw_boxes(settings, i), *([blend.box] for blend in blends)])
        try:
            with room():
                picture, _ = source.load(i, least_px)
                small, large = (crops_of(picture, boxes, side) for side in sides)
        except UnreadableImageError as reason:
            return reason
        for at, blend in enumerate(blends, start=settings.n_views):
            try:
                with room():
                    other, _ = source.load(blend.partner, least_px)
                    box = np.array([blend.partner_box])
                    small[at] = blended(small[at], crops_of(other, box, sides[0])[0], blend)
                    large[at] = blended(large[at], crops_of(other, box, sides[1])[0], blend)
            except UnreadableImageError:
                pass  # it is counted in its own turn, and this view stays the crop of one image
        return small, large

    for found in mapped(cut, range(len(source))):
        if isinstance(found, UnreadableImageError):
            skipped.append(str(found))
        else:
            yield found


def draw_boxes(settings: ViewSettings, i: int) -> Boxes:
    """The views of image `i`, float64 (n_views, 4): the whole square, then random boxes of it."""
    rng = generator(settings.seed, "teacher-views", i)
    crops = [random_box(rng, settings.min_area) for _ in range(settings.n_views - 1)]
    return np.array([WHOLE, *crops])


def draw_blends(settings: ViewSettings, i: int, n_images: int) -> list[Blend]:
    """The blends of image `i`, each with one of n_images."""
    rng = generator(settings.seed, "teacher-blends", i)
    return [draw_blend(rng, n_images, settings.min_area) for _ in range(settings.n_blends)]
