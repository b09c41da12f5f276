"""A gate of nginx before the SuperLink: what registered nodes ask for comes in, nothing else.

Flower 1.42 has nodes sign what they send, but takes orders from whoever reaches its port: to run
code on all devices, or to register a node. It also takes a whole body before it looks at who sent
it. So the SuperLink listens on its own host alone, and nginx asks the verifier before a body.
"""

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from fed_ist.credentials import Certificates
from fed_ist.errors import InputError
from fed_ist.node_signatures import PUBLIC_KEY, SIGNATURE, TIMESTAMP
from fed_ist.verifier import REASON

VERSIONS_HEADER = "fed-ist-versions"  # of the answer to CHECK
CHECK = "/check"  # what a device with a registered key may ask: is the SuperLink there?
# Of one request: more than a slice of 16 million weights in fp32, which travels as one object.
MAX_OBJECT = "64m"
# The names of what was learnt, and how they hang together: 64 letters each.
MAX_TREE = "1m"
MAX_QUESTION = "16k"
OBJECTS_EACH = 8  # at once, of a key: no more are sent by a SuperNode
# More of a body than this is kept on the disk until it is whole.
IN_MEMORY = "1m"
# At once: of an IPv4 address, or an IPv6 network, and of all. A SuperNode has one or two, and up to
# eight while it sends an object, so that many may share an address.
CONNECTIONS_EACH, CONNECTIONS = 128, 2048
# What is above that is not closed: with Flower 1.42 a SuperNode whose handshake is cut short drops
# its answer, and ends. It waits in a crowd, for as many, in which all has to be quick.
CROWD = 1536
# nginx has one for each end of each connection, four or six of them.
WORKER_CONNECTIONS = 18432
REQUESTS_EACH_S = 100  # a SuperLink answers no more than 90
# As long as a SuperNode itself waits for anything (Flower 1.42): who is slower has given up.
PATIENCE_S, CROWD_PATIENCE_S = 30, 5
SIGNED = (PUBLIC_KEY, TIMESTAMP, SIGNATURE)
# An IPv4 address, or the /48 of an IPv6 address, which is what a customer gets at most.
NETWORK = """\
    map $binary_remote_addr $fed_ist_network {
        "~(?s)^(?<fed_ist_site>.{6}).{10}$" $fed_ist_site;
        default $binary_remote_addr;
    }"""
# What Flower says of a key that it does not know, with its number for that.
NOT_ACTIVATED = (
    '{"code": 2004, "detail": "The gate does not let this SuperNode in: its key is not registered, '
    'or its clock is wrong. fed-ist doctor tells which."}'
)


@dataclass(frozen=True)
class Places:
    """Where the gate keeps things. runtime: for sockets. bodies: for what is on its way, on
    a disk. Nobody else may enter these two.
    """

    runtime: Path
    bodies: Path
    logs: Path

    @property
    def verifier(self) -> Path:
        """The socket of the verifier."""
        return self.runtime / "verifier.sock"

    @property
    def inside(self) -> Path:
        """The socket behind which nginx ends TLS."""
        return self.runtime / "inside.sock"

    @property
    def crowd(self) -> Path:
        """The same, for those who come when there are too many."""
        return self.runtime / "crowd.sock"

    @property
    def way_to_crowd(self) -> Path:
        """Where these are counted."""
        return self.runtime / "way-to-crowd.sock"

    @property
    def log(self) -> Path:
        """What was refused, to whom and why."""
        return self.logs / "gate.log"

    @property
    def errors(self) -> Path:
        """What nginx complains of."""
        return self.logs / "gate-errors.log"


@dataclass(frozen=True)
class Ports:
    """port: where devices reach the server. superlink: on this host, which it does not leave."""

    port: int
    superlink: int


def configuration(
    files: Certificates, ports: Ports, places: Places, modules: tuple[Path, ...], user: str
) -> str:
    """A whole configuration of nginx, in which devices are let through to the SuperLink.

    modules: those that nginx has to load. user: as whom root has nginx work; empty for others.
    Raises `InputError` for a path that nginx cannot read.
    """
    return (
        _main(places, modules, user) + _connections(ports, places) + _requests(files, ports, places)
    )


def _main(places: Places, modules: tuple[Path, ...], user: str) -> str:
    loaded = "".join(f"load_module {_word(module)};\n" for module in modules)
    return f"""\
# Made by: fed-ist gate
{loaded}{f"user {user};" if user else ""}
daemon off;
worker_processes 2;
pid {_word(places.runtime / "nginx.pid")};
error_log {_word(places.errors)} warn;
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
        server {_word(f"unix:{places.inside}")};
    }}
    upstream fed_ist_way_to_crowd {{
        server {_word(f"unix:{places.way_to_crowd}")};
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
        listen {_word(f"unix:{places.way_to_crowd}")} backlog=4096;
        limit_conn connections_crowd {CROWD};
        proxy_pass {_word(f"unix:{places.crowd}")};
    }}
}}
"""


def _requests(files: Certificates, ports: Ports, places: Places) -> str:
    return f"""\
http {{
{NETWORK}
    map $status $fed_ist_refused {{
        ~^[23] 0;
        default 1;
    }}
    map $request_uri $fed_ist_asked {{
        "~^(?<fed_ist_start>.{{0,80}})" $fed_ist_start;
    }}
    log_format refusals '$time_iso8601 $remote_addr $status $request_method "$fed_ist_asked" '
        '$fed_ist_reason';
    access_log {_word(places.log)} refusals if=$fed_ist_refused;
    limit_req_zone $fed_ist_network zone=requests_each:4m rate={REQUESTS_EACH_S}r/s;
    limit_req_log_level info;
    map $http_{_variable(PUBLIC_KEY)} $fed_ist_key {{
        "~(?<fed_ist_point>.{{0,200}})$" $fed_ist_point;
    }}
    limit_conn_zone $fed_ist_key zone=objects_each:4m;
    limit_conn_log_level info;
    client_body_temp_path {_word(places.bodies)};
    proxy_temp_path {_word(places.runtime / "answers")};
    fastcgi_temp_path {_word(places.runtime / "fastcgi")};
    uwsgi_temp_path {_word(places.runtime / "uwsgi")};
    scgi_temp_path {_word(places.runtime / "scgi")};
    upstream fed_ist_superlink {{
        server 127.0.0.1:{ports.superlink};
        keepalive 16;
        keepalive_timeout 4s;  # a SuperLink closes after 5
    }}
    upstream fed_ist_verifier {{
        server {_word(f"unix:{places.verifier}")};
        keepalive 16;
    }}
{_server(files, places.inside, PATIENCE_S)}\
{_server(files, places.crowd, CROWD_PATIENCE_S)}\
}}
"""


def _server(files: Certificates, place: Path, patience_s: int) -> str:
    """Where TLS ends, and each request is looked at."""
    return f"""\
    server {{
        listen {_word(f"unix:{place}")} ssl proxy_protocol backlog=4096;
        set_real_ip_from unix:;
        real_ip_header proxy_protocol;
        ssl_certificate {_word(files.server)};
        ssl_certificate_key {_word(files.key)};
        ssl_protocols TLSv1.2 TLSv1.3;
        server_tokens off;
        gzip off;
        client_header_timeout {patience_s}s;
        client_body_timeout {patience_s}s;
        send_timeout {patience_s}s;
        keepalive_timeout {patience_s}s;
        keepalive_requests 100000;
        # What is refused is read on for a while, lest the answer be lost.
        lingering_time 5s;
        lingering_timeout 2s;
        client_header_buffer_size 2k;
        large_client_header_buffers 2 4k;
        client_max_body_size {MAX_QUESTION};
        client_body_buffer_size {IN_MEMORY};
        # Upon what is none of 502 to 504, a SuperNode drops its answer.
        error_page 401 @refused;
        error_page 500 =503 @later;

        location / {{
            client_max_body_size 0;  # nothing of it is taken
            keepalive_timeout 0;
            return 403;
        }}
        location @refused {{
            keepalive_timeout 0;
            return 401;
        }}
        location @not_activated {{
            keepalive_timeout 0;
            default_type application/json;
            return 412 '{NOT_ACTIVATED}';
        }}
        location @later {{
            return 503;
        }}
        location = /health {{
            return 200;
        }}
        location = /verify {{
            internal;
            client_max_body_size 0;  # of which nothing is passed on
            proxy_pass http://fed_ist_verifier;
            proxy_method GET;
            proxy_pass_request_body off;
            proxy_pass_request_headers off;
            proxy_set_header Host gate;
            proxy_set_header Content-Length "";
            proxy_set_header Connection "";
            {_signed()}
            proxy_connect_timeout 5s;
            proxy_read_timeout 10s;
        }}
{"".join(_let_through())}\
        # What is signed is what is passed on; bodies are passed on once they are whole.
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        {_signed()}
        proxy_request_buffering on;
        proxy_max_temp_file_size 0;
        proxy_ssl_verify on;
        proxy_ssl_name localhost;
        proxy_ssl_trusted_certificate {_word(files.authority)};
    }}
"""


def _let_through() -> list[str]:
    """The locations of what a node may ask for."""
    fleet = r"~ ^/v1/fleet/[a-z-]+\z"  # "$" would let a line end after it
    return [
        _location(fleet, MAX_QUESTION),
        _location("= /v1/fleet/push-messages", MAX_TREE),
        _location(
            "= /v1/fleet/push-object", MAX_OBJECT, f"limit_conn objects_each {OBJECTS_EACH};"
        ),
        _location(
            "= /v1/fleet/activate-node",
            MAX_QUESTION,
            "error_page 401 =412 @not_activated; error_page 500 =503 @later;",
        ),
        _location(
            f"= {CHECK}",
            MAX_QUESTION,
            f'add_header {VERSIONS_HEADER} "{versions()}";',
            "GET",
            "/health",
        ),
    ]


def _location(
    path: str, max_body: str, more: str = "", method: str = "POST", superlinks_path: str = "$uri"
) -> str:
    """What may pass, once it is signed. The parts of a request are looked at in this order."""
    unsigned = " ".join(f'if ($http_{_variable(name)} = "") {{ return 401; }}' for name in SIGNED)
    return f"""\
        location {path} {{
            {more}
            if ($request_method != {method}) {{ return 405; }}
            if ($http_transfer_encoding) {{ return 411; }}
            {unsigned}
            limit_req zone=requests_each burst={2 * REQUESTS_EACH_S} nodelay;
            auth_request /verify;
            auth_request_set $fed_ist_reason $upstream_http_{_variable(REASON)};
            client_max_body_size {max_body};
            proxy_pass https://fed_ist_superlink{superlinks_path};
        }}
"""


def _signed() -> str:
    return " ".join(f"proxy_set_header {name} $http_{_variable(name)};" for name in SIGNED)


def _variable(header: str) -> str:
    return header.replace("-", "_")


def versions() -> str:
    """What is installed here, and had best be the same on a server and its devices."""
    return f"fed-ist {version('fed-ist')}, flwr {version('flwr')}"


def _word(path: Path | str) -> str:
    text = str(path)
    if "$" in text or not text.isprintable():
        raise InputError(f"nginx cannot read {text!r}: move it to a path without '$' or the like.")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
