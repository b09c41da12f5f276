"""Flower strategies, by the name that the run config's `strategy` gives."""

from fed_ist.config.run_config import RunConfig
from fed_ist.traffic.ledger import Ledger
from strategies.closed_form import Fed3r, FedCof, FedNcm, FedPft
from strategies.core.method import ClosedForm, Method
from strategies.fedavg import FedAdam, FedAvg, FedAvgM
from strategies.federated import FederatedStrategy
from strategies.ist import Ist
from strategies.own_app import IstStrategy
from strategies.submodels import FedDropout, FedRolex, Fjord, HeteroFl
from strategies.top_k import TopK

__all__ = ["METHOD_CLASSES", "FederatedStrategy", "IstStrategy", "create_strategy"]

METHOD_CLASSES: dict[str, type[Method] | type[ClosedForm]] = {
    "fed3r": Fed3r,
    "fedadam": FedAdam,
    "fedavg": FedAvg,
    "fedavgm": FedAvgM,
    "fedcof": FedCof,
    "feddropout": FedDropout,
    "fedncm": FedNcm,
    "fedpft": FedPft,
    "fedrolex": FedRolex,
    "fjord": Fjord,
    "heterofl": HeteroFl,
    "ist": Ist,
    "topk": TopK,
}


def create_strategy(
    config: RunConfig,
    class_names: tuple[str, ...],
    embed_dim: int,
    ledger: Ledger,
    *,
    decorrelated: bool = False,
) -> FederatedStrategy:
    """The strategy of a run with the method that its config names; see `FederatedStrategy`."""
    kind = METHOD_CLASSES[config.strategy]
    if issubclass(kind, ClosedForm):
        method: Method | ClosedForm = kind(config, embed_dim, len(class_names))
    else:
        method = kind(config)
    return FederatedStrategy(config, class_names, embed_dim, ledger, method, decorrelated)
