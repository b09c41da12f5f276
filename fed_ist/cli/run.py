"""The command that trains: `fed-ist run`. Everything heavy is imported where it is used."""

from contextlib import ExitStack, contextmanager
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fed_ist.cli.experiments import App
from fed_ist.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fed_ist.config.run_config import RunConfig
    from fed_ist.config.toml import Value
    from fed_ist.launch.flower_run import Ended
    from fed_ist.launch.run_log import RunLog

USUAL_NODES = 4


class Engine(StrEnum):
    """What simulates the nodes."""

    FLOWER = "flower"
    INLINE = "inline"


training = typer.Typer()


@training.command()
def run(
    images: Annotated[
        str, typer.Argument(help="A folder, table or Hub name, as key dataset; or as settings say.")
    ] = "",
    nodes: Annotated[
        int | None, typer.Option(min=1, help="Simulated nodes; 4 if nothing else is said.")
    ] = None,
    preset: Annotated[
        str, typer.Option(help="A preset's name (sims/configs/NAME.toml), or a TOML file.")
    ] = "",
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any run-config key; repeat for more."),
    ] = None,
    name: Annotated[
        str, typer.Option(help="The run's folder in results/; a timestamp and the preset if empty.")
    ] = "",
    app: App = None,
    on: Annotated[
        str, typer.Option(help="A SuperLink of your Flower config, instead of a simulation.")
    ] = "",
    engine: Annotated[
        Engine,
        typer.Option(
            help="What simulates: Flower's own engine, or this process alone, which is faster and "
            "gives the same files."
        ),
    ] = Engine.FLOWER,
    resume: Annotated[
        Path | None,
        typer.Option(help="A run that was cut, by name or path: go on after its last whole round."),
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Print Flower's log, not how far the run is.")
    ] = False,
) -> None:
    """Train by federated learning: a thin front to `flwr run`.

    Examples:

      fed-ist run

      fed-ist run images --preset anchored --nodes 8

      fed-ist run --set mask-ratio=0.75 --set strategy=fedavg

      fed-ist run --resume results/mine
    """
    from fed_ist.cli.outcome import forget_reason, needs_log, print_outcome
    from fed_ist.config.derive import require_encoder
    from fed_ist.config.parsing import parse_config, require_used
    from fed_ist.config.toml import parse_setting, read_defaults
    from fed_ist.files.paths import require_absent, require_cache, require_writable, results_dir
    from fed_ist.launch.processes import find_app, require_connection
    from fed_ist.launch.run_log import open_run_log

    folder = find_app(app)
    chosen = dict(parse_setting(text) for text in setting or [])
    if images and chosen.setdefault("dataset", images) != images:
        raise InputError(
            f"The images are '{images}' and, by --set, '{chosen['dataset']}': give one of them."
        )
    if resume is not None:
        overrides, nodes = _settings_of(resume, preset, chosen, name, nodes)
    else:
        overrides = _overrides(folder, preset, chosen, name, simulated=not on)
    config = parse_config(read_defaults(folder / "pyproject.toml") | overrides)
    require_used(config, chosen)
    nodes = nodes or USUAL_NODES
    if on and engine is not Engine.FLOWER:
        raise InputError(f"--engine {engine} simulates nodes, and --on {on} has real ones.")
    if on:
        require_connection(on)
        _deploy(folder, overrides, config, on)
    else:
        target = results_dir(config.results_dir) / config.name
        note = require_encoder(config)
        if note:
            typer.echo(note, err=True)
        _check_nodes(nodes, config)
        if resume is None:
            require_absent(target)
        require_writable(target.parent, "results-dir")
        require_cache(Path(config.cache_dir))
        if resume is not None:
            forget_reason(target)
        with _looked_at(config), open_run_log(is_shown=verbose) as log:
            ended = _simulate(folder, overrides, nodes, engine, target, log)
            if needs_log(target, ended):
                log.print_end()
        print_outcome(target, ended, is_new=resume is None)


@contextmanager
def _looked_at(config: "RunConfig") -> "Iterator[None]":
    """Say what the run's images are.

    Within the block, the run's other processes find this in the cache.
    """
    from fed_ist.config.derive import open_run_data, reading
    from fed_ist.datasets.inspection import inspect
    from fed_ist.datasets.walk import forget_walks

    places = Path(config.cache_dir), config.name, [Path(config.dataset), Path(config.test_dataset)]
    # A resumed run has the name under which the run was cached before, and maybe other images.
    forget_walks(*places)
    try:
        for line in inspect(open_run_data(config), reading(config)).first_lines():
            typer.echo(line)
        yield
    finally:
        forget_walks(*places)


def _simulate(
    app: Path,
    overrides: "Mapping[str, Value]",
    n_nodes: int,
    engine: Engine,
    target: Path,
    log: "RunLog",
) -> "Ended":
    """Run on simulated nodes, and say how that ended.

    target: the run's folder, in which the log is kept.
    """
    from fed_ist.cli.outcome import INTERRUPTED, TERMINATED, tells
    from fed_ist.files.installed import installed_app
    from fed_ist.launch.bundle import slim_app
    from fed_ist.launch.flower_run import Ended
    from fed_ist.launch.processes import run_module
    from fed_ist.launch.simulation import simulate
    from fed_ist.reports.progress import following
    from fed_ist.runs.folder import NAME_TAKEN_CODE

    with ExitStack() as stack:
        if not log.is_shown:
            stack.enter_context(following(target, typer.echo))
        try:
            if engine is Engine.INLINE:
                request = {"overrides": overrides, "n_nodes": n_nodes}
                code = run_module(app, "sims.inline", request, log)
                ended = Ended(code, is_name_taken=code == NAME_TAKEN_CODE)
            else:
                # Flower would look at each file of a checkout, even in the virtual environment.
                if app == installed_app().resolve():
                    app = stack.enter_context(slim_app(app))
                ended = simulate(app, overrides, n_nodes, lambda: tells(target), log)
        except KeyboardInterrupt:
            ended = Ended(INTERRUPTED)
        except SystemExit:  # at SIGTERM
            ended = Ended(TERMINATED)
    if not ended.is_name_taken:
        log.keep(target)
    return ended


def _deploy(app: Path, overrides: "Mapping[str, Value]", config: "RunConfig", on: str) -> None:
    """Run on a SuperLink's nodes, and print the outcome if the run's folder is on this host."""
    from fed_ist.cli.outcome import INTERRUPTED, forget_reason, print_outcome, tells
    from fed_ist.files.paths import server_results_dir
    from fed_ist.launch.bundle import slim_app
    from fed_ist.launch.flower_run import NoLongerFollowed, deploy

    target = server_results_dir(config.results_dir) / config.name
    # A folder of this name that is there already may be that of another run on this host.
    is_taken = target.exists() and not config.resume
    if config.resume:
        forget_reason(target)
    try:
        with slim_app(app) as bundled:
            ended = deploy(bundled, overrides, on, lambda: not is_taken and tells(target))
    except NoLongerFollowed as left:
        how = f"flwr stop {left.run_id} {on}" if left.run_id else f"flwr ls {on}"
        typer.echo(f"No longer followed; the run goes on until it is stopped: {how}", err=True)
        raise typer.Exit(INTERRUPTED) from None
    if ended.is_name_taken or (target.exists() and not is_taken):
        print_outcome(target, ended, is_new=not config.resume)
    elif ended.reason:
        typer.echo(f"fed-ist: The run did not finish: {ended.reason}.", err=True)
        raise typer.Exit(1)
    else:
        typer.echo(f"The results are in {config.name}/ of results-dir on the SuperLink's host.")


def _settings_of(
    run: Path, preset: str, chosen: "dict[str, Value]", name: str, nodes: int | None
) -> "tuple[dict[str, Value], int]":
    """The settings of a run to be resumed, with what the user changes, and its number of nodes."""
    from fed_ist.config.parsing import parse_config, require_same_run
    from fed_ist.runs.lookup import find_run
    from fed_ist.runs.reading import read_resumable

    run = find_run(run).resolve()
    resumed = read_resumable(run)
    began, n_nodes = parse_config(resumed.settings), int(str(resumed.summary["clients"]))
    if preset or name or nodes not in (None, n_nodes):
        raise InputError(
            f"--resume goes on with the settings, the name and the {n_nodes} nodes of '{run}': "
            "leave out --preset, --name and --nodes."
        )
    place: dict[str, Value] = {"name": run.name, "resume": True, "results-dir": str(run.parent)}
    again = began.to_mapping() | chosen | place
    require_same_run(parse_config(again), began)
    return again, n_nodes


def _overrides(
    app: Path, preset: str, chosen: "dict[str, Value]", name: str, *, simulated: bool
) -> "dict[str, Value]":
    """The settings that differ from the app's defaults: the preset's, then those of --set."""
    from fed_ist.config.toml import absolute_paths, read_preset
    from fed_ist.files.paths import cache_dir, results_dir

    overrides = read_preset(_preset_path(app, preset)) if preset else {}
    overrides = absolute_paths(overrides | chosen)
    label = Path(preset).stem if preset else "default"
    # A preset may be the config.toml of another run, whose name is taken.
    overrides["name"] = name or chosen.get("name") or f"{datetime.now():%Y%m%d-%H%M%S}-{label}"
    if simulated:  # in a deployment each host has its own folders
        results = results_dir(str(overrides.get("results-dir", "")))
        overrides["results-dir"] = str(results.expanduser().resolve())
        cache = cache_dir(str(overrides.get("cache-dir", "")))
        overrides["cache-dir"] = str(cache.expanduser().resolve())
    return overrides


def _preset_path(app: Path, preset: str) -> Path:
    from fed_ist.files.installed import presets

    if preset.endswith(".toml"):
        return Path(preset).expanduser()
    known = presets(app)
    if preset not in known:
        raise InputError(
            f"Unknown preset '{preset}'. Choose from: {', '.join(known)}; or give a .toml file."
        )
    return known[preset]


def _check_nodes(nodes: int, config: "RunConfig") -> None:
    if nodes < config.min_nodes:
        raise InputError(
            f"--nodes {nodes} is fewer than min-nodes = {config.min_nodes}. "
            "Simulate more nodes or lower min-nodes."
        )
    asked = max(config.min_nodes, int(config.fraction_nodes * nodes))
    if config.strategy == "ist" and not config.groups and asked > config.hidden_dim:
        raise InputError(
            f"hidden-dim = {config.hidden_dim} is smaller than the number of groups ({asked}, one "
            "per node): each group needs a neuron. Use a larger hidden-dim or fewer groups."
        )
