"""What nginx does with each request at the gate: it asks who sends it before it takes a body."""

from importlib.metadata import version
from pathlib import Path

from fed_ist.deploy.certificates import Certificates
from fed_ist.deploy.gate_places import NETWORK, Places, Ports, word
from fed_ist.deploy.node_signatures import PUBLIC_KEY, SIGNATURE, TIMESTAMP
from fed_ist.deploy.verifier import REASON

VERSIONS_HEADER = "fed-ist-versions"  # a header of the answer to CHECK
RELAY = "/relay"  # the lasting connection of a device that runs `fed-ist supernode`
CHECK = "/check"  # what a device with a registered key may ask: is the SuperLink there?
# The most bytes of one object. A slice of 16 million weights in fp32 is one, and fits.
MAX_OBJECT = "64m"
# The most bytes of a reply's list of objects, which names each object in 64 letters.
MAX_TREE = "1m"
MAX_QUESTION = "16k"
OBJECTS_EACH = 8  # at once for each key: a SuperNode sends no more
# More of a body than this is kept on the disk until it is whole.
IN_MEMORY = "1m"
# A device with a lasting connection says something each four minutes.
SILENT_S = 600
REQUESTS_EACH_S = 100  # a SuperLink answers no more than 90
# A SuperNode waits 30 s for anything (Flower 1.42), so after that it has given up.
PATIENCE_S, CROWD_PATIENCE_S = 30, 5
SIGNED = (PUBLIC_KEY, TIMESTAMP, SIGNATURE)
# Flower's own form and number of the answer to a key that it does not know.
NOT_ACTIVATED = (
    '{"code": 2004, "detail": "The gate does not let this SuperNode in: its key is not registered, '
    'or its clock is wrong. fed-ist doctor tells which."}'
)


def requests(files: Certificates, ports: Ports, places: Places) -> str:
    """The `http` block of the gate's nginx configuration."""
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
    map $request_method $fed_ist_method {{
        "~^(?<fed_ist_word>.{{0,10}})" $fed_ist_word;
    }}
    log_format refusals '$time_iso8601 $remote_addr $status $fed_ist_method "$fed_ist_asked" '
        '$fed_ist_reason';
    access_log {word(places.log)} refusals if=$fed_ist_refused;
    limit_req_zone $fed_ist_network zone=requests_each:4m rate={REQUESTS_EACH_S}r/s;
    limit_req_log_level info;
    map $http_{_variable(PUBLIC_KEY)} $fed_ist_key {{
        "~(?<fed_ist_point>.{{0,200}})$" $fed_ist_point;
    }}
    limit_conn_zone $fed_ist_key zone=objects_each:4m;
    limit_conn_log_level info;
    client_body_temp_path {word(places.bodies)};
    proxy_temp_path {word(places.runtime / "answers")};
    fastcgi_temp_path {word(places.runtime / "fastcgi")};
    uwsgi_temp_path {word(places.runtime / "uwsgi")};
    scgi_temp_path {word(places.runtime / "scgi")};
    upstream fed_ist_superlink {{
        server 127.0.0.1:{ports.superlink};
        keepalive 16;
        keepalive_timeout 4s;  # a SuperLink closes after 5
    }}
    upstream fed_ist_relay {{
        server {word(f"unix:{places.relay}")};
    }}
    upstream fed_ist_verifier {{
        server {word(f"unix:{places.verifier}")};
        keepalive 16;
    }}
{_server(files, places.inside, PATIENCE_S)}\
{_server(files, places.crowd, CROWD_PATIENCE_S)}\
}}
"""


def _server(files: Certificates, place: Path, patience_s: int) -> str:
    """The `server` block at one socket: TLS ends there, and each request is judged."""
    return f"""\
    server {{
        listen {word(f"unix:{place}")} ssl proxy_protocol backlog=4096;
        set_real_ip_from unix:;
        real_ip_header proxy_protocol;
        ssl_certificate {word(files.server)};
        ssl_certificate_key {word(files.key)};
        ssl_protocols TLSv1.2 TLSv1.3;
        server_tokens off;
        gzip off;
        client_header_timeout {patience_s}s;
        client_body_timeout {patience_s}s;
        send_timeout {patience_s}s;
        keepalive_timeout {patience_s}s;
        keepalive_requests 100000;
        # The rest of a refused request is read for a while: otherwise its answer may get lost.
        lingering_time 5s;
        lingering_timeout 2s;
        client_header_buffer_size 2k;
        large_client_header_buffers 2 4k;
        client_max_body_size {MAX_QUESTION};
        client_body_buffer_size {IN_MEMORY};
        # A SuperNode sends its reply again after 502, 503 or 504, and drops it after other errors.
        error_page 401 @refused;
        error_page 500 =503 @later;

        location / {{
            client_max_body_size 0;  # no body is taken here
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
            client_max_body_size 0;  # the verifier gets no body
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
        location = {RELAY} {{
            if ($request_method != GET) {{ return 405; }}
            if ($http_transfer_encoding) {{ return 411; }}
            {_unsigned_refused()}
            limit_req zone=requests_each burst={2 * REQUESTS_EACH_S} nodelay;
            auth_request /verify;
            auth_request_set $fed_ist_reason $upstream_http_{_variable(REASON)};
            client_max_body_size 1k;
            proxy_http_version 1.1;
            proxy_set_header Host gate;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection upgrade;
            {_signed()}
            proxy_read_timeout {SILENT_S}s;
            proxy_send_timeout {SILENT_S}s;
            proxy_pass http://fed_ist_relay;
        }}
        # The headers that were judged are passed on, and bodies once they are whole.
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        {_signed()}
        proxy_request_buffering on;
        proxy_max_temp_file_size 0;
        proxy_ssl_verify on;
        proxy_ssl_name localhost;
        proxy_ssl_trusted_certificate {word(files.authority)};
    }}
"""


def _let_through() -> list[str]:
    """The `location` blocks of everything that a node may ask for."""
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
    """The `location` block of one path; nginx makes the checks of a request in this order."""
    return f"""\
        location {path} {{
            {more}
            if ($request_method != {method}) {{ return 405; }}
            if ($http_transfer_encoding) {{ return 411; }}
            {_unsigned_refused()}
            limit_req zone=requests_each burst={2 * REQUESTS_EACH_S} nodelay;
            auth_request /verify;
            auth_request_set $fed_ist_reason $upstream_http_{_variable(REASON)};
            client_max_body_size {max_body};
            proxy_pass https://fed_ist_superlink{superlinks_path};
        }}
"""


def _unsigned_refused() -> str:
    return " ".join(f'if ($http_{_variable(name)} = "") {{ return 401; }}' for name in SIGNED)


def _signed() -> str:
    return " ".join(f"proxy_set_header {name} $http_{_variable(name)};" for name in SIGNED)


def _variable(header: str) -> str:
    return header.replace("-", "_")


def versions() -> str:
    """The versions that are installed here; a server and its devices should have the same."""
    return f"fed-ist {version('fed-ist')}, flwr {version('flwr')}"
