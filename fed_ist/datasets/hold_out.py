"""Which images are held out for the test, decided by the content of each image alone.

An image is held out where its digest, taken as a number in [0, 1), is below the test share. Adding,
removing or renaming other images does not change that, and identical images are always on the same
side.
"""

import numpy as np
from numpy.typing import NDArray

TEST_SHARE = 0.15

Contents = NDArray[np.uint8]  # (n, CONTENT_BYTES), all zeros for what could not be read


def hold_out(
    labels: NDArray[np.int64], contents: Contents, test_share: float = TEST_SHARE
) -> dict[str, NDArray[np.int64]]:
    """The images for "train" and those for "test": ascending indices, each int64 (k,).

    labels: int64 (n,); images with a negative label are on neither side.
    contents: uint8 (n, CONTENT_BYTES), a digest of each image.
    A class that would have no image on one side gets one there, if it has two different images: the
    one whose number is nearest to the share, among those that no other class has too. So in a class
    that is this small, an image may change sides when another one is added or removed.
    """
    n_images = len(labels)
    kinds, place = np.unique(contents, axis=0, return_inverse=True)
    place = place.reshape(n_images)
    draws = draw(kinds)
    is_test = draws < test_share
    n_classes = _count_classes(place, labels, len(kinds))
    for label in np.unique(labels[labels >= 0]):
        own = np.unique(place[labels == label])
        own = own[np.argsort(draws[own], kind="stable")]
        readable = own[draws[own] < 1]
        movable = readable[n_classes[readable] == 1]
        if not len(movable):
            continue
        if len(readable) < 2:
            is_test[movable] = False  # the only image of a class is for training
        elif not is_test[readable].any():
            is_test[movable[0]] = True
        elif is_test[readable].all():
            is_test[movable[-1]] = False
    tested = is_test[place]
    labelled = labels >= 0
    return {
        "train": np.flatnonzero(labelled & ~tested),
        "test": np.flatnonzero(labelled & tested),
    }


def draw(contents: Contents) -> NDArray[np.float64]:
    """A number in [0, 1) for each content, float64 (n,); 1 where a content is all zeros.

    contents: uint8 (n, CONTENT_BYTES). An image that could not be read has zeros, and is so never
    tested on.
    """
    numbers = np.ascontiguousarray(contents[:, :8]).view(">u8")[:, 0] / 2.0**64
    return np.where(contents.any(axis=1), np.minimum(numbers, np.nextafter(1, 0)), 1.0)


def _count_classes(
    place: NDArray[np.int64], labels: NDArray[np.int64], n_kinds: int
) -> NDArray[np.int64]:
    """The number of classes that have an image of each content: int64 (n_kinds,)."""
    pairs = np.unique(np.stack([place, labels])[:, labels >= 0], axis=1)
    return np.bincount(pairs[0], minlength=n_kinds)
