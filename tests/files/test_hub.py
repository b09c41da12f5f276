"""A machine without a network is told so once, at once, and keeps what it has in its caches."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
from safetensors.torch import save_file

from fed_ist.files.hub import WAIT_KEY, FetchError, asking, root_cause, why_away

CACHED, UNKNOWN = "test_vit.r160_in1k", "test_vit2.r160_in1k"
COMMIT = "0" * 40


@contextmanager
def server(answer: bytes | None) -> Iterator[tuple[str, list[socket.socket]]]:
    """(address, connections so far) of a server that answers so; with None it never does."""
    connections: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:  # closed
                    return
                connections.append(connection)
                if answer is not None:
                    connection.recv(1 << 16)
                    connection.sendall(answer)
                    connection.close()

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", connections
        listener.shutdown(socket.SHUT_RDWR)
    for connection in connections:
        connection.close()


def status(code: int) -> bytes:
    return f"HTTP/1.1 {code} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()


@pytest.fixture
def closed() -> str:
    """An address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    return f"http://127.0.0.1:{port}"


def test_a_refused_connection_is_named_as_such(closed):
    host = closed.removeprefix("http://")
    assert why_away(closed) == f"{host} cannot be reached: Connection refused"


def test_a_server_that_is_silent_is_asked_once(monkeypatch):
    monkeypatch.setenv(WAIT_KEY, "1")
    with server(None) as (address, connections):
        assert f"does not answer within 1 s; {WAIT_KEY} sets others" in why_away(address)
    assert len(connections) == 1


@pytest.mark.parametrize(("code", "away"), [(503, True), (407, True), (404, False), (200, False)])
def test_a_server_that_answers_is_there_unless_a_proxy_says_otherwise(code, away):
    with server(status(code)) as (address, _):
        assert (f"answers with status {code}" in why_away(address)) == away


def test_a_proxy_on_the_way_is_named_without_its_password(closed, monkeypatch):
    monkeypatch.setenv("https_proxy", closed.replace("//", "//user:secret@"))
    huggingface_hub.close_session()  # it keeps the proxies that it began with
    reason = why_away("https://huggingface.co")
    assert reason.startswith("huggingface.co (through the proxy 127.0.0.1) cannot be reached: ")
    assert "secret" not in reason
    huggingface_hub.close_session()


def test_a_failure_that_is_not_the_networks_keeps_its_own_cause(closed, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", closed)
    with pytest.raises(FetchError, match=r"^the disk is full$"), asking():
        raise RuntimeError("wrapped") from OSError("the disk is full\nand more")


def test_offline_lasts_as_long_as_it_is_needed(closed, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", closed)
    with asking():
        assert constants.HF_HUB_OFFLINE
    assert not constants.HF_HUB_OFFLINE


def test_a_server_that_is_not_the_hub_is_not_waited_for(closed):
    with pytest.raises(FetchError, match="Connection refused"), asking(closed):
        pytest.fail("it was asked")


def test_the_root_cause_is_one_line():
    assert root_cause(OSError(111, "Connection refused")) == "Connection refused"
    assert root_cause(KeyError()) == "KeyError"


@pytest.fixture
def hub_cache(tmp_path):
    """A home of the Hub's client that holds the weights of one small model of timm's."""
    torch.manual_seed(3)
    state = timm.create_model(CACHED).state_dict()
    repository = tmp_path / "hub" / f"models--timm--{CACHED}"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    save_file(state, snapshot / "model.safetensors")
    return tmp_path, state["blocks.0.attn.qkv.weight"]


ENCODE = f"""
import torch
from fed_ist.encoder.frozen import create_encoder
from fed_ist.encoder.spec import EncoderSpec
from fed_ist.errors import InputError
cached = create_encoder(EncoderSpec({CACHED!r})).module.vit
print(float(cached.blocks[0].attn.qkv.weight.double().sum()))
try:
    create_encoder(EncoderSpec({UNKNOWN!r}))
except InputError as error:
    print(error)
"""


def test_an_offline_machine_has_its_cache_and_one_sentence_for_the_rest(hub_cache):
    home, kept = hub_cache
    with server(None) as (address, connections):
        set_up = {"HF_ENDPOINT": address, "HF_HOME": str(home), WAIT_KEY: "1"}
        done = subprocess.run(
            [sys.executable, "-c", ENCODE],
            env=os.environ | set_up,
            capture_output=True,
            text=True,
            check=True,
        )
        assert len(connections) == 2  # one question for each, and nothing is tried again
    first, second = done.stdout.splitlines()
    assert float(first) == pytest.approx(float(kept.double().sum()))
    assert f"The weights of encoder '{UNKNOWN}' could not be fetched" in second
    assert "does not answer within 1 s" in second
    assert done.stderr == ""


def test_an_offline_machine_reads_a_data_set_that_it_has_in_its_cache(
    closed, tmp_path, monkeypatch
):
    import datasets

    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", closed)
    monkeypatch.setattr("datasets.config.HF_ENDPOINT", closed)
    cache = tmp_path / "cache"
    datasets.Dataset.from_dict({"label": [0, 1, 2]}).to_parquet(tmp_path / "a.parquet")
    made = datasets.load_dataset_builder(
        "parquet", data_files=str(tmp_path / "a.parquet"), cache_dir=str(cache)
    )
    made.download_and_prepare()
    place = cache / "somebody___set" / "default" / "0.0.0" / COMMIT
    place.parent.mkdir(parents=True)
    Path(made.cache_dir).rename(place)
    (place / "parquet-train.arrow").rename(place / "set-train.arrow")
    with asking():
        table = datasets.load_dataset("somebody/set", cache_dir=str(cache))["train"]
    assert table["label"][:] == [0, 1, 2]
    with pytest.raises(FetchError, match="Connection refused"), asking():
        datasets.load_dataset("somebody/else", cache_dir=str(cache))
