"""The commands that make many runs over the same embeddings: `compare` and `sweep`."""

from pathlib import Path
from typing import Annotated

import typer

from fed_ist.cli.helping import Commands
from fed_ist.cli.numbers import whole_numbers

experiments = typer.Typer()

Dataset = Annotated[
    str, typer.Argument(help="An image folder, a parquet file, a Hub name, scenes.")
]
TestDataset = Annotated[str, typer.Option(help="Where the test images are, if elsewhere.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any run-config key; repeat for more."),
]
ImageLimit = Annotated[int, typer.Option(min=0, help="Images of each split; 0: all.")]
Out = Annotated[Path, typer.Option(help="Folder of the runs and the report.")]
Workers = Annotated[int, typer.Option(min=0, help="Runs at a time; 0: one for each core.")]
App = Annotated[
    Path | None,
    typer.Option(help="A fed-ist checkout other than the current folder or the installed one."),
]


@experiments.command()
def compare(
    dataset: Dataset,
    out: Out,
    test_dataset: TestDataset = "",
    clients: Annotated[str, typer.Option(help="Numbers of clients.")] = "4,16,64",
    partition: Annotated[
        str, typer.Option(help="How images are shared: iid, dirichlet(0.3).")
    ] = "iid,dirichlet(0.3)",
    methods: Annotated[
        str, typer.Option(help="Names, separated by ';', of what is compared; all if empty.")
    ] = "",
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each, with other seeds.")] = 3,
    setting: SetOption = None,
    limit: ImageLimit = 0,
    workers: Workers = 0,
    app: App = None,
) -> None:
    """Compare IST with its peers: accuracy against bytes, in one report.

    Runs are kept in the folder: called again, only what is missing is run.

    Example:

      fed-ist compare images --clients 8 --partition iid --seeds 1 --out comparison
    """
    from fed_ist.launch.processes import find_app, run_module

    request = {
        "overrides": _overrides(dataset, test_dataset, setting or []),
        "clients": whole_numbers("--clients", clients),
        "partitions": [name.strip() for name in partition.split(",")],
        "methods": [name.strip() for name in methods.split(";") if name.strip()],
        "n_seeds": seeds,
        "limit": limit,
        "out": str(out.absolute()),
        "n_workers": workers,
    }
    raise typer.Exit(run_module(find_app(app), "sims.experiments.compare", request))


sweep = typer.Typer(cls=Commands, no_args_is_help=True, help="Run a published set of experiments.")
experiments.add_typer(sweep, name="sweep")


@sweep.command()
def paper(
    dataset: Dataset,
    out: Out,
    test_dataset: TestDataset = "",
    mask_ratio: Annotated[
        str, typer.Option(help="Shares of the patches to drop, separated by commas.")
    ] = "0,0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9",
    masks: Annotated[str, typer.Option(help="Masks, separated by commas, or all.")] = (
        "random,fixed"
    ),
    clients: Annotated[
        str, typer.Option(help="Numbers of clients, the paper's workers.")
    ] = "1,2,3,4",
    epochs: Annotated[
        int, typer.Option(min=1, help="Passes over the images, times the number of clients.")
    ] = 30,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each, with other seeds.")] = 1,
    setting: SetOption = None,
    limit: ImageLimit = 0,
    workers: Workers = 0,
    app: App = None,
) -> None:
    """The experiments of Kariotakis et al. (CPAL 2024): mask ratio by mask by number of clients.

    Two hidden layers of 1024 neurons, dealt anew every 20 steps; --set changes that. Without
    --test-dataset 15% of each class is held out, unless DATASET has a test split. Runs are kept in
    the folder: called again, only what is missing is run.

    Example:

      fed-ist sweep paper images --mask-ratio 0,0.5,0.9 --out sweep
    """
    from fed_ist.comparisons.probe_table import parse_masks, parse_ratios
    from fed_ist.launch.processes import find_app, run_module

    request = {
        "overrides": _overrides(dataset, test_dataset, setting or []),
        "mask_ratios": parse_ratios(mask_ratio),
        "masks": parse_masks(masks),
        "clients": sorted(set(whole_numbers("--clients", clients))),
        "epochs": epochs,
        "n_seeds": seeds,
        "limit": limit,
        "out": str(out.absolute()),
        "n_workers": workers,
    }
    raise typer.Exit(run_module(find_app(app), "sims.experiments.sweep", request))


def _overrides(dataset: str, test_dataset: str, settings: list[str]) -> dict[str, object]:
    """The run-config keys of a command's options, with paths made absolute."""
    from fed_ist.config.toml import absolute_paths, parse_setting

    chosen = dict(parse_setting(text) for text in settings)
    return dict(absolute_paths({"dataset": dataset, "test-dataset": test_dataset} | chosen))
