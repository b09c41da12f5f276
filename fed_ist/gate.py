"""A gate of nginx before the SuperLink: nodes come in, orders do not.

Flower 1.42 has nodes sign what they send, but takes orders from whoever reaches its port: to run
code on all devices, or to register a node. So the SuperLink listens on its own host alone.
"""

from importlib.metadata import version
from pathlib import Path

from fed_ist.credentials import find_server_files
from fed_ist.errors import InputError

VERSIONS_HEADER = "fed-ist-versions"  # of the gate's answers to /health
# Of one request: more than a slice of 16 million weights in fp32.
MAX_BODY = "64m"


def gate(keys: Path, port: int, superlink_port: int) -> str:
    """The part of an nginx configuration that passes on what nodes ask for, and refuses the rest.

    What is refused is logged, nodes' polls are not. Nothing is put on the disk on its way: where
    that fails nginx answers 500, and upon that Flower 1.42 drops a reply. Raises `InputError` where
    a file of `keys` is missing.
    """
    files = find_server_files(keys)
    listen = [f"listen {port} ssl;"]
    if Path("/proc/net/if_inet6").exists():
        listen.append(f"listen [::]:{port} ssl;")
    return f"""\
# Made by: fed-ist unit gate
map $status $fed_ist_refused {{
    ~^[23] 0;
    default 1;
}}
upstream fed_ist_superlink {{
    server 127.0.0.1:{superlink_port};
    keepalive 16;
}}
server {{
    {" ".join(listen)}
    ssl_certificate {_word(files.server)};
    ssl_certificate_key {_word(files.key)};
    ssl_protocols TLSv1.2 TLSv1.3;
    access_log /var/log/nginx/fed-ist.log combined if=$fed_ist_refused;
    client_max_body_size {MAX_BODY};
    client_body_timeout 300s;
    send_timeout 300s;
    gzip off;

    location / {{
        return 403;
    }}
    location = /health {{
        add_header {VERSIONS_HEADER} "{versions()}";
        proxy_pass https://fed_ist_superlink;
    }}
    location /v1/fleet/ {{
        proxy_pass https://fed_ist_superlink;
    }}
    proxy_request_buffering off;
    proxy_max_temp_file_size 0;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_ssl_verify on;
    proxy_ssl_name localhost;
    proxy_ssl_trusted_certificate {_word(files.authority)};
}}
"""


def versions() -> str:
    """What is installed here, and had best be the same on a server and its devices."""
    return f"fed-ist {version('fed-ist')}, flwr {version('flwr')}"


def _word(path: Path) -> str:
    text = str(path)
    if "$" in text or not text.isprintable():
        raise InputError(f"nginx cannot read {text!r}: move it to a path without '$' or the like.")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
