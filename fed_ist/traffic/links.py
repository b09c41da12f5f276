"""Links between a node and the server: how long messages take on them, and what they cost.

The profiles are data: `links.toml` in this folder, where each figure has its source.
"""

import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from fed_ist.errors import InputError, require_choice
from fed_ist.traffic.packets import LinkBytes

PROFILES = Path(__file__).with_name("links.toml")
# A node asks for messages every 3 s, and the server asks for replies every 3 s. Each waits half of
# that on average, so both together wait 3 s (flwr 1.42, supernode/start_client_internal.py and
# superlink/grid/http_grid.py).
POLLING_S = 3.0


@dataclass(frozen=True)
class Link:
    """One kind of link, with figures that can be planned with.

    down_bps, up_bps: bits of IP traffic per second, towards the node and from it.
    latency_s: in one direction. loss: the share of packets that are lost, in [0, 1).
    down_j_per_byte, up_j_per_byte: energy of the node's radio; None where nobody published it.
    quota_bytes: per month, both ways; None where there is no limit.
    sources: figure -> where it is from.
    note: what else the user should know, such as that TCP/IP cannot run on it.
    duty_cycle: the share of the time in which the node may send; None where there is no limit.
    """

    name: str
    down_bps: float
    up_bps: float
    latency_s: float
    loss: float
    down_j_per_byte: float | None
    up_j_per_byte: float | None
    quota_bytes: float | None
    sources: dict[str, str]
    note: str = ""
    duty_cycle: float | None = None


FIGURES = tuple(
    field.name for field in fields(Link) if field.name not in ("name", "sources", "note")
)
ALLOWED: dict[str, tuple[str, Callable[[float], bool]]] = {
    "": ("above 0", lambda value: 0 < value < math.inf),
    "latency_s": ("of at least 0", lambda value: 0 <= value < math.inf),
    "loss": ("of at least 0 and below 1", lambda value: 0 <= value < 1),
    "duty_cycle": ("above 0, 1 at most", lambda value: 0 < value <= 1),
}
OPTIONAL = ("down_j_per_byte", "up_j_per_byte", "quota_bytes", "duty_cycle")


def read_links(path: Path | None = None) -> dict[str, Link]:
    """All profiles by name: those of fed-ist, or those of a TOML file of the same form.

    Raises `InputError` for a file that cannot be read, an unknown key, and a figure that is missing
    or impossible.
    """
    path = path or PROFILES
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"The link profiles '{path}' cannot be read: {error}.") from None
    return {name: _parse(name, table, path) for name, table in tables.items()}


def find_link(name: str, path: Path | None = None) -> Link:
    """The profile of this name; raises `InputError` where there is none."""
    return choose_links([name], path)[0]


def choose_links(names: Sequence[str] | None, path: Path | None = None) -> list[Link]:
    """The profiles of these names, or all for no names; raises `InputError` for an unknown name."""
    links = read_links(path)
    for name in names or []:
        require_choice("link", name, links)
    return [links[name] for name in names or links]


def _parse(name: str, table: object, path: Path) -> Link:
    where = f"'{path}', [{name}]"
    if not isinstance(table, dict):
        raise InputError(f"{where} is not a table. Give each link a [name] with its figures.")
    known = (*FIGURES, "sources", "note")
    for key in table:
        if key not in known:
            raise InputError(f"{where}: unknown key '{key}'. Choose from: {', '.join(known)}.")
    figures = {key: _figure(where, table, key) for key in FIGURES}
    sources, note = table.get("sources", {}), table.get("note", "")
    if not isinstance(sources, dict) or not isinstance(note, str):
        raise InputError(f"{where}: 'sources' must be a table of texts, and 'note' a text.")
    for key, source in sources.items():
        if key not in FIGURES or not isinstance(source, str):
            raise InputError(
                f"{where}: the source of '{key}' must be a text, and '{key}' a figure."
            )
    return Link(name=name, sources=sources, note=note, **figures)  # type: ignore[arg-type]


def _figure(where: str, table: Mapping[str, object], key: str) -> float | None:
    value = table.get(key)
    if value is None:
        if key in OPTIONAL:
            return None
        raise InputError(f"{where}: '{key}' is missing. Give a number.")
    allowed, fits = ALLOWED.get(key, ALLOWED[""])
    if isinstance(value, bool) or not isinstance(value, int | float) or not fits(value):
        raise InputError(f"{where}: {key} = {value!r} is not possible. Give a number {allowed}.")
    return float(value)


def air_s(link: Link, sent: LinkBytes) -> float:
    """The seconds of sending these bytes, first down and then up, with lost packets sent again."""
    return 8 * (sent.down / link.down_bps + sent.up / link.up_bps) / (1 - link.loss)


def wait_s(link: Link, sent: LinkBytes) -> float:
    """The seconds of sending these bytes, with the pauses that the duty cycle asks for."""
    if link.duty_cycle is None:
        return air_s(link, sent)
    up_s = 8 * sent.up / link.up_bps / (1 - link.loss)
    return air_s(link, sent) + up_s * (1 / link.duty_cycle - 1)


def joules(link: Link, sent: LinkBytes) -> float | None:
    """The energy that the node's radio uses for these bytes; None where nobody published it."""
    if link.down_j_per_byte is None or link.up_j_per_byte is None:
        return None
    energy_j = sent.down * link.down_j_per_byte + sent.up * link.up_j_per_byte
    return energy_j / (1 - link.loss)


def quota_share(link: Link, sent: LinkBytes) -> float | None:
    """The share of a month's quota that these bytes use; None where there is no quota."""
    return None if link.quota_bytes is None else (sent.down + sent.up) / link.quota_bytes


def round_s(link: Link, sent: LinkBytes, n_round_trips: int, compute_s: float) -> float:
    """The seconds of a round on a link, on average: polls, bytes, round trips and computing.

    compute_s: seconds for which the node computes. TCP's slow start is not counted: it matters
    where the rate times the latency is much more than the 14 kB that a connection starts with.
    """
    trips_s = 2 * link.latency_s * n_round_trips
    return POLLING_S + wait_s(link, sent) + trips_s + compute_s
