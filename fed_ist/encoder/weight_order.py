"""Weights whose names are another project's, matched to a model's by the order they stand in.

Ports of one network often hold the same layers in the same order under other names, such as
`_blocks.0._bn1` for `blocks.0.0.bn1`. Such a file is taken only where every layer agrees: the same
kinds of weights (`weight`, `bias`, `running_mean`, ...) of the same shapes, in the same order.
"""

from collections.abc import Iterable, Mapping
from itertools import groupby

from torch import Tensor

MOST_OF_CLASSIFIER = 2  # weights at the end that a model without a classifier does not have


def in_order(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """The weights under the names of the model; None where any layer differs.

    None too where half of the names are the model's own: then the order says nothing. found: of a
    file; a classifier may stand at its end. wanted: of a model without a classifier; its values do
    not matter.
    """
    if 2 * len(found.keys() & wanted.keys()) >= len(wanted):
        return None
    if not 0 <= len(found) - len(wanted) <= MOST_OF_CLASSIFIER:
        return None
    names, values = zip(*list(found.items())[: len(wanted)], strict=True)
    if _layers(names) != _layers(list(wanted)):
        return None
    if any(a.shape != b.shape for a, b in zip(values, wanted.values(), strict=True)):
        return None
    return dict(zip(wanted, values, strict=True))


def _layers(names: Iterable[str]) -> list[list[str]]:
    """The kinds of weights of each layer, in order; a layer's weights stand side by side."""
    split = [name.rpartition(".") for name in names]
    return [[kind for _, _, kind in layer] for _, layer in groupby(split, lambda parts: parts[0])]
