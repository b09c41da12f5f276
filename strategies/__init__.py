"""Flower strategies, by the name that the run config's `strategy` gives."""

from strategies.fedavg import FedAvgStrategy
from strategies.ist import IstStrategy
from strategies.slices import SliceStrategy

__all__ = ["STRATEGIES", "SliceStrategy"]

STRATEGIES: dict[str, type[SliceStrategy]] = {"fedavg": FedAvgStrategy, "ist": IstStrategy}
