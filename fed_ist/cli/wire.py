"""The commands on links: what a run takes on them, and what really crosses the wire.

Everything heavy is imported where it is used, so that --help is quick.
"""

from pathlib import Path
from typing import Annotated

import typer

from fed_ist.cli.encoders import bench
from fed_ist.cli.experiments import App
from fed_ist.cli.numbers import whole_numbers
from fed_ist.printable import printable

wire_commands = typer.Typer()

LinkFile = Annotated[
    Path | None, typer.Option("--links", help="A TOML file of links, instead of ours.")
]


@wire_commands.command()
def links(
    run: Annotated[Path, typer.Argument(help="A run, by name or path.")],
    link: Annotated[
        str, typer.Option(help="One link, by round and node; all in one table if empty.")
    ] = "",
    link_file: LinkFile = None,
    compute_s: Annotated[
        float, typer.Option(min=0, help="Seconds that a node computes in a round.")
    ] = 0.0,
    out: Annotated[Path | None, typer.Option(help="A CSV file, by link, round and node.")] = None,
) -> None:
    """What a run would take on a link: air time, joules and share of a month's quota.

    Bytes are those of IP packets that the ledger estimates for a deployed node with TLS. "round s"
    adds to the air time Flower's polling, round trips, the pauses of a duty cycle and what
    --compute-s says. Round 0 is what was sent before the first, and not in the mean. "-": nobody
    published it, or nothing limits it.
    """
    from fed_ist.reports.link_costs import (
        cost_rows,
        mean_node_round,
        render_costs,
        sum_node_rounds,
        total_rows,
        write_costs,
    )
    from fed_ist.runs.lookup import find_run
    from fed_ist.runs.reading import open_run
    from fed_ist.traffic.links import find_link, quota_share, read_links
    from fed_ist.traffic.packets import bytes_of_waiting

    node_rounds = sum_node_rounds(open_run(find_run(run)))
    chosen = [find_link(link, link_file)] if link else list(read_links(link_file).values())
    if link:
        rows = cost_rows(chosen[0], node_rounds, compute_s)
        for line in render_costs([*rows, *total_rows(rows)], "node"):
            typer.echo(line)
        for figure, source in chosen[0].sources.items():
            typer.echo(printable(f"{figure}: {source}"))
    else:
        mean = [mean_node_round(node_rounds)]
        rows = [
            row | {"round": "mean"} for one in chosen for row in cost_rows(one, mean, compute_s)
        ]
        for line in render_costs(rows, "link"):
            typer.echo(line)
    for one in chosen:
        if one.note:
            typer.echo(printable(f"{one.name}: {one.note}"))
    hour = bytes_of_waiting(3600)
    typer.echo(
        f"A waiting flower-supernode takes {hour.down:,} B an hour more down and {hour.up:,} up"
        + (
            f", {quota_share(chosen[0], hour):.1%} of the quota"
            if link and chosen[0].quota_bytes
            else ""
        )
    )
    if out:
        write_costs(out, [row for one in chosen for row in cost_rows(one, node_rounds, compute_s)])


@bench.command()
def wire(
    nodes: Annotated[int, typer.Option(min=1, max=200, help="SuperNodes.")] = 2,
    slice_bytes: Annotated[
        str, typer.Option(help="About what is sent in a round each way, separated by commas.")
    ] = "10000,100000,1000000,10000000",
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of each run.")] = 3,
    tls: Annotated[bool, typer.Option(help="Whether the SuperLink has a certificate.")] = True,
    link: Annotated[
        str, typer.Option(help="Hold packets back as on this link, and time the rounds.")
    ] = "",
    link_file: LinkFile = None,
    idle_s: Annotated[
        float, typer.Option(min=0, help="Seconds for which waiting nodes are watched first.")
    ] = 60.0,
    out: Annotated[
        Path | None, typer.Option(help="A CSV file, by round and node; with --relay, Markdown.")
    ] = None,
    relay: Annotated[
        bool, typer.Option("--relay", help="Compare the relay with a SuperNode; --idle-s counts.")
    ] = False,
    app: App = None,
) -> None:
    """What really crosses the network in a run, against what the ledger says. Linux, as root.

    A SuperLink and SuperNodes run in network namespaces of their own; bytes are IP packets by the
    interfaces' counters, and by tshark where it is installed.

    Example:

      fed-ist bench wire --slice-bytes 100000 --link lte-m
    """
    from fed_ist.files.paths import require_writable
    from fed_ist.launch.processes import find_app, run_module
    from fed_ist.traffic.links import find_link

    if link:
        find_link(link, link_file)
    if out:
        require_writable(out.absolute().parent, "--out")
    if relay:
        compared = {"idle_s": idle_s, "out": str(out.absolute()) if out else ""}
        raise typer.Exit(run_module(find_app(app), "sims.wires.ways", compared))
    request = {
        "n_nodes": nodes,
        "slice_bytes": whole_numbers("--slice-bytes", slice_bytes, 1000),
        "n_rounds": rounds,
        "tls": tls,
        "link": link,
        "links": str(link_file.absolute()) if link_file else "",
        "idle_s": idle_s,
        "out": str(out.absolute()) if out else "",
    }
    raise typer.Exit(run_module(find_app(app), "sims.wires.wire", request))
