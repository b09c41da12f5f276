"""Pictures are decoded upright, no larger than needed, and scaled as asked."""

import io

import numpy as np
import pytest
from PIL import Image

from fed_ist.datasets.folders import folder_source
from fed_ist.errors import InputError
from fed_ist.images.decoding import UnreadableImageError, decode
from fed_ist.images.source import INTERPOLATIONS, square, squares

ORIENTATION = 0x0112  # the EXIF tag


def photo(width: int, height: int) -> Image.Image:
    """Smooth random colours, as a photograph has them rather than noise."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (height // 20, width // 20, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def jpeg(image: Image.Image, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=90, **options)
    return out.getvalue()


def test_an_image_is_decoded_at_no_less_than_the_wanted_side():
    data = jpeg(photo(1600, 1200))
    for min_px, size in {
        150: (200, 150),
        151: (400, 300),
        600: (800, 600),
        601: (1600, 1200),
        5000: (1600, 1200),
        None: (1600, 1200),
    }.items():
        assert decode(data, "x", min_px).size == size


def test_an_image_that_is_not_large_is_decoded_bit_for_bit_as_ever(image_folder):
    source = folder_source(image_folder)
    for i, pixels, _ in squares(source, 48, pytest.fail):
        whole = Image.open(sorted(image_folder.rglob("*.jpg"))[i]).convert("RGB")
        assert (pixels == square(whole, 48)).all()


def test_a_large_photo_decoded_small_looks_the_same():
    data = jpeg(photo(1600, 1200))
    whole = square(decode(data, "x"), 64).astype(int)
    reduced = square(decode(data, "x", 64), 64).astype(int)
    assert (whole != reduced).any()
    assert np.abs(whole - reduced).mean() < 2.5


def test_of_a_large_photo_an_eighth_of_the_side_is_decoded_when_little_is_wanted():
    """Which takes a fraction of the time."""
    assert decode(jpeg(photo(4000, 3000)), "x", 64).size == (500, 375)


@pytest.mark.parametrize("min_px", [None, 64])
def test_a_photo_taken_sideways_is_turned_upright_at_any_size(min_px):
    upright = photo(400, 800)
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # stored a quarter turn to the left of how it is to be shown
    data = jpeg(upright.transpose(Image.Transpose.ROTATE_90), exif=exif)
    shown = decode(data, "x", min_px)
    assert shown.size == ((400, 800) if min_px is None else (100, 200))
    difference = square(shown, 32).astype(int) - square(upright, 32).astype(int)
    assert np.abs(difference).mean() < 4


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("size", [(90, 70), (33, 64), (20, 20)])
def test_bands_are_scaled_just_as_the_channels_of_an_rgb_image(interpolation, size):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    as_image = square(Image.fromarray(pixels), 32, interpolation)
    assert as_image.shape == (32, 32, 3)
    assert (square(pixels, 32, interpolation) == as_image).all()


def test_interpolations_differ_and_an_unknown_one_is_refused():
    image = photo(400, 300)
    found = {name: square(image, 64, name).tobytes() for name in INTERPOLATIONS}
    assert len(set(found.values())) == 4
    assert square(image, 64).tobytes() == found["bicubic"]
    with pytest.raises(InputError, match=r"Unknown interpolation 'cubic'\. Choose from: bicubic"):
        square(image, 64, "cubic")


def test_greys_of_16_bits_are_scaled_not_cut_off():
    greys = np.linspace(0, 65535, 64, dtype=np.uint16).reshape(8, 8)
    file = io.BytesIO()
    Image.fromarray(greys).save(file, "PNG")
    read = np.asarray(decode(file.getvalue(), "x.png"))
    assert (read == (greys // 257)[..., None]).all()


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_a_tiff_of_other_than_8_bits_is_not_silently_clipped(dtype):
    out = io.BytesIO()
    Image.fromarray(np.full((8, 8), 3000, dtype=dtype)).save(out, "TIFF")
    with pytest.raises(UnreadableImageError, match=r"x: its values are not 8 bits.*set bands"):
        decode(out.getvalue(), "x")
