"""Which images a simulated node has: flwr-datasets' partitioners, applied to indices.

A partition is kept in the cache, since importing flwr-datasets takes each process seconds.
"""

import io
from collections.abc import Callable
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fed_ist.errors import InputError
from fed_ist.files.cache import digest, keep, recall
from fed_ist.files.hub import root_cause
from fed_ist.images.source import ImageSource
from fed_ist.rng import torch_seed

PARTITIONERS = ("iid", "dirichlet", "pathological", "column")


def partition(
    source: ImageSource,
    partitioner: str,
    n_nodes: int,
    node: int,
    *,
    alpha: float,
    classes_per_node: int,
    column: str,
    seed: int,
    cache: Path,
) -> ImageSource:
    """The images of one simulated node, by one of flwr-datasets' partitioners.

    partitioner: "iid"; "dirichlet" (the smaller `alpha`, the more the nodes differ); "pathological"
        (`classes_per_node` classes on each node); "column" (a node for each value of `column`).
    Raises `InputError` where the images cannot be divided in this way.
    """
    how = (partitioner, n_nodes, alpha, classes_per_node, column, seed)
    indices = _partitions(_Table(source), *how, cache)[node]
    return source.subset(indices)


class _Table:
    """A source as a cache key: two are equal if their signatures are."""

    def __init__(self, source: ImageSource) -> None:
        self.source = source

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Table) and other.source.signature == self.source.signature

    def __hash__(self) -> int:
        return hash(self.source.signature)


@lru_cache(maxsize=4)
def _partitions(
    table: _Table,
    partitioner: str,
    n_nodes: int,
    alpha: float,
    classes_per_node: int,
    column: str,
    seed: int,
    cache: Path,
) -> list[NDArray[np.int64]]:
    """The indices of the images of each node: ascending int64 (k,)."""
    source = table.source
    key = [source.signature, partitioner, n_nodes, alpha, classes_per_node, column, seed]
    key += [version(package) for package in ("flwr-datasets", "datasets", "numpy")]
    path = cache / f"partition-{digest(*key)}.npz"
    if (known := _read(path)) is not None:
        return known
    by = None
    if partitioner == "column":
        if column not in source.columns:
            have = ", ".join(source.columns) or "none"
            raise InputError(f"partition-column = '{column}' is not there. Columns: {have}.")
        by = source.columns[column].astype(str)
        n_values = len(np.unique(by))
        if n_values != n_nodes:
            raise InputError(
                f"Column '{column}' has {n_values} values, so it divides the images for {n_values} "
                f"nodes, not {n_nodes}."
            )
    found = split_indices(
        source.labels,
        partitioner,
        n_nodes,
        alpha=alpha,
        classes_per_node=classes_per_node,
        by=by,
        seed=seed,
    )
    keep(path, _packed(found))
    return found


def _read(path: Path) -> list[NDArray[np.int64]] | None:
    kept = recall(path)
    if kept is None:
        return None
    with np.load(io.BytesIO(kept)) as file:
        return np.split(file["indices"], file["ends"][:-1])


def _packed(partitions: list[NDArray[np.int64]]) -> bytes:
    """The bytes that `_read` reads."""
    data = io.BytesIO()
    ends = np.cumsum([len(rows) for rows in partitions])
    np.savez_compressed(data, indices=np.concatenate(partitions), ends=ends)
    return data.getvalue()


def split_indices(
    labels: NDArray[np.int64],
    partitioner: str,
    n_nodes: int,
    *,
    alpha: float,
    classes_per_node: int,
    by: NDArray[np.str_] | None,
    seed: int,
) -> list[NDArray[np.int64]]:
    """The indices of the examples of each node: ascending int64 (k,).

    labels: int64 (n,). by: for "column", its value for each example, texts (n,); else None.
    The other arguments are those of `partition`.
    """
    from datasets import Dataset
    from flwr_datasets.partitioner import (
        DirichletPartitioner,
        IidPartitioner,
        NaturalIdPartitioner,
        PathologicalPartitioner,
    )

    columns: dict[str, NDArray[Any]] = {"index": np.arange(len(labels)), "label": labels}
    if by is not None:
        columns["by"] = by
    drawn = torch_seed(seed, "partition") % 2**31
    makers: dict[str, Callable[[], Any]] = {
        "iid": lambda: IidPartitioner(n_nodes),
        "dirichlet": lambda: DirichletPartitioner(
            n_nodes, partition_by="label", alpha=alpha, min_partition_size=1, seed=drawn
        ),
        "pathological": lambda: PathologicalPartitioner(
            n_nodes, "label", classes_per_node, class_assignment_mode="deterministic", seed=drawn
        ),
        "column": lambda: NaturalIdPartitioner(partition_by="by"),
    }
    what = f"{len(labels)} images of {len(np.unique(labels))} classes"
    if n_nodes > len(labels) and partitioner != "column":
        raise InputError(
            f"{what} cannot be divided among {n_nodes} nodes: use {len(labels)} nodes at most."
        )
    try:
        drawer = makers[partitioner]()
        # Images may come sorted by class; the IID partitioner takes every n-th of them as they lie.
        drawer.dataset = Dataset.from_dict(columns).shuffle(seed=drawn)
        found = [np.sort(np.array(drawer.load_partition(i)["index"])) for i in range(n_nodes)]
    except Exception as error:  # the partitioners raise several kinds for impossible requests
        raise InputError(
            f"{what} cannot be divided among {n_nodes} nodes by '{partitioner}': "
            f"{root_cause(error)}"
        ) from error
    n_classes = len(np.unique(labels))
    n_given = len(np.unique(labels[np.concatenate(found)]))
    # It gives node i the classes from i on, so that the last classes may go to no node.
    if partitioner == "pathological" and n_given < n_classes:
        raise InputError(
            f"{n_classes - n_given} of {n_classes} classes would go to none of {n_nodes} nodes by "
            f"'pathological', classes-per-node = {classes_per_node}. Give more nodes, or "
            f"classes-per-node = {n_classes - n_nodes + 1}; or use partitioner = 'dirichlet'."
        )
    empty = [i for i, indices in enumerate(found) if len(indices) == 0]
    if empty:
        raise InputError(
            f"{len(labels)} images are too few for {n_nodes} nodes by '{partitioner}': "
            f"node {empty[0]} would get none. Use fewer nodes."
        )
    return found
