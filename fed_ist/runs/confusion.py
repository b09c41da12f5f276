"""How often a model is right, and what it takes for what."""

from collections import Counter


class Confusion:
    """Counts of images by what they are and what a model takes them for."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()

    def add(self, truth: str, found: str) -> None:
        """Count an image of the class `truth` that was taken for one of `found`."""
        self._counts[truth, found] += 1

    @property
    def n_images(self) -> int:
        """How many images were counted."""
        return self._counts.total()

    @property
    def accuracy(self) -> float:
        """The share of the images that were taken for what they are, in [0, 1]; at least one."""
        return (
            sum(n for (truth, found), n in self._counts.items() if truth == found) / self.n_images
        )

    def rows(self, n_most: int = 3) -> list[tuple[str, int, float, str]]:
        """(class, its images, the share that is right, what the others are mostly taken for).

        By class. n_most: how many wrong classes are named, with their number of images.
        """
        found = []
        for truth in sorted({truth for truth, _ in self._counts}):
            own = Counter({taken: n for (is_, taken), n in self._counts.items() if is_ == truth})
            n_images, n_right = own.total(), own.pop(truth, 0)
            wrong = sorted(own.items(), key=lambda pair: (-pair[1], pair[0]))[:n_most]
            named = ", ".join(f"{name} {n}" for name, n in wrong)
            found.append((truth, n_images, n_right / n_images, named))
        return found
