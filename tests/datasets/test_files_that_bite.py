"""Files made to hurt whoever opens them: each is left out, counted and named, and takes little."""

import io
import json
import os
import socket
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from fed_ist.datasets.data_set import open_all
from fed_ist.datasets.parquet_pages import column_pages
from fed_ist.errors import InputError
from fed_ist.files.regular import open_regular
from fed_ist.images.bands import BandChoice
from fed_ist.images.decoding import UnreadableImageError, decode, load_file
from fed_ist.images.memory import MOST_BYTES, TooLargeError, room, take
from fed_ist.images.needs import read_frame
from fed_ist.images.source import Reading

MOST_MB = 300  # beside what is imported

# Packs what it is given, and tells the most memory that this process had, beside its imports. Not
# by getrusage, which counts what the process was before `exec` too.
CHILD = """
import json, sys
from pathlib import Path
import pyarrow.parquet, rasterio, torch, torchvision.io, tqdm
from PIL import Image
from fed_ist.images.bands import parse_bands
from fed_ist.datasets.data_set import open_all
from fed_ist.encoder.embeddings import MaskSpec, pack
from fed_ist.images.source import Reading
from fed_ist.datasets.scan import scan

def most_mb():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024

Image.init()
before, said, n_images = most_mb(), [], 0
bands = parse_bands(sys.argv[2], "0:255") if sys.argv[2] else None
reading = Reading(bands=bands, value_range=None if bands else (0, 65535))
try:
    source = open_all(sys.argv[1], reading, said.append)
    scan(source, None)
    spec = MaskSpec("random", 0, "raw", 224, 16, 0, (), reading.n_channels)
    n_images = pack(source, spec, Path(sys.argv[3]), said.append).n_images
except ValueError as error:
    said.append(str(error))
print(json.dumps([most_mb() - before, n_images, said]))
"""


def packed(place: Path, bands: str = "", seconds: float = 300) -> tuple[float, int, str]:
    """(MB that packing took, images, what was said)."""
    out = place.with_name(f"{place.name}.arrow")
    command = [sys.executable, "-c", CHILD, str(place), bands, str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    assert done.returncode == 0, done.stderr
    mb, n_images, said = json.loads(done.stdout.splitlines()[-1])
    return mb, n_images, "\n".join(said)


def good(root: Path, n: int = 3) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        Image.new("RGB", (300, 300), (i, 0, 0)).save(root / f"good{i}.png")


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, depth: int = 8, colour: int = 2, *more: bytes) -> bytes:
    """A PNG of nothing but zeros, a thousandth of its pixels large."""
    row = 1 + width * depth * {0: 1, 2: 3, 6: 4}[colour] // 8
    packer = zlib.compressobj(9)
    body = b"".join(packer.compress(bytes(row)) for _ in range(height)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [chunk(b"IHDR", head), *more, chunk(b"IDAT", body), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def saved(kind: str, width: int, height: int, mode: str = "RGB", **options: object) -> bytes:
    out = io.BytesIO()
    Image.new(mode, (width, height)).save(out, kind, **options)
    return out.getvalue()


def resized(data: bytes, width: int, height: int) -> bytes:
    """A JPEG whose header says another size than it has."""
    at = next(i for i in range(2, len(data)) if data[i : i + 2] in (b"\xff\xc0", b"\xff\xc2"))
    return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]


def tiff(tags: dict[int, tuple[int, int, int]], body: bytes = b"", next_page: int = 0) -> bytes:
    """A TIFF of one directory: tag -> (type, count, value or offset)."""
    entries = b"".join(struct.pack("<HHII", tag, *tags[tag]) for tag in sorted(tags))
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", next_page)
    return b"II*\0" + struct.pack("<I", 8) + directory + body


def plain_tiff(width: int, height: int, **more: tuple[int, int, int]) -> dict:
    tags = {256: (4, 1, width), 257: (4, 1, height), 258: (3, 1, 8), 259: (3, 1, 1)}
    tags |= {262: (3, 1, 1), 273: (4, 1, 8), 277: (3, 1, 1), 278: (4, 1, height)}
    return tags | {279: (4, 1, 8)} | {int(tag[1:]): value for tag, value in more.items()}


def bomb_texts() -> bytes:
    text = b"note\0\0" + zlib.compress(bytes(1_000_000), 9)
    return png(30, 30, 8, 2, *[chunk(b"zTXt", text)] * 400)


def many_tiles() -> bytes:
    data = saved("JPEG2000", 64, 64)
    at = data.find(b"\xff\x4f\xff\x51") + 8
    width = struct.pack(">8I", 255, 255, 0, 0, 1, 1, 0, 0)
    return data[:at] + width + data[at + 32 :]


def overlapping() -> bytes:
    """5,000 tags, each of which is all of the file."""
    tags = plain_tiff(8, 8) | {40000 + i: (7, 900_000, 8) for i in range(5000)}
    return tiff(tags, bytes(900_000))


def many_pages() -> bytes:
    pages = 200_000
    body = b"".join(struct.pack("<HHHIII", 1, 256, 4, 1, 8, 8 + 18 * (i + 1)) for i in range(pages))
    return b"II*\0" + struct.pack("<I", 8) + body


# name -> (its bytes, part of the sentence that says why it is left out)
BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "eps.png": (
        lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) run\n",
        "not an image",
    ),
    "wide.png": (lambda: png(15_800, 15_800), "15800 x 15800 pixels would take"),
    "deep.png": (lambda: png(9000, 9000, 16), "9000 x 9000 pixels would take"),
    "texts.png": (bomb_texts, "text"),
    "deep-texts.png": (
        lambda: png(4000, 4000, 16, 6, *[chunk(b"zTXt", b"a\0\0" + bytes(9))] * 9),
        "4000 x 4000 pixels would take",
    ),
    "wide.gif": (lambda: saved("GIF", 9000, 9000, "P"), "9000 x 9000 pixels would take"),
    "wide.webp": (lambda: saved("WEBP", 12_000, 12_000, method=0), "would take"),
    "wide.avif": (lambda: saved("AVIF", 8000, 8000, speed=10), "would take"),
    "wide.bmp": (lambda: saved("BMP", 20_000, 20_000, "1"), "300 million pixels"),
    "wide.jp2": (lambda: saved("JPEG2000", 4000, 4000), "would take"),
    "tiles.jp2": (many_tiles, "would take"),
    "wide.jpg": (lambda: resized(saved("JPEG", 64, 64), 65_500, 65_500), "300 million pixels"),
    "waiting.jpg": (
        lambda: resized(saved("JPEG", 64, 64, progressive=True), 12_000, 12_000),
        "12000 pixels would take",
    ),
    "scans.jpg": (
        lambda: (
            saved("JPEG", 64, 64, progressive=True)[:-2] + b"\xff\xda\0\x08\1\1\0\0\x3f\0" * 2000
        ),
        "scans",
    ),
    "junk.jpg": (lambda: b"\xff\xd8\xff\xfe\0\2" + bytes(2_000_000), "damaged"),
    "strip.tif": (lambda: saved("TIFF", 14_000, 14_000, compression="tiff_deflate"), "would take"),
    "tile.tif": (
        lambda: tiff(plain_tiff(8, 8, t322=(4, 1, 60_000), t323=(4, 1, 60_000))),
        "would take",
    ),
    "overlapping.tif": (overlapping, "claim more bytes"),
    "pages.tif": (many_pages, "more than 4096 pages"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_file_that_would_take_much_is_refused_by_its_header(name, tmp_path):
    make, why = BOMBS[name]
    path = tmp_path / name
    path.write_bytes(make())
    with pytest.raises(UnreadableImageError, match=why) as refused:
        load_file(path, 64)
    assert str(path) in str(refused.value)


def test_a_folder_of_them_is_packed_with_little_memory_and_all_are_named(tmp_path):
    root = tmp_path / "images"
    good(root)
    for name, (make, _) in BOMBS.items():
        (root / name).write_bytes(make())
    (root / "text.png").symlink_to("/dev/zero")
    os.mkfifo(root / "pipe.jpg")
    mb, n_images, said = packed(root)
    assert n_images == 3, said
    assert mb < MOST_MB
    for name in BOMBS:
        assert f"{name}: " in said
    assert "2 neither file nor folder" in said


def test_what_is_no_file_is_not_opened_wherever_it_is_named(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "socket.png"))
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "folder.png").mkdir()
    names = ["pipe.png", "socket.png", "zero.png", "folder.png"]
    for name in names:
        with pytest.raises(OSError, match=r"regular"):
            open_regular(tmp_path / name)
        with pytest.raises(UnreadableImageError, match="regular"):
            load_file(tmp_path / name)
    cells = [{"bytes": None, "path": str(tmp_path / name)} for name in names]
    how = Reading(image_column="image")
    source = open_all(str(table(tmp_path / "a.parquet", cells)), how)
    for i in range(len(source)):
        with pytest.raises(UnreadableImageError, match="regular"):
            source.load(i)
    server.close()


def table(path: Path, cells: list, labels: object = None, **options: object) -> Path:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = {"image": pa.array(cells, kind)}
    if labels is not None:
        columns["label"] = labels
    pq.write_table(pa.table(columns), path, **options)
    return path


def cell(data: bytes) -> dict[str, object]:
    return {"bytes": data, "path": None}


def test_a_table_with_a_page_that_unpacks_to_much_is_refused_by_the_pages_own_header(tmp_path):
    cells = [cell(bytes(1_000_000))] * 200
    path = table(tmp_path / "a.parquet", cells, use_dictionary=False, compression="zstd")
    assert path.stat().st_size < 1_000_000
    mb, n_images, said = packed(path)
    assert (n_images, "has pages of 200 MB" in said) == (0, True), said
    assert mb < MOST_MB


def test_one_image_in_ten_thousand_rows_does_not_fill_the_disk(tmp_path):
    rng = np.random.default_rng(0)
    cells = pa.DictionaryArray.from_arrays(np.zeros(10_000, np.int32), [rng.bytes(1_000_000)])
    pq.write_table(pa.table({"image": cells}), tmp_path / "a.parquet")
    assert (tmp_path / "a.parquet").stat().st_size < 2_000_000
    with pytest.raises(InputError, match=r"unpack to more than 0\.2 GB|none can be told"):
        open_all(str(tmp_path / "a.parquet"))
    one = cell(png(9, 9) + rng.bytes(1_000_000))
    path = table(tmp_path / "b.parquet", [one] * 2000)
    assert path.stat().st_size < 3_000_000
    with pytest.raises(InputError, match=r"unpack to more than 0\.2 GB"):
        open_all(str(path))


def test_rows_that_take_no_bytes_are_not_believed(tmp_path):
    columns = {"image": pa.nulls(3_000_000, pa.binary()), "label": np.zeros(3_000_000, np.int8)}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"claims 3000000 rows, and has \d+ bytes"):
        open_all(str(tmp_path / "a.parquet"))


def test_labels_that_are_long_or_all_different_are_no_classes(tmp_path):
    image = cell(png(9, 9))
    for name, labels in {
        "long": pa.DictionaryArray.from_arrays(np.zeros(1000, np.int32), ["x" * 20_000_000]),
        "many": pa.array([str(i) for i in range(150_000)]),
    }.items():
        path = table(tmp_path / f"{name}.parquet", [image] * len(labels), labels)
        with pytest.raises(InputError, match=f"holds {1 if name == 'long' else 150000} different"):
            open_all(str(path))


def test_the_sizes_of_pages_are_what_writers_wrote(tmp_path):
    cells = [cell(bytes([i % 250]) * 5000) for i in range(3000)]
    for version in ("1.0", "2.0"):
        for options in ({"use_dictionary": False}, {"compression": "none"}):
            path = table(
                tmp_path / "a.parquet",
                cells,
                data_page_version=version,
                row_group_size=700,
                **options,
            )
            with path.open("rb") as file:
                pages = column_pages(file, pq.read_metadata(path), "image")
            assert 720 * 5000 > pages.largest > 5000
            assert pages.total > (3000 if "use_dictionary" in options else 250) * 5000


def test_what_was_unpacked_and_is_damaged_is_told_and_unpacked_again(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("fed_ist.datasets.tables.SMALL_TABLE", 0)
    path = table(tmp_path / "a.parquet", [cell(png(9, 9 + i)) for i in range(9)])
    how = Reading(cache=tmp_path / "cache")
    assert [open_all(str(path), how).load(i)[0].height for i in range(9)] == list(range(9, 18))
    unpacked = next((tmp_path / "cache").glob("table-*.images"))
    whole = unpacked.read_bytes()
    for at in (3, 20, 40, 70, 100, len(whole) - 5):
        unpacked.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        source = open_all(str(path), how)
        assert [source.load(i)[0].height for i in range(9)] == list(range(9, 18))
        assert "is made again" in caplog.text
        assert unpacked.read_bytes() == whole


def raster(path: Path, width: int, height: int, count: int = 4, **options: object) -> Path:
    rasterio = pytest.importorskip("rasterio")
    how = {"driver": "GTiff", "dtype": "uint8", "compress": "deflate", "sparse_ok": True} | options
    with rasterio.open(path, "w", width=width, height=height, count=count, **how):
        return path


def test_rasters_that_would_take_much_are_left_out_and_no_file_beside_one_is_opened(tmp_path):
    root = tmp_path / "images"
    root.mkdir()
    for i in range(3):
        raster(root / f"good{i}.tif", 300, 300)
    raster(root / "wide.tif", 20_000, 20_000)
    raster(root / "block.tif", 9000, 9000, 1, blockysize=9000)
    raster(root / "many.tif", 500, 500, 3000, interleave="pixel")  # of which one band is read
    mb, n_images, said = packed(root, "1")
    assert n_images == 4, said
    assert mb < MOST_MB
    for name in ("wide.tif", "block.tif"):
        assert f"{name}: " in said
    # GDAL would read any format there, and formats that name further files.
    raster(tmp_path / "secret.tif", 300, 300, 1)
    beside = root / "good0.tif.msk"
    source = "<SourceFilename>../secret.tif</SourceFilename><SourceBand>1</SourceBand>"
    band = f'<VRTRasterBand dataType="Byte" band="1"><SimpleSource>{source}</SimpleSource>'
    size = 'rasterXSize="300" rasterYSize="300"'
    beside.write_text(f"<VRTDataset {size}>{band}</VRTRasterBand></VRTDataset>")
    with pytest.raises(UnreadableImageError, match=r"good0.tif"):
        load_file(root / "good0.tif", 64, BandChoice(("1",), None))


def test_large_images_wait_for_each_other_and_one_may_not_take_more_than_its_room():
    with room():
        take(MOST_BYTES - 5, "it")
        with room():
            take(5, "it")
        with pytest.raises(TooLargeError, match="would take 150 MB"):
            take(1, "it")
    with room():
        take(MOST_BYTES, "it")


def test_large_photographs_are_reduced_while_they_are_decoded(tmp_path):
    data = saved("JPEG", 12_000, 9000, quality=30)
    assert decode(data, "x", 64).size == (1500, 1125)
    assert not read_frame(data).is_buffered
    waiting = read_frame(saved("JPEG", 64, 64, progressive=True))
    assert waiting.is_buffered
