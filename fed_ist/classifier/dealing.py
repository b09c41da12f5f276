"""Which neurons each node gets in a round: the rule of IST, and those of other methods.

Each rule gives `Subnet`s, which `slices.extract` cuts out and `slices.merge` writes back. A slice
of share s, in (0, 1], has that share of the neurons of each axis (see `layout.param_axes`), and so
about s² of the weights between two hidden layers. In all functions `widths` is axis -> number of
neurons, as `layout.hidden_widths` gives it.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fed_ist.classifier.slices import Subnet
from fed_ist.errors import InputError


def equal_shares(capacities: Sequence[float]) -> list[float]:
    """Shares that add up to 1 at most, as equal as the capacities allow.

    capacities: the largest share that each node can take, in (0, 1]. A node that cannot take an
    equal share takes its capacity, and the others divide the rest equally: capacities (0.1, 1, 1)
    give the shares (0.1, 0.45, 0.45). Capacities (0.1, 0.2) are themselves the shares, and the
    other seven tenths of the neurons rest in the round.
    """
    shares = [0.0] * len(capacities)
    left, order = 1.0, sorted(range(len(capacities)), key=lambda i: (capacities[i], i))
    for taken, i in enumerate(order):
        shares[i] = min(capacities[i], left / (len(order) - taken))
        left -= shares[i]
    return shares


def partition_neurons(
    widths: Mapping[str, int],
    shares: Sequence[float],
    rng: np.random.Generator,
    last_dealt: Mapping[str, NDArray[np.int64]] | None = None,
) -> list[Subnet]:
    """Deal the neurons of each axis into disjoint random groups, one group for each share.

    shares: they add up to 1 at most. With equal shares the sizes of groups differ by one at most.
    Every group gets at least one neuron of each axis, even where its share comes to less than one.
    last_dealt: axis -> int64 (width,), the round in which each neuron was dealt last. Where the
    shares add up to less than 1, the neurons that rested longest are dealt, so that after rounds
    that deal `width` neurons in all, each was dealt. None to choose at random.
    Raises `InputError` where an axis has fewer neurons than there are groups.
    Source: Yuan et al. 2022, who deal equal shares.
    """
    narrowest = min(widths.values())
    if not 1 <= len(shares) <= narrowest:
        raise InputError(
            f"hidden-dim = {narrowest} is smaller than the number of groups ({len(shares)}): each "
            "group needs a neuron. Use a larger hidden-dim or fewer groups."
        )
    dealt: dict[str, list[NDArray[np.int64]]] = {}
    for axis, width in widths.items():
        ends = np.cumsum(_sizes(width, shares))
        order = rng.permutation(width)
        if last_dealt is not None and ends[-1] < width:
            longest = order[np.argsort(last_dealt[axis][order], kind="stable")]
            # In a new order: neurons that rested together need not be in one group now.
            order = rng.permutation(longest[: ends[-1]])
        dealt[axis] = np.split(order[: ends[-1]], ends[:-1])
    return [
        Subnet({axis: np.sort(groups[i]) for axis, groups in dealt.items()})
        for i in range(len(shares))
    ]


def _sizes(width: int, shares: Sequence[float]) -> NDArray[np.int64]:
    """The number of neurons of each group, int64 (groups,), `width` in all at most.

    Each is at least 1 and at most its share rounded up. What rounding down leaves goes to the
    groups with the largest fractions, to the first of equal ones.
    """
    exact = np.array(shares) * width + 1e-9  # rounding may put a whole number just below itself
    sizes = exact.astype(np.int64)
    n_left = round(float(exact.sum())) - int(sizes.sum())
    sizes[np.argsort(sizes - exact, kind="stable")[:n_left]] += 1
    sizes = np.maximum(sizes, 1)
    while sizes.sum() > width:  # what made some sizes 1 is taken from the largest
        sizes[sizes.argmax()] -= 1
    return sizes


def random_neurons(widths: Mapping[str, int], share: float, rng: np.random.Generator) -> Subnet:
    """A random share of the neurons of each axis, drawn without regard to other nodes.

    Source: Caldas et al., "Expanding the Reach of Federated Learning by Reducing Client Resource
    Requirements" (Federated Dropout), 2018.
    """
    return Subnet(
        {
            axis: np.sort(rng.permutation(width)[: _size(width, share)])
            for axis, width in widths.items()
        }
    )


def leading_neurons(widths: Mapping[str, int], share: float) -> Subnet:
    """The first neurons of each axis, a share of them.

    Sources: Diao et al., "HeteroFL", ICLR 2021; Horváth et al., "FjORD: Fair and Accurate Federated
    Learning under heterogeneous targets with Ordered Dropout", NeurIPS 2021.
    """
    return rolling_neurons(widths, share, 0)


def rolling_neurons(widths: Mapping[str, int], share: float, first: int) -> Subnet:
    """A share of the neurons of each axis: `first`, `first` + 1, …, going on at 0 after the last.

    Source: Alam et al., "FedRolex: Model-Heterogeneous Federated Learning with Rolling Sub-Model
    Extraction", NeurIPS 2022, where `first` is the round's number.
    """
    return Subnet(
        {
            axis: np.sort((first + np.arange(_size(width, share))) % width)
            for axis, width in widths.items()
        }
    )


def _size(width: int, share: float) -> int:
    return max(1, round(share * width))
