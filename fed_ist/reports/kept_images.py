"""A few images of a run as its nodes keep them: what is masked is transparent."""

import io
import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngImageFile, PngInfo

from fed_ist.encoder.embeddings import MaskSpec, choose_patches
from fed_ist.images.decoding import UnreadableImageError
from fed_ist.images.memory import room
from fed_ist.images.packing import patchify, unpatchify
from fed_ist.images.source import ImageSource, square

MOST = 8  # images in a strip
MOST_TRIED = 3  # images of a class, where the first cannot be read
MOST_PX = 128  # of an image's side; larger ones are made smaller
CLASSES = "classes"  # the text in the file that names the class of each image


@dataclass(frozen=True)
class KeptImage:
    """An image as nodes keep it, as a PNG file's bytes. class_name: what it shows."""

    class_name: str
    png: bytes


def draw_kept(source: ImageSource, spec: MaskSpec) -> bytes | None:
    """Up to eight images of a source side by side, as a PNG file's bytes; None where none is read.

    Each is the first readable one of another class; where there are more classes, these are evenly
    spread. Of bands, the first three are taken for red, green and blue, or the first alone.
    """
    known = [i for i in range(len(source.class_names)) if (source.labels == i).any()]
    chosen = [known[i * len(known) // MOST] for i in range(MOST)] if len(known) > MOST else known
    tiles, names = [], []
    for label in chosen:
        for i in np.flatnonzero(source.labels == label)[:MOST_TRIED]:
            if (tile := _tile(source, int(i), spec)) is not None:
                tiles.append(tile)
                names.append(source.class_names[label])
                break
    if not tiles:
        return None
    info = PngInfo()
    info.add_text(CLASSES, json.dumps(names))
    return _png(Image.fromarray(np.concatenate(tiles, axis=1)), info)


def cut_kept(png: bytes) -> list[KeptImage]:
    """The images of a strip that `draw_kept` made; raises `ValueError` for any other file."""
    try:
        strip = Image.open(io.BytesIO(png), formats=["PNG"])
        assert isinstance(strip, PngImageFile)
        names = json.loads(str(strip.text[CLASSES]))
        side = strip.height
        is_strip = isinstance(names, list) and 0 < len(names) <= MOST and side <= MOST_PX
        if not is_strip or strip.width != side * len(names):
            raise ValueError("it is no strip of images")
        squares = [strip.crop((i * side, 0, (i + 1) * side, side)) for i in range(len(names))]
    except (OSError, SyntaxError, LookupError, Image.DecompressionBombError) as error:
        # All of them are what PIL makes of damaged files.
        raise ValueError(str(error)) from None
    return [KeptImage(str(n), _png(image)) for n, image in zip(names, squares, strict=True)]


def _tile(source: ImageSource, i: int, spec: MaskSpec) -> NDArray[np.uint8] | None:
    """An image with what is masked transparent, uint8 (H, W, 4); None where it cannot be read."""
    try:
        with room():
            picture, _ = source.load(i, spec.img_px)
            images = square(picture, spec.img_px, spec.interpolation)[None]
            visible = choose_patches(images, [source.content(i)], spec).ravel()
    except UnreadableImageError:
        return None
    colours = images[..., :3] if images.shape[3] >= 3 else np.repeat(images[..., :1], 3, axis=3)
    opaque = np.full_like(images[..., :1], 255)
    patches = patchify(np.concatenate([colours, opaque], axis=3), spec.patch_px)
    kept = np.zeros_like(patches)
    kept[:, visible] = patches[:, visible]
    tile: NDArray[np.uint8] = unpatchify(kept, spec.grid, spec.patch_px)[0]
    if spec.img_px <= MOST_PX:
        return tile
    return np.asarray(Image.fromarray(tile).resize((MOST_PX, MOST_PX), Image.Resampling.BOX))


def _png(image: Image.Image, info: PngInfo | None = None) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG", pnginfo=info)
    return out.getvalue()
