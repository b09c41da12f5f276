"""The command that plans: `fed-ist plan`. Everything heavy is imported where it is used."""

from pathlib import Path
from typing import Annotated

import typer

from fed_ist.cli.numbers import bytes_of
from fed_ist.errors import InputError
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


Budget = Annotated[
    str, typer.Option(help="Bytes of messages that a node may get and send, such as 50kB.")
]
Hours = Annotated[float | None, typer.Option(help="Hours that a run may take on the one --link.")]
Joules = Annotated[float | None, typer.Option(help="Joules for the radio of the one --link.")]


@plans.command()
def plan(
    runs: Annotated[
        list[Path] | None, typer.Argument(help="Finished runs, by name or path.")
    ] = None,
    budget: Budget = "",
    hours: Hours = None,
    joules: Joules = None,
    classes: Annotated[int, typer.Option(help="With a budget: how many classes.")] = 30,
    nodes: Annotated[int, typer.Option(help="With a budget: how many nodes.")] = 8,
    embed_dim: Annotated[int, typer.Option(help="With a budget: numbers in an embedding.")] = 192,
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

    Without runs, but with a budget of bytes, or of hours or joules on a link, it names the preset
    to take, and what that has reached on three data sets.

    Examples:

      fed-ist plan results/ist results/fedavg --link nb-iot --device pi-zero

      fed-ist plan --budget 50kB --classes 12 --nodes 20
    """
    limited = bool(budget) or hours is not None or joules is not None
    if limited:
        if runs:
            raise InputError("Give either runs or a budget: runs are planned until an accuracy.")
        echo_choice(budget, hours, joules, link, (classes, embed_dim, nodes))
        return
    if not runs:
        raise InputError("Give runs, or a budget: --budget 50kB, or --link with --hours.")
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


def echo_choice(
    budget: str,
    hours: float | None,
    joules: float | None,
    link: list[str] | None,
    problem: tuple[int, int, int],
) -> None:
    """Print the method that a budget pays for. problem: classes, embed_dim, nodes."""
    from fed_ist.planning.budget import Problem, choose, within_bytes, within_link
    from fed_ist.planning.frontier import expected
    from fed_ist.traffic.links import choose_links
    from fed_ist.words import readable_bytes

    if budget and (hours is not None or joules is not None):
        raise InputError("Give either --budget, or --hours and --joules with a link.")
    if not budget and (link is None or len(link) != 1):
        raise InputError("--hours and --joules need one link: --link lte-m, for instance.")
    for option, limit in (("--hours", hours), ("--joules", joules)):
        if limit is not None and not 0 < limit < float("inf"):
            raise InputError(f"{option} {limit:g} is not possible: give a number above 0.")
    is_paid = (
        within_bytes(bytes_of("--budget", budget))
        if budget
        else within_link(choose_links(link)[0], hours, joules)
    )
    chosen = choose(Problem(*problem), is_paid)
    on_link = chosen.cost.link_bytes.down + chosen.cost.link_bytes.up
    typer.echo(f"method   {chosen.option.name}; rounds: {chosen.n_rounds}")
    typer.echo(f"run      fed-ist run IMAGES {chosen.arguments} --nodes {problem[2]}")
    typer.echo(
        f"a node   at most {readable_bytes(chosen.cost.message_bytes)} of messages both ways, "
        f"{readable_bytes(on_link)} on its link, waiting apart"
    )
    typer.echo("reached  on 8 nodes, mean and deviation of three seeds:")
    for found in expected(chosen):
        typer.echo(
            f"         {found.dataset}, {found.partition}: "
            f"{found.accuracy:.1f}% ± {found.deviation:.1f}"
        )
