"""The commands on encoders: pre-train one, probe it, time it, export it.

Everything heavy is imported where it is used, so that --help is quick.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fed_ist.cli.helping import Commands
from fed_ist.cli.numbers import one_for_each, whole_numbers
from fed_ist.encoder.spec import BUNDLED_ENCODER, BUNDLED_ENCODERS
from fed_ist.errors import InputError
from fed_ist.printable import printable

if TYPE_CHECKING:
    from fed_ist.comparisons.probe_table import Settings, Subject
    from fed_ist.images.source import Reading

encoders = typer.Typer()

MOST_VIEWS = 1000  # of an image; all are held in memory

# Options that several commands share, `pack` in `fed_ist.cli.main` among them.
Bands = Annotated[
    str, typer.Option(help="Bands of GeoTIFFs, by name or number: 4,3,2,8; RGB if empty.")
]
BandRange = Annotated[str, typer.Option(help="The values that become 0 and 255, such as 0:10000.")]
ValueRange = Annotated[
    str, typer.Option(help="The values that become 0 and 255 in images of 16 bits: 0:4095.")
]
ImageColumn = Annotated[str, typer.Option(help="The column of a table that holds the images.")]
LabelColumn = Annotated[str, typer.Option(help="The column of a table that holds the classes.")]


def reading_of(
    bands: str = "",
    band_range: str = "",
    value_range: str = "",
    image_column: str = "",
    label_column: str = "",
) -> "Reading":
    """How images are read, by a command's options; what needs to be found once is cached."""
    from fed_ist.files.paths import cache_dir
    from fed_ist.images.bands import parse_bands, parse_range
    from fed_ist.images.source import Reading

    return Reading(
        bands=parse_bands(bands, band_range),
        value_range=parse_range("value-range", value_range),
        image_column=image_column,
        label_column=label_column,
        cache=cache_dir(""),
    )


@encoders.command()
def pretrain(
    images: Annotated[
        list[str], typer.Argument(help="Folders of images, or parquet files; one or several.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for checkpoint, weights and history.")],
    shares: Annotated[
        str,
        typer.Option(help="Of each of several IMAGES in an epoch, such as 2,1,1."),
    ] = "",
    limit: Annotated[
        str, typer.Option(help="Images of IMAGES at most, one number or one for each; 0: all.")
    ] = "0",
    epochs: Annotated[
        int, typer.Option(min=0, help="Passes over the images in masked autoencoding.")
    ] = 120,
    tune_epochs: Annotated[
        int, typer.Option(min=0, help="Passes in the contrast of masked views, after that.")
    ] = 50,
    init: Annotated[
        str, typer.Option(help="Start from these weights: a file, or 'pretrained' (the bundled).")
    ] = "",
    img_px: Annotated[int, typer.Option(min=8, help="Side to which images are scaled.")] = 64,
    patch_px: Annotated[int, typer.Option(min=1, help="Side of a patch.")] = 8,
    embed_dim: Annotated[int, typer.Option(min=32, help="Width of the encoder.")] = 192,
    depth: Annotated[int, typer.Option(min=1, help="Blocks of the encoder.")] = 8,
    num_heads: Annotated[int, typer.Option(min=1, help="Attention heads.")] = 6,
    mask_ratio: Annotated[float, typer.Option(help="Share of the patches to hide.")] = 0.75,
    batch_size: Annotated[int, typer.Option(min=2, help="Images in a step of autoencoding.")] = 128,
    learning_rate: Annotated[float, typer.Option(help="Its peak, in autoencoding.")] = 1e-3,
    tune_batch_size: Annotated[
        int, typer.Option(min=2, help="Images in a step of contrast.")
    ] = 256,
    tune_learning_rate: Annotated[float, typer.Option(help="Its peak, in contrast.")] = 1e-3,
    teacher: Annotated[
        str, typer.Option(help="A timm model to learn from, in a third stage: distillation.")
    ] = "",
    teacher_weights: Annotated[
        str, typer.Option(help="pretrained (of a package, or fetched), or a file.")
    ] = "pretrained",
    teacher_px: Annotated[
        int, typer.Option(min=0, help="Side of the teacher's images; 0: its own.")
    ] = 0,
    views: Annotated[
        str,
        typer.Option(
            help="Of each image, all of it and crops, shown to the teacher; one number, or one for "
            "each of several IMAGES."
        ),
    ] = "2",
    blends: Annotated[
        str,
        typer.Option(
            help="Of each image with others, shown to the teacher too, so that few images are not "
            "learnt by heart; one number, or one for each."
        ),
    ] = "0",
    distil_epochs: Annotated[int, typer.Option(min=1, help="Passes in distillation.")] = 30,
    distil_batch_size: Annotated[
        int, typer.Option(min=2, help="Images in a step of distillation.")
    ] = 256,
    distil_learning_rate: Annotated[float, typer.Option(help="Its peak, in distillation.")] = 1e-3,
    bands: Bands = "",
    band_range: BandRange = "",
    value_range: ValueRange = "",
    image_column: ImageColumn = "",
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything random.")] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Pre-train a small encoder on unlabelled images; run it again to resume.

    Masked autoencoding first, then contrast of masked views, then, with --teacher, distillation:
    what a large network makes of the whole image, learnt from its visible patches. To adapt the
    bundled encoder to your own images: fed-ist pretrain IMAGES --out FOLDER --init pretrained
    --epochs 0
    """
    from fed_ist.datasets.data_set import open_all
    from fed_ist.encoder.backbone import VitShape
    from fed_ist.files.paths import require_writable
    from fed_ist.pretraining.checks import check_config
    from fed_ist.pretraining.lessons import sampled
    from fed_ist.pretraining.pretrain import check_device
    from fed_ist.pretraining.pretrain import pretrain as pretrain_encoder
    from fed_ist.pretraining.stages import PretrainConfig, StageConfig
    from fed_ist.pretraining.teacher import teacher_of

    n = len(images)
    reading = reading_of(bands, band_range, value_range, image_column)
    config = PretrainConfig(
        shape=VitShape(img_px, patch_px, embed_dim, depth, num_heads, reading.n_channels),
        init=_init_path(init),
        mae=StageConfig(epochs, batch_size, learning_rate, min_area=0.35),
        contrast=StageConfig(tune_epochs, tune_batch_size, tune_learning_rate, min_area=0.2),
        distil=StageConfig(distil_epochs, distil_batch_size, distil_learning_rate, min_area=0.35),
        teacher=teacher_of(teacher, teacher_weights, teacher_px),
        n_views=one_for_each("--views", views, n, most=MOST_VIEWS),
        n_blends=one_for_each("--blends", blends, n, least=0, most=MOST_VIEWS),
        shares=one_for_each("--shares", shares, n) if shares else (),
        mask_ratio=mask_ratio,
        seed=seed,
    )
    check_config(config)
    check_device(device)
    sources = [
        sampled(open_all(path, reading, lambda text: typer.echo(text, err=True)), most, seed)
        for path, most in zip(images, one_for_each("--limit", limit, n, least=0), strict=True)
    ]
    require_writable(out, "--out")
    try:
        weights = pretrain_encoder(sources, out, config, device)
    except KeyboardInterrupt:
        typer.echo("Interrupted; the same command goes on from what is kept.", err=True)
        raise typer.Exit(130) from None
    typer.echo(f"weights  {printable(weights.resolve())}")


def _init_path(init: str) -> str:
    from fed_ist.files.installed import package_file

    if init == "pretrained":
        return str(package_file(BUNDLED_ENCODERS[BUNDLED_ENCODER]))
    return str(Path(init).resolve()) if init else ""


@encoders.command()
def probe(
    dataset: Annotated[
        str, typer.Argument(help="scenes, an image folder, a parquet file, or a Hub name.")
    ],
    test_dataset: Annotated[str, typer.Option(help="The test images, if not in DATASET.")] = "",
    encoder: Annotated[str, typer.Option(help="An encoder's name.")] = BUNDLED_ENCODER,
    weights: Annotated[str, typer.Option(help="pretrained, random, or a file.")] = "pretrained",
    pooling: Annotated[str, typer.Option(help="cls, avg, map or both.")] = "cls",
    precision: Annotated[str, typer.Option(help="fp32, bf16 or int8.")] = "fp32",
    mask: Annotated[str, typer.Option(help="Masks, separated by commas, or all.")] = "fixed",
    mask_ratio: Annotated[
        str, typer.Option(help="Shares of the patches to drop, separated by commas.")
    ] = "0,0.5,0.75",
    img_px: Annotated[int, typer.Option(min=0, help="Side of the images; 0: the model's.")] = 0,
    bands: Bands = "",
    band_range: BandRange = "",
    value_range: ValueRange = "",
    image_column: ImageColumn = "",
    label_column: LabelColumn = "",
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
    from dataclasses import replace

    from fed_ist.comparisons.probe import require_scikit_learn
    from fed_ist.comparisons.probe_table import (
        Subject,
        limited,
        list_cells,
        parse_masks,
        parse_ratios,
        probe_settings,
    )
    from fed_ist.datasets.data_set import open_data
    from fed_ist.datasets.inspection import inspect
    from fed_ist.encoder.frozen import check_encoder, create_encoder
    from fed_ist.encoder.spec import EncoderSpec
    from fed_ist.files.paths import cache_dir, require_writable

    require_scikit_learn()
    cells = list_cells(parse_masks(mask), parse_ratios(mask_ratio))
    reading = reading_of(bands, band_range, value_range, image_column, label_column)
    spec = EncoderSpec(encoder, weights, pooling, seed, reading.n_channels, img_px, precision)
    check_encoder(spec)
    if out:
        require_writable(out, "--out")
    reading = replace(reading, seed=seed)
    data = open_data(dataset, test_dataset, reading)
    train, test = (
        limited(data.images(split), dataset, split, limit, seed) for split in ("train", "test")
    )
    for line in inspect(data, reading).first_lines():
        typer.echo(line, err=True)
    model = create_encoder(spec)
    if model.note:
        typer.echo(model.note, err=True)
    subject = Subject(train, test, model, cache_dir(""), seeds, seed)
    settings = probe_settings(
        subject,
        {
            "dataset": dataset,
            "test_dataset": test_dataset,
            "encoder": encoder,
            "weights": weights,
            "pooling": pooling,
            "precision": precision,
            "img_px": img_px,
            "bands": bands,
            "band_range": band_range,
            "value_range": value_range,
            "limit": limit,
        },
    )
    _probe_cells(subject, cells, settings, out)


def _probe_cells(
    subject: "Subject", cells: list[tuple[str, float]], settings: "Settings", out: Path | None
) -> None:
    """Print the row of each cell as soon as it is measured and, with `out`, write it down there."""
    from tqdm import tqdm

    from fed_ist.comparisons.probe_report import FIGURE, draw_probe, render_probe
    from fed_ist.comparisons.probe_table import (
        HEADER,
        baseline,
        measure_row,
        open_probe_folder,
        render_probe_row,
        write_probe_rows,
    )
    from fed_ist.files.atomic import write_atomic

    rows = open_probe_folder(out, settings) if out else []
    skipped: set[str] = set()
    typer.echo(HEADER)
    with tqdm(cells, unit="row") as bar:
        for mask, mask_ratio in bar:
            row = next((r for r in rows if (r.mask, r.mask_ratio) == (mask, mask_ratio)), None)
            if row is None:

                def show(step: str, name: str = f"{mask} {mask_ratio:.2f}") -> None:
                    bar.set_description(f"{name}: {step}")

                row = measure_row(subject, mask, mask_ratio, show, skipped.add)
                rows.append(row)
                if out:
                    write_probe_rows(out, rows)
            with tqdm.external_write_mode():
                typer.echo(render_probe_row(row, baseline(rows)))
    for reason in sorted(skipped):
        typer.echo(f"skipped: {printable(reason)}", err=True)
    if out:
        title = f"{settings['encoder']} on {Path(str(settings['dataset'])).name}"
        figure = draw_probe(rows, title)
        write_atomic(out / FIGURE, figure)
        write_atomic(out / "probe.md", render_probe(settings, rows, figure).encode())
        typer.echo(f"report    {printable((out / 'probe.md').resolve())}")


bench = typer.Typer(cls=Commands, no_args_is_help=True, help="Measure this machine.")
encoders.add_typer(bench, name="bench")


@bench.command()
def encode(
    encoder: Annotated[str, typer.Option(help="An encoder's name.")] = BUNDLED_ENCODER,
    weights: Annotated[str, typer.Option(help="pretrained, random, or a file.")] = "pretrained",
    pooling: Annotated[str, typer.Option(help="cls, avg, map or both.")] = "avg",
    precision: Annotated[
        str, typer.Option(help="fp32, bf16, int8; several separated by commas.")
    ] = "fp32",
    batch_size: Annotated[
        str, typer.Option(help="Images in a batch, several separated by commas; 0: as in a run.")
    ] = "0,128",
    seconds: Annotated[float, typer.Option(min=0.1, help="Time spent on each case.")] = 6.0,
    out: Annotated[Path | None, typer.Option(help="A JSON file to write the figures to.")] = None,
) -> None:
    """Images encoded in a second, memory and energy, by mask ratio, batch size and precision.

    For comparison, it also times timm's plain forward pass on full images in fp32. What the machine
    does not report is shown as "-".
    """
    from fed_ist.benchmarks.encoding import encoding_speed, write_json
    from fed_ist.encoder.spec import EncoderSpec

    sizes = whole_numbers("--batch-size", batch_size, least=0)
    precisions = [word.strip() for word in precision.split(",")]
    specs = [EncoderSpec(encoder, weights, pooling, precision=word) for word in precisions]
    found = []
    typer.echo(
        f"{'batch':>5}  {'precision':9}  mask_ratio  {'images/s':>8}  "
        "against timm  peak MB  J/image"
    )
    for row in encoding_speed(specs, sizes, seconds):
        found.append(row)
        peak, joules = (
            "-" if value is None else f"{value:.{digits}f}"
            for value, digits in ((row.peak_mb, 0), (row.joules, 4))
        )
        typer.echo(
            f"{row.batch_size:5}  {row.precision:9}  {row.mask_ratio:10.2f}  {row.images_s:8.0f}  "
            f"{row.against_timm:11.2f}x  {peak:>7}  {joules:>7}"
        )
    if out:
        write_json(out, found)


@bench.command()
def pipeline(
    images: Annotated[str, typer.Argument(help="A folder of images, or a parquet file.")],
    encoder: Annotated[str, typer.Option(help="An encoder's name.")] = BUNDLED_ENCODER,
    weights: Annotated[str, typer.Option(help="pretrained, random, or a file.")] = "pretrained",
    pooling: Annotated[str, typer.Option(help="cls, avg, map or both.")] = "avg",
    precision: Annotated[str, typer.Option(help="fp32, bf16 or int8.")] = "fp32",
    mask_ratio: Annotated[float, typer.Option(help="Share of the patches to drop.")] = 0.5,
) -> None:
    """Seconds for decoding and packing real images, for encoding them, and for both at once."""
    import tempfile

    from fed_ist.benchmarks.encoding import overlap
    from fed_ist.datasets.data_set import open_all
    from fed_ist.encoder.frozen import create_encoder
    from fed_ist.encoder.spec import EncoderSpec
    from fed_ist.images.masks import count_visible

    count_visible(1, mask_ratio)
    source = open_all(images)
    model = create_encoder(EncoderSpec(encoder, weights, pooling, precision=precision))
    with tempfile.TemporaryDirectory() as folder:
        found = overlap(source, model, mask_ratio, Path(folder))
    typer.echo(f"images               {found.n_images}")
    typer.echo(f"decode and pack      {found.pack_s:.2f} s")
    typer.echo(f"encode               {found.encode_s:.2f} s")
    typer.echo(f"both, as a run does  {found.both_s:.2f} s")
    typer.echo(f"hidden               {100 * found.hidden:.0f}% of the shorter one")


@encoders.command()
def export(
    onnx: Annotated[Path, typer.Option(help="The ONNX file to write.")],
    encoder: Annotated[str, typer.Option(help="An encoder's name.")] = BUNDLED_ENCODER,
    weights: Annotated[str, typer.Option(help="pretrained, random, or a file.")] = "pretrained",
    pooling: Annotated[str, typer.Option(help="cls, avg, map or both.")] = "cls",
    precision: Annotated[str, typer.Option(help="fp32 or int8.")] = "fp32",
    img_px: Annotated[int, typer.Option(min=0, help="Side of the images; 0: the model's.")] = 0,
    in_chans: Annotated[int, typer.Option(min=1, help="Channels of the images.")] = 3,
) -> None:
    """Write an encoder as an ONNX file, for ONNX Runtime and the like.

    It takes the bytes of the visible patches and their indices, and gives embeddings.
    """
    from fed_ist.encoder.frozen import create_encoder
    from fed_ist.encoder.onnx_export import export_onnx, require_onnx
    from fed_ist.encoder.spec import EncoderSpec
    from fed_ist.errors import require_choice
    from fed_ist.files.paths import require_writable

    require_choice("precision", precision, ("fp32", "int8"))
    spec = EncoderSpec(
        encoder, weights, pooling, in_chans=in_chans, img_px=img_px, precision=precision
    )
    require_onnx()
    if onnx.exists():
        raise InputError(f"'{onnx}' exists already, and nothing is ever overwritten.")
    require_writable(onnx.absolute().parent, "--onnx")
    model = create_encoder(spec)
    if model.note:
        typer.echo(model.note, err=True)
    export_onnx(model.module, model.patch_bytes, onnx.absolute(), precision == "int8", model.facts)
    typer.echo(f"{printable(onnx.resolve())}  {onnx.stat().st_size / 1e6:.1f} MB")
