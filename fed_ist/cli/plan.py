"""The command that plans: `fed-ist plan`. Everything heavy is imported where it is used."""

from pathlib import Path
from typing import Annotated

import typer

from fed_ist.printable import printable

plans = typer.Typer()

Accuracy = Annotated[
    float | None,
    typer.Option(help="To be reached, such as 0.75; 95% of FedAvg's, or the best, if left out."),
]
ChosenLinks = Annotated[
    list[str] | None, typer.Option("--link", help="A link's name; repeat for more. All if none.")
]
ChosenDevice = Annotated[str, typer.Option("--device", help="pi-zero, pi-4 or jetson-nano.")]
ImagesPerS = Annotated[
    float | None, typer.Option(help="Images a second that the device encodes, if measured.")
]
Markdown = Annotated[
    bool, typer.Option("--markdown", help="In Markdown, with all columns, however wide.")
]


@plans.command()
def plan(
    runs: Annotated[list[Path], typer.Argument(help="Finished runs, by name or path.")],
    accuracy: Accuracy = None,
    link: ChosenLinks = None,
    device: ChosenDevice = "pi-4",
    images_per_s: ImagesPerS = None,
    round_trips: Annotated[
        float | None,
        typer.Option(help="Of a request with its reply; 11, as Flower's, if left out."),
    ] = None,
    vit_rounds: Annotated[
        int | None,
        typer.Option(min=1, help="Rounds of FedAvg of the whole ViT, if not those of FedAvg."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for plan.csv and plan.json, made if need be.")
    ] = None,
    markdown: Markdown = False,
) -> None:
    """Bytes, hours and joules of a node until an accuracy, for each way to train.

    The runs are of one data set, by as many strategies as you want to compare. Computed ways are
    added to them: sending images or embeddings to a server, and FedAvg of the whole encoder.

    Example:

      fed-ist plan results/ist results/fedavg --link nb-iot --device pi-zero
    """
    from fed_ist.files.paths import require_writable
    from fed_ist.planning.plan import Question, make_plans
    from fed_ist.planning.runs import planned_run
    from fed_ist.planning.table import render_plans, show_plans, write_plans
    from fed_ist.planning.ways import ROUND_TRIPS
    from fed_ist.runs.lookup import find_run
    from fed_ist.runs.reading import open_run
    from fed_ist.traffic.links import choose_links

    n_round_trips = ROUND_TRIPS if round_trips is None else round_trips
    question = Question(accuracy, device, n_round_trips, images_per_s, vit_rounds)
    if out:
        require_writable(out, "--out")
    folders = dict.fromkeys(find_run(run) for run in runs)
    found = make_plans(
        [planned_run(open_run(run)) for run in folders], choose_links(link), question
    )
    typer.echo(render_plans(found) if markdown else show_plans(found))
    if out:
        write_plans(found, out)
        typer.echo(f"plan.csv and plan.json are in {printable(out)}", err=True)
