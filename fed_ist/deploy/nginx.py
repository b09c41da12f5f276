"""The configuration of the gate, an nginx before the SuperLink that lets only nodes' requests in.

Flower 1.42 has nodes sign what they send, but it takes other orders from anyone who reaches its
port: to run code on all devices, or to register a node. It also takes a whole body before it looks
at who sent it. So the SuperLink listens on its own host alone, and nginx asks the verifier before
it takes a body.
"""

from pathlib import Path

from fed_ist.deploy.certificates import Certificates
from fed_ist.deploy.gate_places import NETWORK, Places, Ports, word
from fed_ist.deploy.gate_requests import requests

# Connections at once: of one client (an IPv4 address or an IPv6 network), and of all together. A
# SuperNode has one or two, and up to eight while it sends an object: dozens can share an address.
CONNECTIONS_EACH, CONNECTIONS = 128, 2048
# Connections above these numbers are not closed: with Flower 1.42 a SuperNode whose handshake is
# cut short drops its answer, and ends. They go to a crowd of this size, with shorter timeouts.
CROWD = 1536
# nginx counts every end of a connection: a device's connection leads to four or six ends in it.
WORKER_CONNECTIONS = 18432


def configuration(
    files: Certificates, ports: Ports, places: Places, modules: tuple[Path, ...], user: str
) -> str:
    """A whole configuration of nginx that lets devices through to the SuperLink.

    modules: those that nginx must load. user: the user as whom root's nginx works; "" if nginx is
    not started by root. Raises `InputError` for a path that nginx cannot read.
    """
    return (
        _main(places, modules, user) + _connections(ports, places) + requests(files, ports, places)
    )


def _main(places: Places, modules: tuple[Path, ...], user: str) -> str:
    loaded = "".join(f"load_module {word(module)};\n" for module in modules)
    return f"""\
# Made by: fed-ist gate
{loaded}{f"user {user};" if user else ""}
daemon off;
worker_processes 2;
pid {word(places.runtime / "nginx.pid")};
error_log {word(places.errors)} warn;
events {{
    worker_connections {WORKER_CONNECTIONS};
}}
"""


def _connections(ports: Ports, places: Places) -> str:
    """The `stream` block, which counts connections.

    nginx's `http` counts only connections that have sent a header.
    """
    listen = [f"listen {ports.port} backlog=4096;"]
    if Path("/proc/net/if_inet6").exists():
        listen.append(f"listen [::]:{ports.port} backlog=4096;")
    return f"""\
stream {{
{NETWORK}
    limit_conn_zone $fed_ist_network zone=connections_each:4m;
    limit_conn_zone $protocol zone=connections_all:64k;
    limit_conn_zone $protocol zone=connections_crowd:64k;
    limit_conn_log_level info;
    map $limit_conn_status $fed_ist_way {{
        REJECTED_DRY_RUN fed_ist_way_to_crowd;
        default fed_ist_inside;
    }}
    upstream fed_ist_inside {{
        server {word(f"unix:{places.inside}")};
    }}
    upstream fed_ist_way_to_crowd {{
        server {word(f"unix:{places.way_to_crowd}")};
    }}
    proxy_connect_timeout 5s;
    proxy_timeout 600s;
    server {{
        {" ".join(listen)}
        limit_conn connections_each {CONNECTIONS_EACH};
        limit_conn connections_all {CONNECTIONS};
        limit_conn_dry_run on;
        proxy_pass $fed_ist_way;
        proxy_protocol on;
    }}
    server {{
        listen {word(f"unix:{places.way_to_crowd}")} backlog=4096;
        limit_conn connections_crowd {CROWD};
        proxy_pass {word(f"unix:{places.crowd}")};
    }}
}}
"""
