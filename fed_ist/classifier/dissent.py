"""Whether what a node has learnt contradicts what all other nodes have learnt in the same round.

Slices of different neurons have no number in common, but each is a small classifier of the same
inputs and classes, and the product of its weight matrices has one number for each input and class,
whichever neurons it has. That product describes the classifier: for inputs of mean 0 and normal
numbers, a ReLU layer gives half of its linear map, and a rest that is uncorrelated with it
(Bussgang 1952). So one can compare how training changes the product. Honest nodes all agree with
the others about equally, even where they have different classes; a node that sends the opposite, or
learns from wrong labels, agrees far less.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fed_ist.classifier.exact_sum import ExactSum
from fed_ist.classifier.layout import Params, count_layers
from fed_ist.classifier.node_weights import low_median

LEAST_NODES = 4  # among fewer, nobody can say which one is wrong
DEVIATION = 1.4826  # standard deviation of normal numbers over their median absolute deviation
LEAST_SPREAD = 0.02  # of agreements: without it, rounding would set apart nodes that are all alike
ALLOWED = 3.0  # spreads below the median that do not count
LEAVE_OUT = 1.0  # suspicion above which a node is left out: a round 4 spreads or more below
MOST_IN_ROUND = 5.0  # suspicion that one round adds, at most
FORGIVEN = 1.0  # suspicion that a round in agreement takes away


def direction(sent: Params, trained: Params) -> NDArray[np.float64]:
    """How training changed the product of a slice's weight matrices, to first order.

    sent, trained: float32 parameters of one slice, before and after training.
    Returns float64 (num_classes, embed_dim) of length 1, or zeros where nothing changed. The mean
    over the classes is subtracted, since softmax does not see it.
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
    """The cosine of each direction with the sum of all others; 0 where either is zero.

    directions: float64 arrays of one shape.
    """
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
    """How far each agreement lies below the median, in multiples of the usual spread.

    The spread is the median absolute deviation, scaled as for normal numbers. It is at least a
    quarter of the median, so that a node that agrees half as much as most is not suspected.
    """
    values = np.asarray(agreed, dtype=np.float64)
    middle = low_median(values)
    typical = DEVIATION * float(np.median(np.abs(values - middle)))
    below = (middle - values) / max(typical, abs(middle) / 4, LEAST_SPREAD)
    return [float(each) for each in below]


class Suspicion:
    """The suspicion against each node, summed over the rounds; nodes with too much are left out.

    by_name: the suspicion of each node so far, in spreads below the median.
    Each round in which a node agrees takes `FORGIVEN` off. So a node that contradicted the others
    early, when agreement says much, stays out for some rounds; late in a run what nodes learn is
    mostly noise, and agreement says little. Source: Page, "Continuous Inspection Schemes",
    Biometrika 1954 (the cumulative sum), with a limit to what one round may add.
    """

    def __init__(self, by_name: Mapping[str, float] | None = None) -> None:
        self.by_name = dict(by_name or {})

    def judge(self, below: Mapping[str, float]) -> Collection[str]:
        """The names of the nodes to leave out of this round, whose suspicion is now too large.

        below: node -> how far its agreement lies below the median, from `spreads_below`.
        """
        for name, spreads in below.items():
            excess = spreads - ALLOWED
            added = min(excess, MOST_IN_ROUND) if excess > 0 else -FORGIVEN
            self.by_name[name] = max(0.0, self.by_name.get(name, 0.0) + added)
        return {name for name in below if self.by_name[name] > LEAVE_OUT}
