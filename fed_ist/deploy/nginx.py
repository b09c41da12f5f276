"""A gate of nginx before the SuperLink: what registered nodes ask for comes in, nothing else.

Flower 1.42 has nodes sign what they send, but takes orders from whoever reaches its port: to run
code on all devices, or to register a node. It also takes a whole body before it looks at who sent
it. So the SuperLink listens on its own host alone, and nginx asks the verifier before a body.
"""

from pathlib import Path

from fed_ist.deploy.certificates import Certificates
from fed_ist.deploy.gate_places import NETWORK, Places, Ports, word
from fed_ist.deploy.gate_requests import requests

# At once: of an IPv4 address, or an IPv6 network, and of all. A SuperNode has one or two, and up to
# eight while it sends an object, so that many may share an address.
CONNECTIONS_EACH, CONNECTIONS = 128, 2048
# What is above that is not closed: with Flower 1.42 a SuperNode whose handshake is cut short drops
# its answer, and ends. It waits in a crowd, for as many, in which all has to be quick.
CROWD = 1536
# nginx has one for each end of each connection, four or six of them.
WORKER_CONNECTIONS = 18432


def configuration(
    files: Certificates, ports: Ports, places: Places, modules: tuple[Path, ...], user: str
) -> str:
    """A whole configuration of nginx, in which devices are let through to the SuperLink.

    modules: those that nginx has to load. user: as whom root has nginx work; empty for others.
    Raises `InputError` for a path that nginx cannot read.
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
    """Connections are counted here: nginx's `http` only counts those that have sent a header."""
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
