"""The planner's command. Everything heavy is imported where it is used."""

from pathlib import Path
from typing import Annotated

import typer

from fed_ist.errors import require_choice

plans = typer.Typer()


@plans.command()
def plan(
    runs: Annotated[list[Path], typer.Argument(help="Finished runs: results/<name> ...")],
    accuracy: Annotated[
        float | None,
        typer.Option(help="To be reached, such as 0.75; 95% of the FedAvg run's if left out."),
    ] = None,
    link: Annotated[
        list[str] | None, typer.Option(help="A link's name; repeat for more. All if left out.")
    ] = None,
    device: Annotated[str, typer.Option(help="pi-zero, pi-4 or jetson-nano.")] = "pi-4",
    images_per_s: Annotated[
        float | None, typer.Option(help="Images a second that the device encodes, if measured.")
    ] = None,
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
) -> None:
    """Bytes, hours and joules of a node until an accuracy, for each way to train.

    The runs are of one data set, by as many strategies as you want to compare. Beside them stand
    computed ways: sending images or embeddings to a server, and FedAvg of the whole encoder.

    Example:

      fed-ist plan results/ist results/fedavg --link nb-iot --device pi-zero
    """
    from fed_ist.links import read_links
    from fed_ist.paths import require_writable
    from fed_ist.plan import Question, make_plans
    from fed_ist.plan_runs import read_run
    from fed_ist.plan_table import render_plans, write_plans
    from fed_ist.plan_ways import ROUND_TRIPS

    n_round_trips = ROUND_TRIPS if round_trips is None else round_trips
    question = Question(accuracy, device, n_round_trips, images_per_s, vit_rounds)
    known = read_links()
    for name in link or []:
        require_choice("link", name, known)
    if out:
        require_writable(out, "--out")
    chosen = [known[name] for name in link or known]
    found = make_plans([read_run(run) for run in runs], chosen, question)
    typer.echo(render_plans(found))
    if out:
        write_plans(found, out)
        typer.echo(f"plan.csv and plan.json are in {out}", err=True)
