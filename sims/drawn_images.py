"""Draws a few images to disk, for measurements that need images but not any in particular."""

from pathlib import Path

from PIL import Image

from fed_ist.datasets.scenes import SCENES, draw_scene
from fed_ist.rng import generator

N_CLASSES, N_IMAGES = 4, 8


def draw_images(folder: Path, node: int, n_images: int = N_IMAGES) -> Path:
    """Draw `n_images` of each of `N_CLASSES` classes into a folder, other ones for each node.

    Returns the folder, which has a folder for each class.
    """
    for name in list(SCENES)[:N_CLASSES]:
        (folder / name).mkdir(parents=True)
        for i in range(n_images):
            pixels = draw_scene(name, generator(node, name, i))
            Image.fromarray(pixels).save(folder / name / f"{i:02}.png")
    return folder
