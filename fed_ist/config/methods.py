"""The table of methods: what each is, in one row. The `strategies` package has a class for each."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Method:
    """One value of the key `strategy`.

    travels: what nodes get and send, in words. source: the paper that the method is from.
    is_sliced: whether nodes get slices, which may differ in size.
    is_grouped: whether the key `groups` says how many slices there are.
    in_rounds: whether nodes train in rounds; otherwise the classifier is solved from what they send
    once.
    """

    travels: str
    source: str
    is_sliced: bool = False
    is_grouped: bool = False
    in_rounds: bool = True


# fmt: off
METHODS: Mapping[str, Method] = {
    "fedadam": Method("the whole classifier; the server keeps Adam's moments", "Reddi et al. 2021"),
    "fedavg": Method("the whole classifier", "McMahan et al. 2017"),
    "fedavgm": Method("the whole classifier; the server keeps momentum", "Hsu et al. 2019"),
    "feddropout": Method("random slices that may overlap", "Caldas et al. 2018",
        is_sliced=True, is_grouped=True),
    "fedrolex": Method("as many neighbouring neurons as `capacities` says, one further in each "
        "round", "Alam et al. 2022", is_sliced=True),
    "fjord": Method("as `heterofl`; each step trains a random level of `capacities`",
        "Horváth et al. 2021", is_sliced=True),
    "heterofl": Method("the first neurons, as many as `capacities` says", "Diao et al. 2021",
        is_sliced=True),
    "ist": Method("disjoint slices, dealt anew in each round", "Yuan et al. 2022",
        is_sliced=True, is_grouped=True),
    "topk": Method("the whole classifier; back, the largest changes", "Stich et al. 2018"),
    "fed3r": Method("sums for a ridge regression, once; with `anchor-bytes` on random features",
        "Fanì et al. 2024, McDonnell et al. 2023", in_rounds=False),
    "fedcof": Method("class means, once; their covariance is told from how nodes' means differ",
        "Guo et al. 2025", in_rounds=False),
    "fedncm": Method("class means, once", "Legate et al. 2023", in_rounds=False),
    "fedpft": Method("a Gaussian for each class, once", "Beitollahi et al. 2024", in_rounds=False),
}
# fmt: on
STRATEGIES = tuple(METHODS)
SLICED = tuple(name for name, method in METHODS.items() if method.is_sliced)
GROUPED = tuple(name for name, method in METHODS.items() if method.is_grouped)
TRAINED = tuple(name for name, method in METHODS.items() if method.in_rounds)
CLOSED_FORMS = tuple(name for name in METHODS if name not in TRAINED)
