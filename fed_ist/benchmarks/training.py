"""How fast a slice is trained: as a node does it, by a torch loop, and from a file for each item.

The last is how the paper's notebooks read embeddings: one .pt file each, through a DataLoader. The
lower limit of all times is that of the matrix products of the same steps, which are timed alone.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from fed_ist.classifier.layout import Params, init_params
from fed_ist.rng import generator
from fed_ist.training.local import Examples, LocalTraining, train

EMBED_DIM, N_CLASSES = 192, 30
ROUNDS = 7
SETTLE_S = 0.3  # torch's threads go on spinning for 0.2 s, which would slow down the next way
FILES_AT_MOST = 512
OURS, OURS_1, PRODUCTS = "fed-ist", "fed-ist, 1 thread", "its products alone"
PLAIN, PLAIN_1, FILES = "torch loop", "torch loop, 1 thread", "torch, a file an item"


@dataclass(frozen=True)
class Pace:
    """The speed of one way to train one slice.

    width: neurons of the slice in each hidden layer.
    steps_s: optimiser steps per second, the median of several turns. epoch_s: seconds for all
    examples. against_torch: steps_s over that of the faster torch loop.
    difference: the largest difference of a weight from ours after an epoch; None where the batches
    are others, or where nothing is trained.
    """

    width: int
    hidden_layers: int
    way: str
    steps_s: float
    epoch_s: float
    against_torch: float
    difference: float | None


def training_pace(
    width: int, layers: Sequence[int], n_examples: int, batch_size: int, folder: Path
) -> Iterator[Pace]:
    """The speed of every way, on slices with each number of hidden layers in `layers`.

    width: neurons of the slices in each hidden layer. folder: for the files of items.
    """
    how = LocalTraining(1, 0, batch_size, "adam", 1e-3)
    rng = generator(0, "train bench")
    x = rng.normal(size=(n_examples, EMBED_DIM)).astype(np.float32)
    y = rng.integers(0, N_CLASSES, n_examples)
    np.save(folder / "values.npy", x)
    mapped = np.load(folder / "values.npy", mmap_mode="r")
    items = write_items(folder, x[:FILES_AT_MOST], y[:FILES_AT_MOST])
    usual = torch.get_num_threads()
    for n_layers in layers:
        params = init_params(EMBED_DIM, width, N_CLASSES, rng, n_layers)
        ways: Mapping[str, tuple[int, Callable[[], Params]]] = {
            OURS: (n_examples, partial(ours, params, (mapped, y), how, None)),
            OURS_1: (n_examples, partial(ours, params, (mapped, y), how, 1)),
            PRODUCTS: (n_examples, partial(products, params, mapped, how)),
            PLAIN: (n_examples, partial(plain_loop, params, (x, y), how, usual)),
            PLAIN_1: (n_examples, partial(plain_loop, params, (x, y), how, 1)),
            FILES: (len(items), partial(from_files, params, items, how, usual)),
        }
        yield from _compare(ways, width, n_layers, n_examples, how)
    torch.set_num_threads(usual)


def _compare(
    ways: Mapping[str, tuple[int, Callable[[], Params]]],
    width: int,
    n_layers: int,
    n_examples: int,
    how: LocalTraining,
) -> list[Pace]:
    trained = {way: once() for way, (_, once) in ways.items()}  # which also warms up
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in tqdm(
        range(ROUNDS), desc=f"{width} wide, {n_layers} hidden", leave=False, disable=None
    ):
        for way, (_, once) in ways.items():
            time.sleep(SETTLE_S)
            began = time.perf_counter()
            once()
            seconds[way].append(time.perf_counter() - began)
    pace = {
        way: how.count_steps(n) / statistics.median(seconds[way]) for way, (n, _) in ways.items()
    }
    fastest = max(pace[PLAIN], pace[PLAIN_1])
    whole = how.count_steps(n_examples)
    return [
        Pace(
            width=width,
            hidden_layers=n_layers,
            way=way,
            steps_s=pace[way],
            epoch_s=whole / pace[way],
            against_torch=pace[way] / fastest,
            difference=None
            if way in (FILES, PRODUCTS)
            else _difference(trained[OURS], trained[way]),
        )
        for way in ways
    ]


def _difference(one: Params, other: Params) -> float:
    return max(float(np.abs(one[name] - other[name]).max()) for name in one)


def ours(params: Params, examples: Examples, how: LocalTraining, n_threads: int | None) -> Params:
    """Train as a node does, and return the trained parameters, float32 of the same shapes.

    examples: embeddings float32 (n, d) and labels int64 (n,). n_threads: None for numpy's default.
    """
    with threadpool_limits(n_threads):
        trained, _ = train(params, lambda _: examples, how, 1.0, generator(0, "order"))
    return trained


def products(params: Params, x: np.ndarray, how: LocalTraining) -> Params:
    """Compute the matrix products of the same steps in one thread, and nothing else.

    x: float32 (n, d). Returns `params` as they are, float32 of any shapes.
    """
    weights = [array for name, array in params.items() if name.endswith(".weight")]
    with threadpool_limits(1):
        for start in range(0, len(x), how.batch_size):
            values = [x[start : start + how.batch_size]]
            for weight in weights:
                values.append(values[-1] @ weight.T)
            gradient = values.pop()
            for number in reversed(range(len(weights))):
                gradient.T @ values[number]
                if number:
                    gradient = gradient @ weights[number]
    return params


def plain_loop(params: Params, examples: Examples, how: LocalTraining, n_threads: int) -> Params:
    """Train on the same batches with torch's modules and optimiser, in `n_threads` threads.

    examples: embeddings float32 (n, d) and labels int64 (n,). Returns the trained parameters.
    """
    torch.set_num_threads(n_threads)
    x, y = (torch.from_numpy(np.asarray(array)) for array in examples)
    model, rng = _module(params), generator(0, "order")
    optimizer = torch.optim.Adam(model.parameters(), how.learning_rate)
    for _ in range(how.local_epochs):
        order = torch.from_numpy(rng.permutation(len(y)))
        for rows in order.split(how.batch_size):  # type: ignore[no-untyped-call]
            _step(model, optimizer, x[rows], y[rows])
    return _params(model)


def from_files(params: Params, items: Sequence[Path], how: LocalTraining, n_threads: int) -> Params:
    """Train with torch on items that have a file each.

    Returns the trained parameters, float32 of the same shapes.
    """
    torch.set_num_threads(n_threads)
    model = _module(params)
    optimizer = torch.optim.Adam(model.parameters(), how.learning_rate)
    loader = DataLoader(_Items(items), how.batch_size, shuffle=True)
    for _ in range(how.local_epochs):
        for x, y in loader:
            _step(model, optimizer, x, y)
    return _params(model)


def write_items(folder: Path, x: np.ndarray, y: np.ndarray) -> list[Path]:
    """Write a .pt file for each example, x float32 (n, d) and y int64 (n,); returns their paths."""
    paths = [folder / f"{i}.pt" for i in range(len(y))]
    for path, value, label in zip(paths, x, y, strict=True):
        torch.save((torch.from_numpy(value.copy()), int(label)), path)
    return paths


class _Items(Dataset[tuple[torch.Tensor, int]]):
    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        found: tuple[torch.Tensor, int] = torch.load(self._paths[i], weights_only=True)
        return found


def _step(
    model: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor, y: torch.Tensor
) -> None:
    optimizer.zero_grad()
    functional.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def _module(params: Params) -> nn.Sequential:
    """Torch's layers with these parameters, for a classifier without norms."""
    layers: list[nn.Module] = []
    for number in range(1, len(params) // 2 + 1):
        weight, bias = params[f"fc{number}.weight"], params[f"fc{number}.bias"]
        linear = nn.Linear(weight.shape[1], weight.shape[0])
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(weight))
            linear.bias.copy_(torch.from_numpy(bias))
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _params(model: nn.Sequential) -> Params:
    linear = [layer for layer in model if isinstance(layer, nn.Linear)]
    found: Params = {}
    for number, layer in enumerate(linear, start=1):
        found[f"fc{number}.weight"] = layer.weight.detach().numpy()
        found[f"fc{number}.bias"] = layer.bias.detach().numpy()
    return found
