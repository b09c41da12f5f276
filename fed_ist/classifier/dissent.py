"""Whether what a node has learnt goes against what all the others have learnt in the same round.

Slices of different neurons have no number in common, but each is a small classifier of the same
inputs and classes, and the product of its weight matrices has one number for each input and class,
whatever its neurons: to an input of mean 0 and normal numbers, a ReLU layer is half of its linear
part and what is uncorrelated with it (Bussgang 1952). How training changes that product can be
compared. Honest nodes agree with the rest about as much as one another, even where their classes
are unlike; one that sends the opposite, or learns from wrong labels, stands far apart.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fed_ist.classifier.exact_sum import ExactSum
from fed_ist.classifier.layout import Params, count_layers
from fed_ist.classifier.node_weights import low_median

LEAST_NODES = 4  # of fewer, one could not say which of them is the odd one out
DEVIATION = 1.4826  # of normal numbers, over their median absolute deviation
LEAST_SPREAD = 0.02  # of agreements, lest nodes that are all alike be told apart by rounding
ALLOWED = 3.0  # spreads below the median that are of no account
LEAVE_OUT = 1.0  # suspicion above which a node is left out: one round at 4 spreads and more
MOST_IN_ROUND = 5.0  # suspicion that one round adds, at most
FORGIVEN = 1.0  # suspicion that a round in agreement takes away


def direction(sent: Params, trained: Params) -> NDArray[np.float64]:
    """How training changed the product of a slice's weight matrices, to first order.

    Returns (num_classes, embed_dim) of length 1, or zeros where nothing changed. What is common to
    all classes is taken off: softmax does not see it.
    """
    names = [f"fc{layer}.weight" for layer in range(count_layers(sent), 0, -1)]
    change: NDArray[np.float64] = np.zeros(())
    for changed in names:
        terms = [
            trained[name].astype(np.float64) - sent[name] if name == changed else sent[name]
            for name in names
        ]
        product = terms[0]
        for term in terms[1:]:
            product = product @ term
        change = change + product
    change = change - change.mean(axis=0)
    return change / (float(np.linalg.norm(change)) or 1.0)


def agreements(directions: Iterable[NDArray[np.float64]]) -> list[float]:
    """The cosine of each direction with the sum of all others."""
    found = list(directions)
    if not found:
        return []
    total = ExactSum(found[0].shape)
    for each in found:
        total.add(each)
    whole = total.total()  # the same in whatever order they came
    return [_cosine(each, whole - each) for each in found]


def _cosine(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(np.sum(a * b)) / lengths if lengths else 0.0


def spreads_below(agreed: Sequence[float]) -> list[float]:
    """How far each agreement lies below the median, in spreads of the honest ones.

    The spread is the median absolute deviation, scaled as for normal numbers; at least a quarter of
    the median, so that one who agrees half as much as most is not suspected.
    """
    values = np.asarray(agreed, dtype=np.float64)
    middle = low_median(values)
    typical = DEVIATION * float(np.median(np.abs(values - middle)))
    below = (middle - values) / max(typical, abs(middle) / 4, LEAST_SPREAD)
    return [float(each) for each in below]


class Suspicion:
    """What speaks against each node, summed over the rounds; who has too much is left out.

    Late in a run what nodes learn is mostly noise, and agreement says little: who went against the
    others while it said much stays out, a round in agreement for each unit of suspicion. Source:
    Page, "Continuous Inspection Schemes", Biometrika 1954 (the cumulative sum), with a limit to
    what one round may add.
    """

    def __init__(self, by_name: Mapping[str, float] | None = None) -> None:
        self.by_name = dict(by_name or {})

    def judge(self, below: Mapping[str, float]) -> Collection[str]:
        """The nodes of a round that are to be left out of it.

        below: of each, as of `spreads_below`.
        """
        for name, spreads in below.items():
            excess = spreads - ALLOWED
            added = min(excess, MOST_IN_ROUND) if excess > 0 else -FORGIVEN
            self.by_name[name] = max(0.0, self.by_name.get(name, 0.0) + added)
        return {name for name in below if self.by_name[name] > LEAVE_OUT}
