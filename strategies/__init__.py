"""Flower strategies, by the name that the run config's `strategy` gives."""

from strategies.closed_form import Fed3rStrategy, FedNcmStrategy, FedPftStrategy
from strategies.compressed import TopKStrategy
from strategies.fedavg import FedAdamStrategy, FedAvgMStrategy, FedAvgStrategy
from strategies.ist import IstStrategy
from strategies.rounds import RoundStrategy
from strategies.submodels import (
    FedDropoutStrategy,
    FedRolexStrategy,
    FjordStrategy,
    HeteroFlStrategy,
)

__all__ = ["STRATEGIES", "RoundStrategy"]

STRATEGIES: dict[str, type[RoundStrategy]] = {
    "fed3r": Fed3rStrategy,
    "fedadam": FedAdamStrategy,
    "fedavg": FedAvgStrategy,
    "fedavgm": FedAvgMStrategy,
    "feddropout": FedDropoutStrategy,
    "fedncm": FedNcmStrategy,
    "fedpft": FedPftStrategy,
    "fedrolex": FedRolexStrategy,
    "fjord": FjordStrategy,
    "heterofl": HeteroFlStrategy,
    "ist": IstStrategy,
    "topk": TopKStrategy,
}
