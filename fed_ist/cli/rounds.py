"""The commands that measure rounds: what each costs, and whether memory, files or disk grow.

Everything heavy is imported where it is used.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from fed_ist.cli.experiments import App
from fed_ist.cli.numbers import fractions, whole_numbers
from fed_ist.errors import InputError
from fed_ist.printable import printable

round_commands = typer.Typer()

OUT = Path("results/bench")
LEAST_SHARE = 0.05  # with less, loading Flower takes longer than the 30 s that Flower waits
Out = Annotated[Path, typer.Option(help="Folder for the figures as JSON, and of history.jsonl.")]


@round_commands.command("round")
def round_(
    nodes: Annotated[
        str, typer.Option(help="Simulated nodes of each run, separated by commas.")
    ] = "2,16,64,256,1024",
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of each kind, after a first.")] = 5,
    images: Annotated[int, typer.Option(min=1, help="Images that each node trains on.")] = 64,
    hidden_dim: Annotated[int, typer.Option(min=1, help="Neurons of a hidden layer.")] = 1024,
    hidden_layers: Annotated[int, typer.Option(min=1, help="Hidden layers.")] = 2,
    local_steps: Annotated[int, typer.Option(min=1, help="Steps of a node in a round.")] = 20,
    out: Out = OUT,
    app: App = None,
) -> None:
    """What a round costs: seconds by step, against the same sums in one plain process.

    For comparison, it also measures empty rounds, rounds of Flower's own FedAvg on the same
    classifier (up to 256 nodes), and rounds of `--engine inline`. Embeddings are drawn at random.
    Figures are medians over the rounds; history.jsonl gets a line from each call.

    Example:

      fed-ist bench round --nodes 16,64 --rounds 5
    """
    counts = whole_numbers("--nodes", nodes)
    if max(counts) > hidden_dim:
        raise InputError(
            f"--nodes '{nodes}' is not possible with --hidden-dim {hidden_dim}: each node needs a "
            "neuron. Give fewer nodes, or a larger --hidden-dim."
        )
    request = {
        "n_nodes": counts,
        "n_rounds": rounds,
        "images": images,
        "hidden_dim": hidden_dim,
        "hidden_layers": hidden_layers,
        "local_steps": local_steps,
    }
    _measure("sims.benchmarks.round_bench", request, out, app)


@round_commands.command()
def start(
    runs: Annotated[int, typer.Option(min=1, help="Starts of each kind.")] = 5,
    out: Out = OUT,
    app: App = None,
) -> None:
    """What passes from `fed-ist run` to the first round of a simulation, its images encoded.

    For comparison, each turn also times Ray's own start and plain `flwr run` of an empty app. A
    turn takes half a minute or more.

    Example:

      fed-ist bench start --runs 5
    """
    _measure("sims.benchmarks.start_bench", {"n_runs": runs}, out, app)


@round_commands.command()
def train(
    width: Annotated[int, typer.Option(min=1, help="Neurons of a slice's hidden layer.")] = 256,
    layers: Annotated[str, typer.Option(help="Hidden layers, separated by commas.")] = "1,2",
    images: Annotated[int, typer.Option(min=1, help="Embeddings that a node has.")] = 4096,
    batch_size: Annotated[int, typer.Option(min=1, help="Embeddings in a step.")] = 64,
    out: Out = OUT,
) -> None:
    """Steps a second of training a slice: as a node does it, and by plain torch loops.

    One loop has the embeddings in memory, in torch's usual number of threads or in one; the other
    reads each from a .pt file of its own, as the paper's notebooks do. "difference" is how far
    weights after an epoch of the same batches are from ours, at most; "against torch" compares with
    the faster of the loops in memory. "its products alone" are the matrix products of our steps,
    in one thread: the limit.
    """
    import tempfile

    from fed_ist.benchmarks.history import keep_figures
    from fed_ist.benchmarks.training import training_pace
    from fed_ist.files.paths import require_writable

    counts = whole_numbers("--layers", layers)
    require_writable(out.absolute(), "--out")
    settings = {"width": width, "layers": counts, "images": images, "batch_size": batch_size}
    found = []
    typer.echo(
        f"{'layers':>6}  {'way':22}  {'steps/s':>8}  {'epoch s':>8}  against torch  difference"
    )
    with tempfile.TemporaryDirectory(prefix="fed-ist-train-") as folder:
        for row in training_pace(width, counts, images, batch_size, Path(folder)):
            found.append(vars(row))
            difference = "-" if row.difference is None else f"{row.difference:.1e}"
            typer.echo(
                f"{row.hidden_layers:6}  {row.way:22}  {row.steps_s:8.0f}  {row.epoch_s:8.2f}  "
                f"{row.against_torch:12.2f}x  {difference:>10}"
            )
    keep_figures(out, "train", settings, found)
    typer.echo(f"figures  {printable((out / 'train.json').resolve())}")


@round_commands.command()
def message(
    cores: Annotated[
        str, typer.Option(help="Shares of a core of this machine, separated by commas, a run each.")
    ] = "1,0.5,0.2",
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of each run, after a first.")] = 5,
    images: Annotated[int, typer.Option(min=4, help="Images of the node.")] = 400,
    hidden_dim: Annotated[int, typer.Option(min=1, help="Neurons of the slice.")] = 256,
    out: Out = OUT,
    app: App = None,
) -> None:
    """Where a device's seconds go, from a message to its reply. Linux, as root.

    A SuperLink and a SuperNode run on this machine; node and ClientApps together get a share of a
    core, which makes them as slow as a device's. "waking" ends with the start of the ClientApp's
    process; "Flower" and "app" are what loading them takes, and fetching the slice; "coding" is to
    read it and to write the answer. Of the processor, "process" is the ClientApp's whole life, and
    "node" what the SuperNode itself takes. Medians over the rounds. A run takes about a minute on a
    whole core, three on a fifth.

    Example:

      sudo fed-ist bench message --cores 1,0.2
    """
    request = {
        "cores": fractions("--cores", cores, LEAST_SHARE),
        "n_rounds": rounds,
        "images": images,
        "hidden_dim": hidden_dim,
    }
    _measure("sims.benchmarks.message_bench", request, out, app)


@round_commands.command()
def superlink(
    nodes: Annotated[
        str, typer.Option(help="SuperNodes of each run, separated by commas; 0.2 GB each.")
    ] = "4,16",
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of each run, after a first.")] = 5,
    idle_s: Annotated[
        float, typer.Option(min=1, help="Seconds for which waiting nodes are watched first.")
    ] = 60.0,
    out: Out = OUT,
    app: App = None,
) -> None:
    """What each node costs the server, waiting and in a round: processor, memory, disk.

    A SuperLink with its database on disk and SuperNodes run on this machine. With two cores 4 nodes
    take two to three minutes, 16 take six.

    Example:

      fed-ist bench superlink --nodes 4,16
    """
    request = {
        "n_nodes": whole_numbers("--nodes", nodes, 2, 200),
        "n_rounds": rounds,
        "idle_s": idle_s,
    }
    _measure("sims.benchmarks.superlink", request, out, app)


@round_commands.command()
def soak(
    nodes: Annotated[int, typer.Option(min=2, max=200, help="SuperNodes.")] = 8,
    rounds: Annotated[int, typer.Option(min=5, help="Rounds of the run.")] = 500,
    minutes: Annotated[
        float, typer.Option(min=1, help="Ends then, with what it has; starting counts.")
    ] = 240.0,
    out: Annotated[Path, typer.Option(help="Folder for soak.json and soak.md.")] = Path("soak"),
    app: App = None,
) -> None:
    """Whether many rounds take more and more memory, open files or disk.

    A SuperLink with its database on disk and SuperNodes run on this machine, in short rounds. The
    report compares rounds 40 to 60 with the last 20, process by process; it is written as the run
    goes.

    Example:

      fed-ist bench soak --nodes 8 --rounds 500 --out soak
    """
    request = {
        "n_nodes": nodes,
        "n_rounds": rounds,
        "minutes": minutes,
    }
    _measure("sims.benchmarks.soak", request, out, app)


def _measure(module: str, request: Mapping[str, object], out: Path, app: Path | None) -> NoReturn:
    """Run a benchmark of the app, which writes its figures to `out`, and end with its exit code."""
    from fed_ist.files.paths import require_writable
    from fed_ist.launch.processes import find_app, run_module

    out = out.absolute()
    require_writable(out, "--out")
    raise typer.Exit(run_module(find_app(app), module, {**request, "out": str(out)}))
