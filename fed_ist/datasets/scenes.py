"""`scenes`: a procedural data set of ten land-cover classes, for runs without a download.

Every image is drawn from its own random stream, so image i is the same on every node, and a node
draws its own images only. Within a class the scale, rotation, palette, light, clutter and noise
vary, classes share textures (fields along a river, trees between houses), and most images show a
part of another class, so that accuracy is neither trivial nor saturated.

Each class has a function that draws one image of it on a `Canvas`: float64 (SIDE_PX, SIDE_PX, 3),
with values around 0 to 255 that are clipped in the end.
"""

import hashlib
from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fed_ist.images.source import ImageSource
from fed_ist.rng import generator

SIDE_PX = 64
N_TRAIN, N_TEST = 4000, 1000
MIXED = 0.8  # the share of the images of which a part shows another class

Field = NDArray[np.float64]  # (SIDE_PX, SIDE_PX), or with colours (SIDE_PX, SIDE_PX, 3)
Rng = np.random.Generator


class Canvas:
    """Rotated and scaled coordinates, and the shapes and textures that scenes are made of.

    u, v: the coordinates of each pixel, float64 (SIDE_PX, SIDE_PX), turned by a random angle; an
    image is about 1 wide.
    """

    def __init__(self, rng: Rng) -> None:
        self.rng = rng
        angle, self.scale = rng.uniform(0, 2 * np.pi), float(np.exp(rng.uniform(-0.45, 0.45)))
        rows, cols = np.mgrid[:SIDE_PX, :SIDE_PX] / SIDE_PX - 0.5
        shift_u, shift_v = rng.uniform(-0.3, 0.3, 2)
        self.u = (np.cos(angle) * cols + np.sin(angle) * rows) * self.scale + shift_u
        self.v = (-np.sin(angle) * cols + np.cos(angle) * rows) * self.scale + shift_v

    def noise(self, cells: float) -> Field:
        """Smooth noise in about [-1, 1] with `cells` bumps along a side: (SIDE_PX, SIDE_PX)."""
        n = max(2, round(cells * self.scale)) + 1
        coarse = self.rng.uniform(-1, 1, (n, n)).astype(np.float32)
        image = Image.fromarray(coarse).resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC)
        return np.asarray(image, dtype=np.float64)

    def fractal(self, cells: float) -> Field:
        """The sum of smooth noise at three scales: (SIDE_PX, SIDE_PX)."""
        return (self.noise(cells) + 0.6 * self.noise(2 * cells) + 0.4 * self.noise(4 * cells)) / 2

    def colour(self, rgb: tuple[float, float, float], spread: float = 14) -> NDArray[np.float64]:
        """A random colour near `rgb`: float64 (3,)."""
        return np.array(rgb) + self.rng.normal(0, spread, 3)

    def ground(
        self, low: tuple[float, float, float], high: tuple[float, float, float], cells: float
    ) -> NDArray[np.float64]:
        """A mottled surface between two colours: float64 (SIDE_PX, SIDE_PX, 3)."""
        mix = (self.fractal(cells)[..., None] + 1) / 2
        return self.colour(low) * (1 - mix) + self.colour(high) * mix

    def rectangle(self, u: float, v: float, du: float, dv: float) -> NDArray[np.bool_]:
        """The pixels of a rectangle, du by dv about (u, v): bool (SIDE_PX, SIDE_PX)."""
        inside: NDArray[np.bool_] = (np.abs(self.u - u) < du / 2) & (np.abs(self.v - v) < dv / 2)
        return inside

    def disc(self, u: float, v: float, radius: float) -> NDArray[np.bool_]:
        """The pixels of a disc about (u, v): bool (SIDE_PX, SIDE_PX)."""
        inside: NDArray[np.bool_] = (self.u - u) ** 2 + (self.v - v) ** 2 < radius**2
        return inside

    def lattice(self, step: float, jitter: float) -> list[tuple[float, float]]:
        """The points of a grid over the canvas, each moved at random by up to `jitter` steps."""
        ticks = np.arange(-1.2, 1.2, step)
        points = np.stack(np.meshgrid(ticks, ticks), -1).reshape(-1, 2)
        points = points + self.rng.uniform(-jitter, jitter, points.shape) * step
        inside = (np.abs(points[:, 0] - self.u.mean()) < 0.75 * self.scale + step) & (
            np.abs(points[:, 1] - self.v.mean()) < 0.75 * self.scale + step
        )
        return [(float(u), float(v)) for u, v in points[inside]]


def _trees(c: Canvas, image: Field, points: list[tuple[float, float]], radius: float) -> None:
    dark, light = c.colour((38, 66, 34)), c.colour((70, 104, 52))
    for u, v in points:
        size = radius * c.rng.uniform(0.7, 1.3)
        image[c.disc(u + 0.3 * size, v + 0.3 * size, size)] = dark * 0.6
        image[c.disc(u, v, size)] = dark + (light - dark) * c.rng.random()


def _grass(c: Canvas) -> Field:
    return c.ground((84, 104, 58), (138, 140, 88), 4)


def _water(c: Canvas) -> Field:
    image = c.ground((28, 58, 84), (54, 92, 110), 2)
    ripple = np.sin(c.u * c.rng.uniform(60, 140) + 3 * c.noise(4))
    image += c.rng.uniform(1, 7) * ripple[..., None]
    for _ in range(c.rng.integers(0, 4)):  # boats
        u, v = c.rng.uniform(-0.5, 0.5, 2)
        image[c.rectangle(u, v, 0.08, 0.03)] = c.colour((215, 215, 210))
    return image


def _forest(c: Canvas) -> Field:
    image = c.ground((44, 68, 38), (74, 98, 54), 5)
    _trees(c, image, c.lattice(c.rng.uniform(0.085, 0.14), 0.5), c.rng.uniform(0.04, 0.065))
    if c.rng.random() < 0.35:  # a track through it
        image[np.abs(c.v + 0.1 * c.noise(2)) < 0.02] = c.colour((150, 132, 104))
    return image


def _farmland(c: Canvas) -> Field:
    palette = [(150, 140, 82), (104, 128, 62), (172, 152, 106), (84, 110, 54), (134, 110, 78)]
    image = np.zeros((SIDE_PX, SIDE_PX, 3))
    du, dv = c.rng.uniform(0.25, 0.6, 2)
    cell = np.floor(c.u / du).astype(int) * 7 + np.floor(c.v / dv).astype(int)
    for value in np.unique(cell):
        inside = cell == value
        image[inside] = c.colour(palette[c.rng.integers(len(palette))])
        along = c.u if c.rng.random() < 0.5 else c.v
        furrow = np.sin(along * c.rng.uniform(70, 190))
        image[inside] += c.rng.uniform(2, 11) * furrow[inside][:, None]
    return image + 8 * c.noise(6)[..., None]


def _orchard(c: Canvas) -> Field:
    image = c.ground((122, 112, 74), (156, 140, 98), 4)
    step = c.rng.uniform(0.1, 0.15)
    _trees(c, image, c.lattice(step, 0.06), step * c.rng.uniform(0.26, 0.38))
    return image


def _residential(c: Canvas) -> Field:
    image = _grass(c)
    step = c.rng.uniform(0.17, 0.25)
    image[np.abs((c.v + step / 2) % (2 * step) - step) < 0.03] = c.colour((120, 118, 116))
    roofs = [(160, 92, 72), (132, 120, 112), (182, 166, 150), (112, 84, 74)]
    for u, v in c.lattice(step, 0.12):
        du, dv = c.rng.uniform(0.4, 0.65, 2) * step
        if c.rng.random() < 0.15:
            continue
        roof = c.colour(roofs[c.rng.integers(len(roofs))])
        image[c.rectangle(u + 0.02, v + 0.02, du, dv)] = 50
        image[c.rectangle(u, v, du, dv)] = roof
        image[c.rectangle(u, v + dv / 4, du, dv / 2)] = roof * 0.85
    _trees(c, image, c.lattice(0.3, 0.8), 0.035)
    return image


def _industrial(c: Canvas) -> Field:
    image = c.ground((128, 126, 122), (156, 152, 146), 3)
    step = c.rng.uniform(0.36, 0.6)
    for u, v in c.lattice(step, 0.1):
        du, dv = c.rng.uniform(0.55, 0.88, 2) * step
        roof = c.colour([(200, 202, 206), (112, 132, 158), (174, 168, 158)][c.rng.integers(3)])
        image[c.rectangle(u + 0.03, v + 0.03, du, dv)] = 60
        inside = c.rectangle(u, v, du, dv)
        image[inside] = roof
        image[inside] += 7 * np.sign(np.sin(c.u * c.rng.uniform(60, 130)))[inside][:, None]
    return image


def _car_park(c: Canvas) -> Field:
    image = c.ground((92, 92, 94), (114, 114, 114), 3)
    row, bay = c.rng.uniform(0.13, 0.19), c.rng.uniform(0.055, 0.075)
    paint = [(220, 220, 222), (60, 62, 66), (150, 36, 34), (46, 72, 130), (168, 170, 174)]
    ticks_u, ticks_v = np.arange(-1.2, 1.2, bay), np.arange(-1.2, 1.2, row)
    filled = c.rng.uniform(0.35, 0.95)
    stripes = (np.abs((c.u + bay / 2) % bay) < 0.008) & (np.abs(c.v % row) < row * 0.4)
    image[stripes] = 190
    for v in ticks_v:
        for u in ticks_u:
            near = abs(u - c.u.mean()) < 0.8 * c.scale and abs(v - c.v.mean()) < 0.8 * c.scale
            if near and c.rng.random() < filled:
                car = c.colour(paint[c.rng.integers(len(paint))])
                image[c.rectangle(u, v, bay * 0.6, row * 0.55)] = car
    return image


def _beach(c: Canvas) -> Field:
    sand = c.ground((196, 178, 138), (220, 204, 168), 5)
    sea = c.ground((36, 92, 118), (70, 140, 152), 3)
    shore = c.v + 0.12 * c.noise(3)
    image = np.where((shore > 0)[..., None], sand, sea)
    image[np.abs(shore) < c.rng.uniform(0.015, 0.04)] = c.colour((228, 232, 230), 6)
    if c.rng.random() < 0.6:  # vegetation behind the beach
        behind = shore > c.rng.uniform(0.18, 0.35)
        image[behind] = _grass(c)[behind]
    return image


def _river(c: Canvas) -> Field:
    land = _farmland(c) if c.rng.random() < 0.4 else c.ground((62, 88, 48), (116, 124, 76), 5)
    bend = 0.16 * np.sin(c.u * c.rng.uniform(4, 9) + c.rng.uniform(0, 6)) + 0.05 * c.noise(3)
    width = c.rng.uniform(0.05, 0.12)
    distance = np.abs(c.v - bend - 0.5 * (c.v.mean() - bend.mean()))
    land[distance < width + 0.025] = c.colour((128, 120, 92))
    stream = c.ground((50, 78, 84), (86, 110, 104), 3)
    land[distance < width] = stream[distance < width]
    return land


def _highway(c: Canvas) -> Field:
    image = _farmland(c) if c.rng.random() < 0.4 else _grass(c)
    roads = [(c.u, c.v)] if c.rng.random() < 0.6 else [(c.u, c.v), (c.v, c.u)]
    half = c.rng.uniform(0.05, 0.1)
    asphalt = c.colour((116, 116, 118))
    for along, across in roads:
        middle = across.mean() * 0.7
        image[np.abs(across - middle) < half] = asphalt
        image[np.abs(across - middle) < 0.008] = 205
        dashes = (np.abs(np.abs(across - middle) - half / 2) < 0.006) & (along % 0.1 < 0.05)
        image[dashes] = 215
        for _ in range(c.rng.integers(3, 10)):
            lane = middle + c.rng.choice([-0.75, -0.25, 0.25, 0.75]) * half
            place = along.mean() + c.rng.uniform(-0.6, 0.6)
            car = (np.abs(along - place) < 0.03) & (np.abs(across - lane) < half * 0.16)
            image[car] = c.colour((float(c.rng.integers(40, 230)),) * 3)
    return image


SCENES: dict[str, Callable[[Canvas], Field]] = {
    "beach": _beach,
    "car-park": _car_park,
    "farmland": _farmland,
    "forest": _forest,
    "highway": _highway,
    "industrial": _industrial,
    "orchard": _orchard,
    "residential": _residential,
    "river": _river,
    "water": _water,
}


def draw_scene(class_name: str, rng: Rng) -> NDArray[np.uint8]:
    """One image that shows one class alone: uint8 (SIDE_PX, SIDE_PX, 3)."""
    canvas = Canvas(rng)
    image = SCENES[class_name](canvas)
    if rng.random() < 0.25:  # a shred of cloud
        cloud = np.clip(canvas.fractal(3) * 2 - 0.5, 0, 1)[..., None] * rng.uniform(0.3, 0.8)
        image = image * (1 - cloud) + 235 * cloud
    image = image * rng.uniform(0.7, 1.25) + rng.normal(0, 6, 3)  # light and haze
    image = 128 + (image - 128) * rng.uniform(0.65, 1.15)
    image += rng.normal(0, rng.uniform(3, 16), image.shape)
    return np.clip(image, 0, 255).astype(np.uint8)


def draw_view(class_name: str, rng: Rng) -> NDArray[np.uint8]:
    """One image of a class as the data set has it: uint8 (SIDE_PX, SIDE_PX, 3).

    Most of them show a part of another class too, and light, haze and colours vary more than in
    `draw_scene`.
    """
    canvas = Canvas(rng)
    image = SCENES[class_name](canvas)
    if rng.random() < MIXED:
        others = [name for name in SCENES if name != class_name]
        beside = _beside(canvas, rng.uniform(0.2, 0.45))
        image[beside] = SCENES[others[rng.integers(len(others))]](Canvas(rng))[beside]
    if rng.random() < 0.35:  # a shred of cloud
        cloud = np.clip(canvas.fractal(3) * 2 - 0.5, 0, 1)[..., None] * rng.uniform(0.3, 0.9)
        image = image * (1 - cloud) + 235 * cloud
    season = rng.uniform(0.85, 1.15, 3)  # of colours, as cameras and months have them
    image = image * season * rng.uniform(0.6, 1.3) + rng.normal(0, 8, 3)  # light and haze
    image = 128 + (image - 128) * rng.uniform(0.45, 1.15)
    image += rng.normal(0, rng.uniform(3, 20), image.shape)
    return np.clip(image, 0, 255).astype(np.uint8)


def _beside(c: Canvas, share: float) -> NDArray[np.bool_]:
    """The pixels on one side of a wavy line, a share of all: bool (SIDE_PX, SIDE_PX)."""
    angle = c.rng.uniform(0, 2 * np.pi)
    across = np.cos(angle) * c.u + np.sin(angle) * c.v + 0.1 * c.noise(3)
    beside: NDArray[np.bool_] = across < np.quantile(across, share)
    return beside


@cache
def _hand() -> str:
    """A digest of one drawing of each class, which changes if the drawing code does."""
    digest = hashlib.sha256()
    for c, name in enumerate(SCENES):
        digest.update(draw_view(name, generator(0, "scenes-hand", c)).tobytes())
    return digest.hexdigest()


def scenes_source(split: str, seed: int) -> ImageSource:
    """The images of a split, "train" or "test", with equally many of each class in random order."""
    n_images = {"train": N_TRAIN, "test": N_TEST}[split]
    names = tuple(SCENES)
    labels = generator(seed, f"scenes-{split}-labels").permutation(n_images) % len(names)

    def load(i: int, min_px: int | None = None) -> tuple[Image.Image, int]:
        rng = generator(seed, f"scenes-{split}", i)
        return Image.fromarray(draw_view(names[labels[i]], rng)), 0

    signature = hashlib.sha256(f"scenes {split} {seed} {_hand()}".encode()).hexdigest()

    def read(i: int, n_bytes: int = -1) -> bytes:
        return f"scenes {split} {seed} {i}".encode()[: n_bytes if n_bytes >= 0 else None]

    return ImageSource(
        names, labels.astype(np.int64), load, signature, read, lambda i: f"scenes, {split} {i}"
    )
