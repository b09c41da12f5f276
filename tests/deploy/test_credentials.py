"""Certificates and keys: who may read them, what stays, and whom TLS and OpenSSH let through."""

import asyncio
import os
import shutil
import ssl
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fed_ist.deploy.certificates import read_certificate, validity, write_certificates
from fed_ist.deploy.node_keys import read_node_key, write_node_key
from fed_ist.errors import InputError
from fed_ist.files.private import replace_keeping, write_new


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def handshake(server: Path, key: Path, authority: Path, host: str) -> str:
    """ "" where a client that trusts the authority accepts the server under this name."""

    async def attempt() -> str:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(server, key)
        trusting = ssl.create_default_context(cafile=authority)
        trusting.verify_flags |= ssl.VERIFY_X509_STRICT  # the default from Python 3.13 on
        listening = await asyncio.start_server(
            lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context
        )
        async with listening:
            port = listening.sockets[0].getsockname()[1]
            try:
                _, writer = await asyncio.open_connection(
                    "127.0.0.1", port, ssl=trusting, server_hostname=host
                )
            except ssl.SSLCertVerificationError as error:
                return error.verify_message
            writer.close()
            return ""

    return asyncio.run(attempt())


def test_private_files_are_for_their_owner_alone(tmp_path):
    folder = tmp_path / "keys"
    before = os.umask(0)
    try:
        write_certificates(folder, ["field.example.org"])
        write_node_key(folder, "north")
    finally:
        os.umask(before)
    assert mode(folder) == 0o700
    assert {path.name: mode(path) for path in folder.iterdir()} == {
        "ca.key": 0o600,
        "ca.crt": 0o644,
        "server.key": 0o600,
        "server.crt": 0o644,
        "north": 0o600,
        "north.pub": 0o644,
    }


def test_a_folder_that_others_may_enter_gets_no_key(tmp_path):
    tmp_path.chmod(0o755)
    for write in (lambda: write_certificates(tmp_path, []), lambda: write_node_key(tmp_path, "a")):
        with pytest.raises(InputError, match="chmod 700"):
            write()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("host", ["field.example.org", "192.0.2.7", "2001:db8::7", "localhost"])
def test_a_client_knows_the_server_under_each_of_its_names(tmp_path, host):
    found = write_certificates(tmp_path, ["field.example.org", "192.0.2.7", "2001:db8::7"])
    assert handshake(found.server, found.key, found.authority, host) == ""
    refused = handshake(found.server, found.key, found.authority, "other.example.org")
    assert "Hostname mismatch" in refused


def test_a_client_refuses_another_authority_and_an_expired_certificate(tmp_path):
    found = write_certificates(tmp_path / "a", [])
    other = write_certificates(tmp_path / "b", [])
    assert "certificate" in handshake(found.server, found.key, other.authority, "localhost")
    expired = write_certificates(tmp_path / "c", [], days=-1)
    refused = handshake(expired.server, expired.key, expired.authority, "localhost")
    assert refused == "certificate has expired"


@settings(max_examples=10)
@given(st.lists(st.sampled_from(["north", "south", "a.example.org", "192.0.2.7"]), max_size=4))
def test_what_is_there_is_used_again(calls):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        hosts = [call for call in calls if "." in call]
        for _ in range(2):
            write_certificates(folder, hosts)
            for node in set(calls) - set(hosts):
                write_node_key(folder, node)
            seen = contents(folder)
        write_certificates(folder, [])
        assert contents(folder) == seen


def test_an_expired_certificate_is_renewed_for_the_same_devices(tmp_path):
    found = write_certificates(tmp_path, ["192.0.2.7"], days=-1)
    expired = found.server.read_bytes()
    before = contents(tmp_path)
    write_certificates(tmp_path, [])
    assert 364 < validity(read_certificate(found.server)).days_left() <= 365
    assert handshake(found.server, found.key, found.authority, "192.0.2.7") == ""
    after = contents(tmp_path)
    del before["server.crt"], after["server.crt"]
    kept = [name for name in after if name not in before]
    assert [after.pop(name) for name in kept] == [expired]
    assert after == before  # the authority, which devices hold, and all keys


def test_a_new_host_joins_those_that_the_certificate_has(tmp_path):
    write_certificates(tmp_path, ["192.0.2.7"])
    found = write_certificates(tmp_path, ["field.example.org"])
    for host in ("192.0.2.7", "field.example.org"):
        assert handshake(found.server, found.key, found.authority, host) == ""


def test_a_certificate_for_less_than_a_month_is_not_renewed_at_each_call(tmp_path):
    found = write_certificates(tmp_path, [], days=7)
    before = found.server.read_bytes()
    assert write_certificates(tmp_path, [], days=7).server.read_bytes() == before


def test_a_certificate_ends_with_its_authority(tmp_path):
    found = write_certificates(tmp_path, [], days=10_000)
    ends = [validity(read_certificate(path)).end for path in (found.server, found.authority)]
    assert ends[0] == ends[1]


def test_an_authority_that_is_not_whole_is_not_replaced(tmp_path):
    found = write_certificates(tmp_path / "a", [])
    write_certificates(tmp_path / "b", [])
    key = tmp_path / "a" / "ca.key"
    key.unlink()
    before = contents(tmp_path / "a")
    with pytest.raises(InputError, match="bring the key back"):
        write_certificates(tmp_path / "a", [])
    assert contents(tmp_path / "a") == before
    shutil.copy(tmp_path / "b" / "ca.key", key)
    with pytest.raises(InputError, match="is not the key of"):
        write_certificates(tmp_path / "a", [])
    found.authority.write_text("nothing")
    with pytest.raises(InputError, match="no certificate in PEM format"):
        write_certificates(tmp_path / "a", [])


@pytest.mark.parametrize("host", ["", "field:8000", "https://field", "-a.example", "ä.example"])
def test_what_is_no_host_is_one_sentence(tmp_path, host):
    with pytest.raises(InputError, match="neither a host name nor an IP address"):
        write_certificates(tmp_path / "keys", [host])
    assert not (tmp_path / "keys").exists()


def test_openssh_reads_a_nodes_key(tmp_path):
    path = write_node_key(tmp_path, "north")
    command = ["ssh-keygen", "-y", "-f", str(path)]
    if not shutil.which("ssh-keygen"):
        pytest.skip("needs ssh-keygen")
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    public = path.with_suffix(".pub").read_text()
    assert public.split()[:2] == done.stdout.split()[:2]
    assert public.startswith("ecdsa-sha2-nistp256 ")


def test_a_lost_public_key_is_made_again_from_the_private_one(tmp_path):
    public = write_node_key(tmp_path, "north").with_suffix(".pub")
    before = public.read_bytes()
    public.unlink()
    write_node_key(tmp_path, "north")
    assert public.read_bytes() == before


@pytest.mark.parametrize("name", ["", ".", "../north", "ca.key", "north.pub", "-n", "a b"])
def test_a_node_cannot_have_a_name_that_is_no_files(tmp_path, name):
    with pytest.raises(InputError, match="cannot be called"):
        write_node_key(tmp_path, name)


def test_what_is_no_nodes_key_is_one_sentence(tmp_path):
    certificates = write_certificates(tmp_path, [])
    (tmp_path / "words").write_text("no key")
    for path in (certificates.key, tmp_path / "words"):
        with pytest.raises(InputError, match="no private key on a NIST curve"):
            read_node_key(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_node_key(tmp_path / "absent")


def test_a_file_is_never_overwritten(tmp_path):
    write_new(tmp_path / "a", b"first")
    with pytest.raises(FileExistsError):
        write_new(tmp_path / "a", b"second")
    (tmp_path / "kept").write_bytes(b"older")
    with pytest.raises(FileExistsError):
        replace_keeping(tmp_path / "a", tmp_path / "kept", b"second")
    assert contents(tmp_path) == {"a": b"first", "kept": b"older"}


def test_a_renewal_that_was_cut_is_finished(tmp_path):
    write_new(tmp_path / "a", b"first")
    os.link(tmp_path / "a", tmp_path / "kept")
    replace_keeping(tmp_path / "a", tmp_path / "kept", b"second")
    assert contents(tmp_path) == {"a": b"second", "kept": b"first"}
