"""Makes and reads the private key of a node, by which the server knows it."""

import re
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fed_ist.errors import InputError
from fed_ist.files.private import make_private, write_new

NODE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")


def write_node_key(folder: Path, name: str) -> Path:
    """Make a node's private key `folder/name`, and its public key with `.pub` added.

    Returns the path of the private key.

    The key is on P-256 and in OpenSSH's format, as Flower's SuperNodes need it. Keys that are there
    stay. Raises `InputError` for a name that is not possible, and for a folder that others may
    enter.
    """
    require_name(name)
    make_private(folder)
    path = folder / name
    if not path.exists():
        key = ec.generate_private_key(ec.SECP256R1())
        data = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.OpenSSH,
            serialization.NoEncryption(),
        )
        write_new(path, data)
    public = path.with_suffix(".pub")
    if not public.exists():
        line = (
            read_node_key(path)
            .public_key()
            .public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        )
        write_new(public, line + f" {name}\n".encode(), 0o644)
    return path


def read_node_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """The private key of a node; raises `InputError` where the file has none."""
    try:
        key = serialization.load_ssh_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise InputError(f"The key '{path}' cannot be read: {error.strerror}.") from None
    except (ValueError, TypeError):  # no key, or one with a password
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise InputError(
            f"'{path}' is no private key on a NIST curve, in OpenSSH's format and without a "
            "password. Make one with: fed-ist keys"
        )
    return key


def require_private(path: Path) -> None:
    """Raise `InputError` unless the file is a node's private key that only its owner may read."""
    read_node_key(path)
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        raise InputError(
            f"Others may read the key '{path}' (mode {mode:o}). Run: chmod 600 '{path}'"
        )


def require_name(name: str) -> None:
    """Raise `InputError` unless a node, and the file of its key, can have this name."""
    if not NODE_NAME.fullmatch(name):
        raise InputError(
            f"A node cannot be called '{name}': give up to 40 letters, digits, '-' and '_'."
        )
