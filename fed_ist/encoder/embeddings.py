"""Images to embeddings, each step on disk: masked and packed, encoded, cached.

A cache folder holds `<key>.packed` (masked and packed images) and `<key>/` (embeddings, labels,
counts). The keys are digests of everything that the content depends on, so a stale entry is never
found. Entries are built under a temporary name and renamed, so that a power cut leaves none
half-written. They have checksums: a damaged one is made again.
"""

import io
import itertools
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fed_ist.encoder.known import AnyEncoder, KnownEncoder
from fed_ist.errors import InputError
from fed_ist.files.atomic import clear, put_in_place, sweep, temporary_path
from fed_ist.files.cache import digest, tell_damaged
from fed_ist.files.paths import require_cache
from fed_ist.files.seals import (
    DamagedError,
    Seal,
    read_sealed_json,
    seal_file,
    seal_of,
    sealed_json,
)
from fed_ist.images.masks import MASKS, Grid, Images, Indices, count_visible, visible_patches
from fed_ist.images.packing import PackedBatch, PackedImages, PackLayout, write_packed
from fed_ist.images.source import CONTENT_BYTES, ImageSource, squares
from fed_ist.prefetch import ahead
from fed_ist.rng import generator

if TYPE_CHECKING:  # reading the cache must not cost the import of torch
    from fed_ist.encoder.frozen import Encoder

Encoded: TypeAlias = tuple[NDArray[np.float32], NDArray[np.int64]]

BATCH_SIZE = 256
VALUES, LABELS, COUNTS = "embeddings.npy", "labels.npy", "counts.json"
BATCH_BYTES = BATCH_SIZE * 128 * 128 * 3


@dataclass(frozen=True)
class MaskSpec:
    """Everything that decides which pixels of an image are kept, and how.

    mask: a name in `MASKS`. codec: of packed images. img_px, patch_px: sides in pixels.
    coordinates: numbers on which a mask's random stream depends, in addition to the seed and the
        image's content: the number of the pass for a mask that is drawn anew at each pass.
    channels: of each image. interpolation: by which images are scaled.
    """

    mask: str
    mask_ratio: float
    codec: str
    img_px: int
    patch_px: int
    seed: int
    coordinates: tuple[int, ...]
    channels: int = 3
    interpolation: str = "bicubic"

    @property
    def grid(self) -> Grid:
        """The (rows, cols) of patches in an image."""
        return self.img_px // self.patch_px, self.img_px // self.patch_px


def raw_mask(
    encoder: AnyEncoder,
    mask: str,
    mask_ratio: float,
    *,
    channels: int = 3,
    seed: int = 0,
    coordinates: tuple[int, ...] = (),
) -> MaskSpec:
    """How an encoder's images are masked where their patches are not compressed."""
    return MaskSpec(
        mask=mask,
        mask_ratio=mask_ratio,
        codec="raw",
        img_px=encoder.img_px,
        patch_px=encoder.patch_px,
        seed=seed,
        coordinates=coordinates,
        channels=channels,
        interpolation=encoder.interpolation,
    )


@dataclass(frozen=True)
class Counts:
    """The numbers of images that were packed and skipped, and bytes in all (see `PackedImages`)."""

    n_images: int
    n_skipped: int
    original_bytes: int
    raw_bytes: int
    packed_bytes: int


@dataclass(frozen=True)
class Embeddings:
    """The embeddings of a source, as a cache entry holds them.

    values: float32 (n, embed_dim), memory-mapped where they were read; labels: int64 (n,).
    """

    values: NDArray[np.float32]
    labels: NDArray[np.int64]
    counts: Counts


def pack(
    source: ImageSource, spec: MaskSpec, path: Path, on_skip: Callable[[str], None]
) -> PackedImages:
    """Mask and pack all images of a source that have a class, into a file at `path`.

    on_skip: called with the reason for each image that cannot be read.
    """
    for _ in packing(source, spec, path, on_skip):
        pass
    return PackedImages(path)


def packing(
    source: ImageSource,
    spec: MaskSpec,
    path: Path,
    on_skip: Callable[[str], None],
    key: str = "",
) -> Iterator[PackedBatch]:
    """Do what `pack` does, and yield each batch once it is packed.

    key: names what the file is made of, see `write_packed`.
    """
    assert source.channels == spec.channels, (source.channels, spec.channels)
    n_visible = count_visible(spec.grid[0] * spec.grid[1], spec.mask_ratio)

    blank = np.zeros((1, spec.img_px, spec.img_px, spec.channels), dtype=np.uint8)
    probe = choose_patches(blank, [bytes(CONTENT_BYTES)], spec)
    common = tuple(int(i) for i in probe) if probe.ndim == 1 else None
    labelled = source.subset(np.flatnonzero(source.labels >= 0))

    def batches() -> Iterator[tuple[Images, Indices, NDArray[np.int64], NDArray[np.int64]]]:
        found = squares(labelled, spec.img_px, on_skip, spec.interpolation)
        for images, rows, file_bytes in _in_blocks(found, images_in_batch(spec)):
            visible = probe
            if not common:  # else no file is read again for its digest
                contents = [labelled.content(i) for i in rows]
                visible = choose_patches(images, contents, spec)
            yield images, visible, labelled.labels[rows], np.array(file_bytes, dtype=np.int64)

    layout = PackLayout(
        spec.grid, spec.patch_px, n_visible, spec.codec, len(labelled), common, spec.channels
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    yield from write_packed(path, layout, batches(), key)


def images_in_batch(spec: MaskSpec) -> int:
    """The number of images to pack at once, fewer if large: several batches are in memory."""
    return min(BATCH_SIZE, max(1, BATCH_BYTES // (spec.img_px**2 * spec.channels)))


Square = tuple[int, NDArray[np.uint8], int]  # what `squares` yields: index, pixels, bytes of file


def _in_blocks(found: Iterator[Square], size: int) -> Iterator[tuple[Images, list[int], list[int]]]:
    """The images, indices and bytes of each block of `size` indices that has any."""
    for _, rows in itertools.groupby(found, key=lambda row: row[0] // size):
        indices, pixels, file_bytes = zip(*rows, strict=True)
        yield np.stack(pixels), list(indices), list(file_bytes)


def choose_patches(images: Images, contents: Sequence[bytes], spec: MaskSpec) -> Indices:
    """The patches of each image that stay: int64 (N, K), or (K,) where all images keep the same.

    images: uint8 (N, H, W, C). contents: a digest of each image. With the seed, it alone decides
    what a random mask hides: an image is masked in the same way whatever its place in the source.
    """
    if MASKS[spec.mask].is_common:
        rng = generator(spec.seed, "mask", *spec.coordinates)
        return visible_patches(spec.mask, images, spec.grid, spec.mask_ratio, rng)
    return np.concatenate(
        [
            visible_patches(
                spec.mask,
                images[i : i + 1],
                spec.grid,
                spec.mask_ratio,
                generator(spec.seed, "mask", *spec.coordinates, int.from_bytes(content, "big")),
            )
            for i, content in enumerate(contents)
        ]
    )


def load_cached(folder: Path) -> Embeddings | None:
    """The embeddings of a cache entry; None where there is none, or where it is damaged."""
    if not folder.is_dir():
        return None
    try:
        found = read_sealed_json(folder / COUNTS, "", is_old_read=False)
        if found["entry"] != folder.name:
            raise ValueError("it is another entry's")
        seals = {name: Seal(*numbers) for name, numbers in found["files"].items()}
        labels = _read_labels(folder / LABELS, seals[LABELS])
        values = _map_values(folder / VALUES, seals[VALUES])
        return Embeddings(values, labels, Counts(**found["counts"]))
    except (OSError, KeyError, ValueError, TypeError) as error:
        tell_damaged(folder, str(error))
        return None


def _read_labels(path: Path, seal: Seal) -> NDArray[np.int64]:
    data = path.read_bytes()
    if seal_of(data) != seal:
        raise DamagedError(f"{path.name} is not as it was written")
    labels: NDArray[np.int64] = np.load(io.BytesIO(data))
    return labels


def _map_values(path: Path, seal: Seal) -> NDArray[np.float32]:
    """The array of a file, float32 (n, embed_dim), mapped after its checksum was compared."""
    with path.open("rb") as file:  # the same file is checked and mapped, even if it is replaced
        if seal_file(file) != seal:
            raise DamagedError(f"{path.name} is not as it was written")
        file.seek(0)
        np.lib.format.read_magic(file)
        shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
        order: Literal["F", "C"] = "F" if is_fortran else "C"
        return np.memmap(file, dtype, "r", file.tell(), shape, order)


def store(folder: Path, embeddings: Embeddings) -> None:
    """Write a cache entry, whole or not at all."""
    draft = temporary_path(folder)
    draft.mkdir(parents=True)
    try:
        seals = {}
        for name, values in ((VALUES, embeddings.values), (LABELS, embeddings.labels)):
            with (draft / name).open("w+b") as file:
                np.lib.format.write_array(file, values, (1, 0), False)
                file.seek(0)
                seals[name] = astuple(seal_file(file))
        counts = {"entry": folder.name, "counts": asdict(embeddings.counts), "files": seals}
        (draft / COUNTS).write_bytes(sealed_json(counts))
        with suppress(OSError):  # another process may be doing so
            clear(folder)  # an entry that `load_cached` refused
        put_in_place(draft, folder)
    except OSError:
        # Another process may have put the same entry there first; then all is well.
        if load_cached(folder) is None:
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def embed(
    source: ImageSource,
    spec: MaskSpec,
    encoder: AnyEncoder,
    cache: Path,
    on_skip: Callable[[str], None],
    *,
    keep_packed: bool = True,
) -> tuple[Embeddings, Path]:
    """The embeddings of a source and the folder of their cache entry.

    Images are packed and encoded only where the cache does not have their embeddings.
    on_skip: called with the reason for each image that cannot be read. keep_packed: whether images
    that are packed here stay in the cache. Raises `InputError` where the cache cannot be written.
    """
    # The number counts the versions of our decoding: entries of an older one are stale.
    pack_key = digest("pack 3", source.signature, asdict(spec))
    folder = cache / digest("embed", pack_key, encoder.digest)
    found = load_cached(folder)
    if found is not None:
        return found, folder
    require_cache(cache)
    sweep(cache)
    whole = encoder.whole if isinstance(encoder, KnownEncoder) else encoder
    kept_path = cache / f"{pack_key}.packed"
    found = _embed_packed(kept_path, pack_key, whole)
    if found is None:
        # What is not kept has a name of its own, as another process may pack the same images.
        path = kept_path if keep_packed else temporary_path(kept_path)
        try:
            encoded = _encode(whole, packing(source, spec, path, on_skip, pack_key))
            found = Embeddings(*encoded, _counts(PackedImages(path, pack_key)))
        finally:
            if not keep_packed:
                path.unlink(missing_ok=True)
    store(folder, found)
    loaded = load_cached(folder)
    assert loaded is not None
    return loaded, folder


def _embed_packed(path: Path, key: str, encoder: "Encoder") -> Embeddings | None:
    """The embeddings of a file of packed images; None where there is no such file for these."""
    path.with_suffix(".arrow").unlink(missing_ok=True)  # of earlier versions
    try:
        packed = PackedImages(path, key)
        encoder.check_fits(packed)
        return Embeddings(*_encode(encoder, packed.batches()), _counts(packed))
    except DamagedError as error:
        tell_damaged(path, str(error))
        if path.is_dir():
            clear(path)  # a file is replaced by the new one, which another process may read already
        return None
    except InputError:
        return None


def _counts(packed: PackedImages) -> Counts:
    return Counts(
        n_images=packed.n_images,
        n_skipped=packed.n_skipped,
        original_bytes=packed.original_bytes,
        raw_bytes=packed.raw_bytes,
        packed_bytes=packed.path.stat().st_size,
    )


def _encode(encoder: "Encoder", batches: Iterator[PackedBatch]) -> Encoded:
    values, labels = zip(*encoder.encode_all(ahead(batches)), strict=True)
    return np.concatenate(values), np.concatenate(labels)
