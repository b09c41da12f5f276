"""What `fed-ist doctor` says where something is wrong, with real servers, files and disks."""

import os
import ssl
import subprocess
import sys
import threading
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from programs import fed_ist

from fed_ist.deploy.certificates import read_certificate, write_certificates
from fed_ist.deploy.diagnosis import FAILURE, OK, WARNING, Diagnosis
from fed_ist.deploy.doctor import (
    WAITING_BYTES,
    check_disk,
    check_encoder,
    check_images,
    check_limits,
    judge_memory,
)
from fed_ist.deploy.node_keys import write_node_key
from fed_ist.deploy.server_checks import check_authority, check_key, check_server, judge_clock


@contextmanager
def server(certificates=None, status=200, clock_s=0.0, versions=None):
    """A server that answers with this status, and whose clock is this much ahead: yields its port.

    It speaks TLS where it has a certificate.
    """

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.send_header("Content-Length", "0")
            if versions:
                self.send_header("fed-ist-versions", versions)
            self.end_headers()

        def date_time_string(self, timestamp=None):
            now = datetime.now(UTC) + timedelta(seconds=clock_s)
            return super().date_time_string(now.timestamp())

        def log_message(self, *_):
            pass

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, *_):  # a client that refuses the certificate is no error here
            pass

    listening = Quiet(("", 0), Answer)
    if certificates:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates.server, certificates.key)
        listening.socket = context.wrap_socket(
            listening.socket, server_side=True, do_handshake_on_connect=False
        )
    thread = threading.Thread(target=listening.serve_forever)
    thread.start()
    try:
        yield listening.server_port
    finally:
        listening.shutdown()
        thread.join()
        listening.server_close()


def levels(found: list[Diagnosis]) -> dict[str, str]:
    return {one.check: one.level for one in found}


def examined(port: int, authority: Path, host: str = "localhost") -> list[Diagnosis]:
    return list(check_server(f"{host}:{port}", authority))


def failure(found: list[Diagnosis]) -> Diagnosis:
    """The one failure, after which nothing more is examined."""
    assert [one.level for one in found].count(FAILURE) == 1
    assert found[-1].level == FAILURE
    return found[-1]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return write_certificates(tmp_path_factory.mktemp("keys"), [])


# --- the way to the server -----------------------------------------------------------------------


def test_a_server_that_is_right_passes_every_check(certificates):
    with server(certificates) as port:
        found = examined(port, certificates.authority)
    assert levels(found) == dict.fromkeys(("connection", "certificate", "superlink", "clock"), OK)


def test_a_port_that_is_closed_is_told_from_a_name_that_is_wrong(certificates):
    with server(certificates) as port:
        pass
    text = failure(examined(port, certificates.authority)).text
    assert f"does not answer on port {port}" in text
    assert "Check that the server runs" in text
    text = failure(examined(port, certificates.authority, "absent.invalid")).text
    assert "'absent.invalid' has no address" in text
    assert "give HOST:PORT" in failure(list(check_server("localhost", None))).text


def test_a_server_without_tls_is_told(certificates):
    with server() as port:
        text = failure(examined(port, certificates.authority)).text
    assert "does not speak TLS" in text


def test_a_server_of_another_authority_is_told(certificates, tmp_path):
    other = write_certificates(tmp_path / "other", [])
    with server(certificates) as port:
        text = failure(examined(port, other.authority)).text
    assert "is not of this authority" in text
    assert "Copy ca.crt" in text


def test_an_expired_certificate_is_told_with_what_renews_it(tmp_path):
    expired = write_certificates(tmp_path / "keys", [], days=-1)
    with server(expired) as port:
        text = failure(examined(port, expired.authority)).text
    assert f"to {datetime.now(UTC) - timedelta(days=1):%Y-%m-%d}" in text
    assert "renew it on the server with `fed-ist keys`" in text
    write_certificates(tmp_path / "keys", [])
    with server(expired) as port:
        assert levels(examined(port, expired.authority))["certificate"] == OK


def test_a_certificate_of_tomorrow_means_that_the_clock_is_behind(tmp_path):
    found = write_certificates(tmp_path / "keys", [])
    start = datetime.now(UTC) + timedelta(days=1)
    postpone(found.authority, tmp_path / "keys" / "ca.key", start)
    postpone(found.server, tmp_path / "keys" / "ca.key", start)
    with server(found) as port:
        text = failure(examined(port, found.authority)).text
    assert f"it does from {start:%Y-%m-%d}" in text
    assert "timedatectl" in text
    assert check_authority(found.authority).level == FAILURE


def postpone(path: Path, key_path: Path, start: datetime) -> None:
    """Sign a certificate anew, with another start."""
    old = read_certificate(path)
    key = serialization.load_pem_private_key(key_path.read_bytes(), None)
    builder = x509.CertificateBuilder(
        old.issuer, old.subject, old.public_key(), old.serial_number, start, old.not_valid_after_utc
    )
    for extension in old.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    path.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))


def test_a_certificate_that_ends_soon_is_a_warning(tmp_path):
    found = write_certificates(tmp_path / "keys", [], days=10)
    with server(found) as port:
        examination = examined(port, found.authority)
    assert levels(examination)["certificate"] == WARNING
    assert "renew it on the server" in examination[1].text
    assert levels(examination)["clock"] == OK  # and what follows is examined


def test_a_server_under_another_name_is_told_with_its_names(certificates):
    with server(certificates) as port:
        text = failure(examined(port, certificates.authority, "127.0.0.2")).text
    assert "is not for '127.0.0.2', but for localhost, 127.0.0.1" in text
    assert "fed-ist keys --host 127.0.0.2" in text


def test_a_server_that_is_no_superlink_is_told(certificates):
    with server(certificates, status=404) as port:
        text = failure(examined(port, certificates.authority)).text
    assert "answers 404 where a SuperLink says 200" in text


@pytest.mark.parametrize(
    ("server_ahead_s", "level"),
    [(0, OK), (-3600, FAILURE), (-8, FAILURE), (100, WARNING), (400, FAILURE)],
)
def test_a_clock_that_the_server_would_refuse_is_told(server_ahead_s, level, certificates):
    with server(certificates, clock_s=server_ahead_s) as port:
        clock = examined(port, certificates.authority)[-1]
    assert (clock.check, clock.level) == ("clock", level)
    assert ("timedatectl" in clock.text) == (level != OK)


def test_other_versions_on_the_server_are_a_warning(certificates):
    with server(certificates, versions="fed-ist 0.0.9, flwr 1.41.0") as port:
        found = examined(port, certificates.authority)
    assert levels(found)["versions"] == WARNING
    assert "the server had fed-ist 0.0.9, flwr 1.41.0" in found[3].text


def test_flower_refuses_what_the_clock_check_fails():
    """The limits are Flower's."""
    from flwr.common.constant import SYSTEM_TIME_TOLERANCE, TIMESTAMP_TOLERANCE

    for ahead_s in (SYSTEM_TIME_TOLERANCE, -(TIMESTAMP_TOLERANCE + SYSTEM_TIME_TOLERANCE)):
        assert judge_clock(ahead_s).level == FAILURE
        assert judge_clock(ahead_s * 0.99).level == WARNING


# --- files ---------------------------------------------------------------------------------------


def test_a_key_is_fit_if_it_is_one_and_private(tmp_path, certificates):
    key = write_node_key(tmp_path / "keys", "north")
    assert check_key(key).level == OK
    key.chmod(0o644)
    assert "chmod 600" in check_key(key).text
    for path in (tmp_path / "absent", certificates.key):
        assert check_key(path).level == FAILURE


def test_an_authority_is_fit_if_it_can_be_read(certificates, tmp_path):
    assert check_authority(certificates.authority).level == OK
    (tmp_path / "words").write_text("no certificate")
    for path in (tmp_path / "absent", tmp_path / "words"):
        assert "Copy ca.crt" in check_authority(path).text
        assert not list(check_server("localhost:1", path))  # which it has no trust for


# --- images --------------------------------------------------------------------------------------


@pytest.fixture
def images(image_folder, tmp_path):
    """Two classes, ten images each."""
    for name in ("beach", "forest"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for path in sorted((image_folder / name).iterdir())[:10]:
            (tmp_path / "images" / name / path.name).write_bytes(path.read_bytes())
    return tmp_path / "images"


def test_images_are_counted_by_class_and_all_read(images):
    seen = []
    (found,), n_images = check_images(images, (), lambda: seen.append(1))
    assert found == Diagnosis("images", OK, "20 images, all read: beach 10, forest 10")
    assert (n_images, len(seen)) == (20, 20)


def test_unreadable_images_are_named(images):
    (images / "beach" / "00.jpg").write_bytes(b"no image")
    (images / "forest" / "01.jpg").write_bytes((images / "forest" / "01.jpg").read_bytes()[:200])
    (found,), _ = check_images(images, (), int)
    assert found.level == WARNING
    assert found.text.startswith("2 of 20 images cannot be read")
    for name in ("beach/00.jpg", "forest/01.jpg"):
        assert name in found.text
    for path in images.glob("*/*.jpg"):
        path.write_bytes(b"no image")
    (found,), _ = check_images(images, (), int)
    assert (found.level, found.text.count("it is not an image")) == (FAILURE, 5)


def test_a_folder_without_images_is_a_failure(images, tmp_path):
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "absent", images / "beach"):
        (found,), n_images = check_images(path, (), int)
        assert (found.level, n_images) == (FAILURE, 0)
        assert "<class>/<image>" in found.text


def test_classes_that_the_server_does_not_know_are_named(images):
    assert check_images(images, ("forest", "beach", "car-park"), int)[0][1].level == OK
    found = check_images(images, ("forest", "Beach"), int)[0][1]
    assert found.level == WARNING
    assert "does not know beach" in found.text
    assert check_images(images, ("Forest", "Beach"), int)[0][1].level == FAILURE


# --- what the device has -------------------------------------------------------------------------


def test_a_small_disk_is_a_failure(tmp_path, monkeypatch):
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a small disk")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", tmp_path], check=True)
    try:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        found = check_disk(1000)
        assert found.level == FAILURE
        assert "1 MB are free" in found.text
        assert "115 MB are needed" in found.text
        (tmp_path / "full").write_bytes(b"\0" * (1 << 20))
        assert check_disk(0).level == FAILURE
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_a_disk_has_to_be_writable(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert check_disk(0).level == OK
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/none")
    assert "cannot be written to" in check_disk(0).text


def test_memory_has_to_do_for_flower_too():
    assert judge_memory(100e6, 100e6 + WAITING_BYTES).level == OK
    assert judge_memory(100e6, 99e6 + WAITING_BYTES).level == FAILURE


def test_a_kernel_that_limits_no_memory_is_told(tmp_path):
    controllers = tmp_path / "cgroup.controllers"
    assert not list(check_limits(controllers))
    controllers.write_text("cpuset cpu io memory pids\n")
    assert not list(check_limits(controllers))
    controllers.write_text("cpuset cpu io pids\n")
    (found,) = check_limits(controllers)
    assert "cgroup_enable=memory" in found.text


BROKEN_TORCH = {
    "raise ImportError('libgomp.so.1: cannot open shared object file')": "libgomp.so.1",
    "import os, signal; os.kill(os.getpid(), signal.SIGILL)": "this processor does not have",
    "import os, signal; os.kill(os.getpid(), signal.SIGKILL)": "there is too little memory",
    "import this_is_not_installed": "No module named 'this_is_not_installed'. Install fed-ist",
}


@pytest.mark.parametrize("code", BROKEN_TORCH)
def test_a_torch_that_does_not_work_is_told(code, tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.pathsep.join(filter(None, sys.path))}")
    (found,) = check_encoder()
    assert found.level == FAILURE
    assert BROKEN_TORCH[code] in found.text


def test_the_command_ends_with_1_if_anything_fails(images, tmp_path, certificates):
    key = write_node_key(tmp_path / "keys", "north")
    key.chmod(0o644)
    with server(certificates) as port:
        words = ["doctor", "--data-path", images, "--key", key, "--superlink", f"localhost:{port}"]
        words += ["--root-certificates", certificates.authority]
        done = fed_ist(*words, XDG_CACHE_HOME=str(tmp_path / "cache"))
    checks = {line.split()[1]: line.split()[0] for line in done.stdout.splitlines()}
    assert checks.pop("key") == FAILURE
    assert set(checks.values()) <= {OK, WARNING}
    assert {"python", "encoder", "memory", "images", "disk", "authority", "clock"} <= set(checks)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
