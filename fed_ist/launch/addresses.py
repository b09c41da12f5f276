"""Addresses as HOST:PORT, which is how Flower takes them, and the names of this machine."""

from fed_ist.errors import InputError

LOOPBACK = ("localhost", "127.0.0.1", "::1")


def split_address(address: str) -> tuple[str, int]:
    """The host and the port of an address, without the brackets of IPv6.

    Raises `InputError` where it is not HOST:PORT.
    """
    host, _, port = address.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    is_host = host == f"[{bare}]" if ":" in host else host == bare
    is_port = port.isascii() and port.isdigit() and 0 < int(port) < 65536
    if not (bare and is_host and is_port and "/" not in host and bare.isprintable()):
        raise InputError(
            f"'{address}' is not the address of a SuperLink: give HOST:PORT, as in "
            "field.example.org:8000."
        )
    return bare, int(port)
