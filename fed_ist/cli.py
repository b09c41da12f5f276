"""The `fed-ist` command. Everything heavy is imported where it is used, so that --help is quick."""

import shutil
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fed_ist.errors import InputError

if TYPE_CHECKING:
    from fed_ist.config import RunConfig, Value
    from fed_ist.images import ImageSource
    from fed_ist.probe_table import Settings, Subject

cli = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Train an image classifier across devices with little bandwidth and little compute.\n\n"
    "Start with `fed-ist run`: a simulation on the built-in data set, offline, in minutes. "
    "Then try your own images: `fed-ist run --set dataset=/path/to/images` (a folder of "
    "<class>/<image>), look at results/<run>/report.html, and classify with `fed-ist predict`.",
)


@cli.command()
def run(
    nodes: Annotated[int, typer.Option(min=1, help="Simulated nodes.")] = 4,
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
    app: Annotated[
        Path | None, typer.Option(help="The fed-ist checkout, if not the current folder.")
    ] = None,
    on: Annotated[
        str, typer.Option(help="A SuperLink of your Flower config, instead of a simulation.")
    ] = "",
) -> None:
    """Train by federated learning: a thin front to `flwr run`.

    Examples:

      fed-ist run

      fed-ist run --nodes 8 --set mask-ratio=0.75 --set strategy=fedavg

      fed-ist run --preset aid-mask50-w4 --set dataset=/data/aid-train.parquet
    """
    from fed_ist.config import parse_config, read_defaults
    from fed_ist.launch import find_app, flwr_run, own_environment, simulation_superlink
    from fed_ist.paths import require_writable, results_dir

    folder = find_app(app)
    overrides = _overrides(folder, preset, setting or [], name, simulated=not on)
    config = parse_config(read_defaults(folder / "pyproject.toml") | overrides)
    target = results_dir(config.results_dir) / config.name
    if on:
        code = flwr_run(folder, overrides, own_environment(), superlink=on, n_nodes=None)
        if not target.exists():
            typer.echo(f"The results are in {config.name}/ of results-dir on the SuperLink's host.")
            raise typer.Exit(code)
    else:
        config.check_datasets()
        config.check_encoder()
        _check_nodes(nodes, config)
        _check_free(target)
        require_writable(target.parent, "results-dir")
        require_writable(Path(config.cache_dir), "cache-dir")
        try:
            with simulation_superlink() as environment:
                code = flwr_run(folder, overrides, environment, superlink="local", n_nodes=nodes)
        except KeyboardInterrupt:
            typer.echo(f"Interrupted; what the run wrote is in {target}", err=True)
            raise typer.Exit(130) from None
    _print_outcome(target, code)


def _overrides(
    app: Path, preset: str, settings: list[str], name: str, *, simulated: bool
) -> "dict[str, Value]":
    """What differs from the app's defaults: the preset, then --set, with paths made absolute."""
    from fed_ist.config import parse_setting, read_preset
    from fed_ist.paths import cache_dir

    overrides = read_preset(_preset_path(app, preset)) if preset else {}
    chosen = dict(parse_setting(text) for text in settings)
    overrides |= chosen
    words = ("", "scenes", "pretrained", "random")
    for key in ("dataset", "test-dataset", "encoder-weights"):
        value = overrides.get(key)
        if isinstance(value, str) and value not in words and Path(value).expanduser().exists():
            overrides[key] = str(Path(value).expanduser().resolve())
    label = Path(preset).stem if preset else "default"
    # A preset may be the config.toml of another run, whose name is taken.
    overrides["name"] = name or chosen.get("name") or f"{datetime.now():%Y%m%d-%H%M%S}-{label}"
    if simulated:  # in a deployment each host has its own folders
        results = Path(str(overrides.get("results-dir") or app / "results"))
        overrides["results-dir"] = str(results.expanduser().resolve())
        cache = cache_dir(str(overrides.get("cache-dir", "")))
        overrides["cache-dir"] = str(cache.expanduser().resolve())
    return overrides


def _print_outcome(target: Path, code: int) -> None:
    """Accuracy, bytes and place of a run; raises `InputError` with what stopped it, if any."""
    from fed_ist.report import readable_bytes
    from fed_ist.results import read_summary

    if (target / "error.txt").exists():
        reason = (target / "error.txt").read_text().strip()
        if not (target / "summary.json").exists():  # it failed before its first round
            shutil.rmtree(target)
        raise InputError(reason)
    if code != 0 or not (target / "report.html").exists():
        typer.echo(f"The run did not finish; what it wrote is in {target}", err=True)
        raise typer.Exit(1)
    summary = read_summary(target)
    typer.echo(f"accuracy    {100 * float(str(summary['accuracy'])):.2f}%")
    typer.echo(f"bytes down  {readable_bytes(float(str(summary['bytes_down'])))}")
    typer.echo(f"bytes up    {readable_bytes(float(str(summary['bytes_up'])))}")
    typer.echo(f"results     {target}")


def _preset_path(app: Path, preset: str) -> Path:
    if preset.endswith(".toml"):
        return Path(preset).expanduser()
    configs = app / "sims" / "configs"
    path = configs / f"{preset}.toml"
    if not path.exists():
        names = ", ".join(sorted(p.stem for p in configs.glob("*.toml")))
        raise InputError(f"Unknown preset '{preset}'. Choose from: {names}; or give a .toml file.")
    return path


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


def _check_free(target: Path) -> None:
    if target.exists():
        raise InputError(
            f"'{target}' exists already, and nothing is ever overwritten. "
            "Choose another name, or move it away."
        )


@cli.command()
def predict(
    run: Annotated[Path, typer.Argument(help="A finished run: results/<name>.")],
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.")],
) -> None:
    """Classify images with the result of a run: prints image, class and probability."""
    from fed_ist.predict import classify
    from fed_ist.results import read_model

    skipped: list[str] = []

    def skip(reason: str) -> None:
        skipped.append(reason)
        typer.echo(f"skipped: {reason}", err=True)

    for path, class_name, probability in classify(read_model(run), images, skip):
        typer.echo(f"{path}\t{class_name}\t{probability:.3f}")
    if skipped:
        typer.echo(f"{len(skipped)} could not be classified", err=True)
        raise typer.Exit(2)


@cli.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Finished runs: results/<name> ...")],
) -> None:
    """Print a table of runs: accuracy, and bytes to and from each client and round."""
    from fed_ist.compare import render_table
    from fed_ist.results import read_summary

    found = []
    for run in runs:
        try:
            found.append((run.name, read_summary(run)))
        except InputError as reason:
            typer.echo(f"skipped: {reason}", err=True)
    if not found:
        raise InputError("None of these is a run. Give folders that runs wrote: results/<name> ...")
    typer.echo(render_table(found))


@cli.command()
def pack(
    images: Annotated[str, typer.Argument(help="A folder of <class>/<image>, or a parquet file.")],
    out: Annotated[Path, typer.Option(help="The packed file to write.")],
    mask: Annotated[str, typer.Option(help="Which patches are kept.")] = "fixed",
    mask_ratio: Annotated[float, typer.Option(help="Share of the patches to drop.")] = 0.5,
    codec: Annotated[str, typer.Option(help="raw, jpeg or webp.")] = "raw",
    img_px: Annotated[int, typer.Option(min=1, help="Side to which images are scaled.")] = 64,
    patch_px: Annotated[int, typer.Option(min=1, help="Side of a patch.")] = 8,
    bands: Annotated[
        str,
        typer.Option(help="Bands of GeoTIFFs, by name or number: 4,3,2,8; RGB if empty."),
    ] = "",
    band_range: Annotated[
        str, typer.Option(help="The values that become 0 and 255, such as 0:10000.")
    ] = "",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the masks.")] = 0,
) -> None:
    """Pack masked images into one file and print what that saves."""
    from fed_ist.embeddings import MaskSpec
    from fed_ist.embeddings import pack as pack_images
    from fed_ist.packing import check_codec
    from fed_ist.paths import require_writable
    from fed_ist.report import readable_bytes

    if img_px % patch_px:
        raise InputError(f"--img-px {img_px} is no multiple of --patch-px {patch_px}.")
    source = _all_images(images, bands, band_range)
    check_codec(codec, source.channels)
    spec = MaskSpec(mask, mask_ratio, codec, img_px, patch_px, seed, (), source.channels)
    _check_free(out)
    require_writable(out.absolute().parent, "--out")
    packed = pack_images(
        source, spec, out, lambda reason: typer.echo(f"skipped: {reason}", err=True)
    )
    n = packed.n_images
    typer.echo(f"images           {n} ({packed.n_skipped} skipped)")
    for label, n_bytes in (
        ("original files", packed.original_bytes),
        ("raw pixels", packed.raw_bytes),
        ("packed", out.stat().st_size),
    ):
        if n_bytes:
            typer.echo(f"{label:16} {readable_bytes(n_bytes / n)} an image")


@cli.command()
def pretrain(
    images: Annotated[str, typer.Argument(help="A folder of images, or a parquet file.")],
    out: Annotated[Path, typer.Option(help="Folder for checkpoint, weights and history.")],
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the images.")] = 120,
    img_px: Annotated[int, typer.Option(min=8, help="Side to which images are scaled.")] = 64,
    patch_px: Annotated[int, typer.Option(min=1, help="Side of a patch.")] = 8,
    embed_dim: Annotated[int, typer.Option(min=32, help="Width of the encoder.")] = 192,
    depth: Annotated[int, typer.Option(min=1, help="Blocks of the encoder.")] = 8,
    num_heads: Annotated[int, typer.Option(min=1, help="Attention heads.")] = 6,
    mask_ratio: Annotated[float, typer.Option(help="Share of the patches to hide.")] = 0.75,
    batch_size: Annotated[int, typer.Option(min=1, help="Images in a step.")] = 128,
    learning_rate: Annotated[float, typer.Option(help="Its peak.")] = 1e-3,
    bands: Annotated[
        str,
        typer.Option(help="Bands of GeoTIFFs, by name or number: 4,3,2,8; RGB if empty."),
    ] = "",
    band_range: Annotated[
        str, typer.Option(help="The values that become 0 and 255, such as 0:10000.")
    ] = "",
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything random.")] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Pre-train a small encoder by masked autoencoding; run it again to resume."""
    from fed_ist.encoder import VitShape
    from fed_ist.masks import count_visible
    from fed_ist.paths import require_writable
    from fed_ist.pretrain import PretrainConfig
    from fed_ist.pretrain import pretrain as pretrain_encoder

    if img_px % patch_px:
        raise InputError(f"--img-px {img_px} is no multiple of --patch-px {patch_px}.")
    if embed_dim % num_heads:
        raise InputError(f"--embed-dim {embed_dim} is no multiple of --num-heads {num_heads}.")
    count_visible(1, mask_ratio)
    require_writable(out, "--out")
    config = PretrainConfig(
        shape=VitShape(img_px, patch_px, embed_dim, depth, num_heads),
        mask_ratio=mask_ratio,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
    )
    weights = pretrain_encoder(_all_images(images, bands, band_range), out, config, device)
    typer.echo(f"weights  {weights.resolve()}")


@cli.command()
def probe(
    dataset: Annotated[
        str, typer.Argument(help="scenes, an image folder, a parquet file, or a Hub name.")
    ],
    test_dataset: Annotated[str, typer.Option(help="The test images, if not in DATASET.")] = "",
    encoder: Annotated[str, typer.Option(help="An encoder's name.")] = "vit_mae_patch8_64.aid",
    weights: Annotated[str, typer.Option(help="pretrained, random, or a file.")] = "pretrained",
    pooling: Annotated[str, typer.Option(help="cls, avg or both.")] = "cls",
    mask: Annotated[str, typer.Option(help="Masks, separated by commas, or all.")] = "fixed",
    mask_ratio: Annotated[
        str, typer.Option(help="Shares of the patches to drop, separated by commas.")
    ] = "0,0.5,0.75",
    limit: Annotated[
        int, typer.Option(min=0, help="Training and test images, each at most; 0: all.")
    ] = 0,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of the MLP for each row.")] = 3,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything random.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Folder for table, report and figure; resumes there.")
    ] = None,
) -> None:
    """How much a classifier can tell from frozen embeddings, under each mask and ratio.

    Example:

      fed-ist probe images --mask all --mask-ratio 0,0.25,0.5,0.75,0.9 --out probe
    """
    from fed_ist.config import POOLINGS
    from fed_ist.encoder import check_encoder_name, create_encoder
    from fed_ist.errors import require_choice
    from fed_ist.paths import cache_dir, require_writable
    from fed_ist.probe import require_scikit_learn
    from fed_ist.probe_table import (
        Subject,
        describe,
        list_cells,
        open_images,
        parse_masks,
        parse_ratios,
    )

    require_scikit_learn()
    cells = list_cells(parse_masks(mask), parse_ratios(mask_ratio))
    require_choice("pooling", pooling, POOLINGS)
    check_encoder_name(encoder)
    if out:
        require_writable(out, "--out")
    train = open_images(dataset, test_dataset, "train", limit, seed)
    test = open_images(dataset, test_dataset, "test", limit, seed)
    model = create_encoder(encoder, weights, pooling, seed)
    subject = Subject(train, test, model, cache_dir(""), seeds, seed)
    settings = describe(
        subject,
        {
            "dataset": dataset,
            "test_dataset": test_dataset,
            "encoder": encoder,
            "weights": weights,
            "pooling": pooling,
            "limit": limit,
        },
    )
    _probe_cells(subject, cells, settings, out)


def _probe_cells(
    subject: "Subject", cells: list[tuple[str, float]], settings: "Settings", out: Path | None
) -> None:
    """Print the row of each cell as it is measured and, with `out`, write it down."""
    from tqdm import tqdm

    from fed_ist.probe_report import draw_probe, render_report
    from fed_ist.probe_table import HEADER, baseline, measure, open_folder, render_line, write_rows
    from fed_ist.results import write_atomic

    rows = open_folder(out, settings) if out else []
    skipped: set[str] = set()
    typer.echo(HEADER)
    with tqdm(cells, unit="row") as bar:
        for mask, mask_ratio in bar:
            row = next((r for r in rows if (r.mask, r.mask_ratio) == (mask, mask_ratio)), None)
            if row is None:

                def show(step: str, name: str = f"{mask} {mask_ratio:.2f}") -> None:
                    bar.set_description(f"{name}: {step}")

                row = measure(subject, mask, mask_ratio, show, skipped.add)
                rows.append(row)
                if out:
                    write_rows(out, rows)
            with tqdm.external_write_mode():
                typer.echo(render_line(row, baseline(rows)))
    for reason in sorted(skipped):
        typer.echo(f"skipped: {reason}", err=True)
    if out:
        title = f"{settings['encoder']} on {Path(str(settings['dataset'])).name}"
        write_atomic(out / "probe.png", draw_probe(rows, title))
        write_atomic(out / "probe.md", render_report(settings, rows).encode())
        typer.echo(f"report    {(out / 'probe.md').resolve()}")


def _all_images(images: str, bands: str, band_range: str) -> "ImageSource":
    """Every image of a folder (with or without classes) or of a parquet file."""
    from fed_ist.bands import parse_bands
    from fed_ist.datasets import open_all

    return open_all(images, parse_bands(bands, band_range))


bench = typer.Typer(no_args_is_help=True, help="Measure this machine.")
cli.add_typer(bench, name="bench")


@bench.command()
def encode(
    encoder: Annotated[str, typer.Option(help="An encoder's name.")] = "vit_mae_patch8_64.aid",
    weights: Annotated[str, typer.Option(help="pretrained, random, or a file.")] = "pretrained",
    batch_size: Annotated[int, typer.Option(min=1, help="Images in a batch.")] = 128,
    seconds: Annotated[float, typer.Option(min=0.1, help="Time spent on each ratio.")] = 5.0,
) -> None:
    """Images encoded in a second at each mask ratio, and against no mask."""
    from fed_ist.bench import encoding_speed

    baseline = None
    typer.echo("mask_ratio  images/s  against 0")
    for mask_ratio, speed in encoding_speed(encoder, weights, batch_size, seconds):
        baseline = baseline or speed
        typer.echo(f"{mask_ratio:10.2f}  {speed:8.0f}  {speed / baseline:8.2f}x")


def main() -> None:
    """The console script: bad input is one sentence on stderr and exit code 2."""
    try:
        cli()
    except InputError as error:
        print(f"fed-ist: {error}", file=sys.stderr)
        sys.exit(2)
