"""Makes an authority of one's own, and the certificate by which nodes know the server.

Both are in a folder that only its owner may enter. Files that are there are used again, and a
certificate that is renewed is kept under another name.
"""

import datetime
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fed_ist.errors import InputError
from fed_ist.files.private import make_private, replace_keeping, write_new
from fed_ist.launch.addresses import LOOPBACK

AUTHORITY_DAYS = 3650
RENEW_DAYS = 30  # a certificate with fewer days left is renewed
# No handshake succeeds for a device whose clock is behind the certificate's start.
STARTED_DAYS_AGO = 2
LABEL = r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)"
HOST_NAME = re.compile(rf"{LABEL}(\.{LABEL})*")


@dataclass(frozen=True)
class Certificates:
    """Paths of PEM files: the authority that clients trust, the server's certificate, its key."""

    authority: Path
    server: Path
    key: Path


@dataclass(frozen=True)
class Validity:
    """The first and the last moment at which a certificate is valid, in UTC."""

    start: datetime.datetime
    end: datetime.datetime

    def days_left(self) -> float:
        """Days until the certificate ends; below 0 where it has ended."""
        return (self.end - _now()).total_seconds() / 86400


def write_certificates(folder: Path, hosts: Sequence[str], days: int = 365) -> Certificates:
    """Make an authority, and a certificate for a server with these host names and IP addresses.

    Files that are there stay. But a server's certificate that ends soon, or lacks a host, is
    renewed with the same key, for the old and the new hosts. Devices need nothing new then, as they
    trust the authority.

    days: how long the server's certificate is valid; it ends with its authority at the latest.
    Raises `InputError` for a host that is none, for a folder that others may enter, and for an
    authority that ends soon or lacks a file.
    """
    # Flower's own processes, and the owner's commands, reach the server without leaving the host.
    names = [_general_name(host) for host in (*hosts, *LOOPBACK)]
    make_private(folder)
    found = _files(folder)
    authority, authority_key = _authority(found.authority, folder / "ca.key")
    key = _key(found.key)
    if not found.server.exists():
        write_new(found.server, _server(key, names, days, authority, authority_key), 0o644)
        return found
    before = read_certificate(found.server)
    known = list(before.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    added = [name for name in names if name not in known]
    if added or validity(before).days_left() < min(RENEW_DAYS, days / 3):
        data = _server(key, known + added, days, authority, authority_key)
        kept = folder / f"server-{before.serial_number:x}.crt"
        replace_keeping(found.server, kept, data)
    return found


def find_server_files(folder: Path) -> Certificates:
    """The absolute paths of a server's files; raises `InputError` where one is missing."""
    found = _files(folder.absolute())
    for path in (found.authority, found.server, found.key):
        if not path.is_file():
            raise InputError(
                f"'{path}' is missing. Make it with: fed-ist keys --out '{folder}' --host HOST"
            )
    return found


def read_certificate(path: Path) -> x509.Certificate:
    """The first certificate of a PEM file; raises `InputError` where there is none."""
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        raise InputError(f"The certificate '{path}' cannot be read: {error.strerror}.") from None
    except ValueError:
        raise InputError(f"'{path}' is no certificate in PEM format.") from None


def validity(certificate: x509.Certificate) -> Validity:
    """The first and the last moment at which a certificate is valid."""
    return Validity(certificate.not_valid_before_utc, certificate.not_valid_after_utc)


def _files(folder: Path) -> Certificates:
    return Certificates(folder / "ca.crt", folder / "server.crt", folder / "server.key")


def _authority(path: Path, key_path: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    if path.exists() and not key_path.exists():
        raise InputError(
            f"'{path}' is there without '{key_path}': bring the key back, or make another "
            "authority in a new folder."
        )
    key = _key(key_path)
    if not path.exists():
        write_new(path, _new_authority(key), 0o644)
    found = read_certificate(path)
    if found.public_key() != key.public_key():
        raise InputError(f"'{key_path}' is not the key of '{path}': bring the right one back.")
    if validity(found).days_left() < RENEW_DAYS:
        raise InputError(
            f"The authority '{path}' ends on {validity(found).end:%Y-%m-%d}. Make another in a new "
            "folder, and bring its ca.crt to each device."
        )
    return found, key


def _key(path: Path) -> ec.EllipticCurvePrivateKey:
    """The key of a certificate; it is made where there is none.

    It is on P-256: with an RSA key, the certificate and each handshake would have more bytes.
    """
    if not path.exists():
        data = ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        write_new(path, data)
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise InputError(f"'{path}' is no private key that fed-ist has made: move it away.")
    return key


def _new_authority(key: ec.EllipticCurvePrivateKey) -> bytes:
    name = _name("fed-ist authority")
    end = _now() + datetime.timedelta(days=AUTHORITY_DAYS)
    return (
        _builder(name, name, key, end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )


def _server(
    key: ec.EllipticCurvePrivateKey,
    names: Sequence[x509.GeneralName],
    days: int,
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
) -> bytes:
    end = min(_now() + datetime.timedelta(days=days), validity(authority).end)
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    return (
        _builder(_name("fed-ist SuperLink"), authority.subject, key, end)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        # Clients on Python 3.13 insist on what follows.
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(issuer, critical=False)
        .sign(authority_key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, end: datetime.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_now() - datetime.timedelta(days=STARTED_DAYS_AGO))
        .not_valid_after(end)
    )


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    if len(host) > 253 or not HOST_NAME.fullmatch(host):
        raise InputError(
            f"'{host}' is neither a host name nor an IP address. Give it as devices reach it, "
            "without a port: field.example.org or 192.0.2.7."
        )
    return x509.DNSName(host)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
