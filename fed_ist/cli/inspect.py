"""The command that says what a data set holds, before anything is learnt from it.

Everything heavy is imported where it is used, so that --help is quick.
"""

from typing import Annotated

import typer

from fed_ist.cli.encoders import (
    BandRange,
    Bands,
    ImageColumn,
    LabelColumn,
    ValueRange,
    reading_of,
)

inspections = typer.Typer()


@inspections.command()
def inspect(
    dataset: Annotated[
        str, typer.Argument(help="A folder, a parquet file, a Hub name, or scenes.")
    ],
    test_dataset: Annotated[str, typer.Option(help="The test images, if not in DATASET.")] = "",
    test_share: Annotated[
        float, typer.Option(help="Of each class, held out where there are no test images.")
    ] = 0.15,
    bands: Bands = "",
    band_range: BandRange = "",
    value_range: ValueRange = "",
    image_column: ImageColumn = "",
    label_column: LabelColumn = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """What a run would learn from these images, what it would leave out, and why.

    Every image is decoded. It prints classes with their images, formats, sizes, what is left out by
    reason, and images that are there twice, within and across training and test.

    Examples:

      fed-ist inspect images

      fed-ist inspect train.parquet --test-dataset test.parquet --json
    """
    import json

    from tqdm import tqdm

    from fed_ist.datasets.data_set import open_data
    from fed_ist.datasets.inspection import inspect as look
    from fed_ist.errors import InputError

    if not 0 < test_share < 1:
        raise InputError(f"--test-share {test_share:g} is not possible: give one between 0 and 1.")
    reading = reading_of(bands, band_range, value_range, image_column, label_column)
    data = open_data(dataset, test_dataset, reading, test_share)
    total = len(data.test) + (len(data.train) if data.train else 0)
    with tqdm(total=total, desc="decoding", disable=None, leave=False) as bar:
        found = look(data, reading, bar.update)
    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=2, ensure_ascii=False))
        return
    for line in found.lines():
        typer.echo(line)
