"""The commands that set up a deployment: keys, systemd units, the gate, and a doctor for devices.

Everything heavy is imported where it is used, so that --help is quick.
"""

from pathlib import Path
from typing import Annotated

import typer

from fed_ist.cli.helping import Commands
from fed_ist.errors import InputError
from fed_ist.printable import indented

deployment = typer.Typer()
unit = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    help="Print what starts a server or a device at boot, for its own host.",
)
deployment.add_typer(unit, name="unit")

Keys = Annotated[Path, typer.Option(help="The folder that `fed-ist keys` has made.")]
SuperLinkPort = Annotated[
    int, typer.Option(min=1, max=65535, help="Where the SuperLink listens, on its own host alone.")
]
GatePort = Annotated[int, typer.Option(min=1, max=65535, help="Where devices reach the server.")]


@deployment.command()
def keys(
    out: Annotated[Path, typer.Option(help="The folder for them; what is there stays.")],
    host: Annotated[
        list[str] | None,
        typer.Option(help="A name or an IP address by which devices reach the server; repeat."),
    ] = None,
    node: Annotated[list[str] | None, typer.Option(help="A device's name; repeat.")] = None,
    days: Annotated[
        int, typer.Option(min=1, help="For which the server's certificate holds.")
    ] = 365,
) -> None:
    """Make an authority, the server's certificate, and a key for each device.

    Called again, it adds what is missing, and renews a certificate with less than 30 days left.

    Example:

      fed-ist keys --out keys --host field.example.org --node north --node south
    """
    from fed_ist.deploy.certificates import read_certificate, validity, write_certificates
    from fed_ist.deploy.node_keys import require_name, write_node_key

    nodes = node or []
    for name in nodes:
        require_name(name)
    if not host and not (out / "server.crt").exists():
        raise InputError("Give --host: a name or an IP address by which devices reach the server.")
    if host or not nodes:  # for a device's key alone, the authority's key may stay locked away
        write_certificates(out, host or [], days)
    for name in nodes:
        write_node_key(out, name)
    end = validity(read_certificate(out / "server.crt")).end
    typer.echo(f"{out}/ca.crt       to each device, and to whoever starts runs")
    typer.echo(f"{out}/ca.key       to nobody: who has it can pose as the server")
    typer.echo(f"{out}/server.crt   stays on the server; ends on {end:%Y-%m-%d}, renew it before")
    typer.echo(f"{out}/server.key   stays on the server")
    for name in nodes:
        typer.echo(f"{out}/{name}   to the device {name}, and nowhere else")
        typer.echo(f"    flwr supernode register {out}/{name}.pub SUPERLINK --name {name}")


@unit.command()
def superlink(keys: Keys, port: SuperLinkPort = 8001) -> None:
    """A systemd unit of the server, which the gate lets devices reach.

    Example:

      fed-ist unit superlink --keys keys | sudo tee /etc/systemd/system/fed-ist-superlink.service
    """
    from fed_ist.deploy.systemd import superlink_unit

    typer.echo(superlink_unit(keys, port), nl=False)


@unit.command("gate")
def gate_unit(keys: Keys, port: GatePort = 8000, superlink_port: SuperLinkPort = 8001) -> None:
    """A systemd unit of the gate: it lets registered devices through to the SuperLink, no others.

    Example:

      fed-ist unit gate --keys keys | sudo tee /etc/systemd/system/fed-ist-gate.service
    """
    from fed_ist.deploy.systemd import gate_unit

    typer.echo(gate_unit(keys, port, superlink_port), nl=False)


@deployment.command()
def gate(
    keys: Keys,
    database: Annotated[Path, typer.Option(help="The SuperLink's, with the registered keys.")],
    runtime: Annotated[Path, typer.Option(help="A folder for sockets.")],
    bodies: Annotated[Path, typer.Option(help="A folder for what is on its way.")],
    logs: Annotated[Path, typer.Option(help="A folder for gate.log.")],
    port: GatePort = 8000,
    superlink_port: SuperLinkPort = 8001,
) -> None:
    """Let registered devices through to the SuperLink, and nobody else, until told to stop.

    It is what the unit of `fed-ist unit gate` starts: nginx, and a verifier, which nginx asks who
    sends a request before it takes the body. SIGHUP has nginx read a renewed certificate.

    Example:

      fed-ist gate --keys keys --database superlink.db --runtime run --bodies bodies --logs logs
    """
    from fed_ist.deploy.gate_places import Places, Ports
    from fed_ist.deploy.gatekeeper import keep_gate

    places = Places(runtime.absolute(), bodies.absolute(), logs.absolute())
    raise typer.Exit(keep_gate(keys, Ports(port, superlink_port), database, places))


@deployment.command(
    "supernode", context_settings={"allow_extra_args": True, "ignore_unknown_options": True}
)
def keep_supernode(
    context: typer.Context,
    superlink: Annotated[str, typer.Option(help="The server's gate, as HOST:PORT.")],
    auth_supernode_private_key: Annotated[Path, typer.Option(help="This device's private key.")],
    root_certificates: Annotated[Path | None, typer.Option(help="The authority: ca.crt.")] = None,
) -> None:
    """Run flower-supernode with one lasting connection to the server, until told to stop.

    Other options go to flower-supernode. A message is there within seconds, and an hour of waiting
    is some kilobytes on the link.

    Example:

      fed-ist supernode --superlink HOST:8000 --root-certificates ca.crt
      --auth-supernode-private-key north --node-config "data-path='images' name='north'"
    """
    import json
    import os
    import sys

    device = {
        "superlink": superlink,
        "authority": str(root_certificates.absolute()) if root_certificates else None,
        "key": str(auth_supernode_private_key.absolute()),
        "words": context.args,
    }
    # In place of this process, which then is all that a unit has to end.
    words = [sys.executable, "-P", "-m", "clients.relay.supernode", json.dumps(device)]
    os.execv(words[0], words)


@unit.command()
def supernode(
    superlink: Annotated[str, typer.Option(help="The server, as HOST:PORT.")],
    root_certificates: Annotated[Path, typer.Option(help="The authority: ca.crt.")],
    key: Annotated[Path, typer.Option(help="This device's private key, a file with its name.")],
    data_path: Annotated[Path, typer.Option(help="Its images, as <class>/<image>.")],
    link: Annotated[str, typer.Option(help="One of `fed-ist links`.")] = "",
) -> None:
    """A systemd unit of a device, for /etc/systemd/system/fed-ist-supernode.service.

    Example:

      fed-ist unit supernode --superlink HOST:8000 --root-certificates ca.crt --key north
      --data-path images
    """
    from fed_ist.deploy.systemd import supernode_unit

    typer.echo(supernode_unit(superlink, root_certificates, key, data_path, link), nl=False)


@deployment.command()
def doctor(
    data_path: Annotated[
        Path | None, typer.Option(help="The device's images, as <class>/<image>; each is read.")
    ] = None,
    superlink: Annotated[str, typer.Option(help="The server, as HOST:PORT.")] = "",
    root_certificates: Annotated[Path | None, typer.Option(help="The authority: ca.crt.")] = None,
    key: Annotated[Path | None, typer.Option(help="This device's private key.")] = None,
    classes: Annotated[str, typer.Option(help="The server's classes, separated by commas.")] = "",
) -> None:
    """Check whether this device can be a node, and say what to do about what fails.

    It checks Python, torch, the encoder, memory and disk, and whatever the options name. Exit code
    1 if anything fails.

    Example:

      fed-ist doctor --superlink HOST:8000 --root-certificates ca.crt --key north --data-path images
    """
    from fed_ist.deploy.diagnosis import FAILURE
    from fed_ist.deploy.doctor import Checkup, examine

    wanted = tuple(name.strip() for name in classes.split(",") if name.strip())
    failed = False
    for found in examine(Checkup(data_path, superlink, root_certificates, key, wanted)):
        typer.echo(f"{found.level:8} {found.check:12} {indented(found.text)}")
        failed |= found.level == FAILURE
    raise typer.Exit(int(failed))
