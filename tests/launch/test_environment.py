"""What the processes that we start are told of the machine they are on."""

import os
from pathlib import Path

import pytest

from fed_ist.errors import InputError
from fed_ist.launch.environment import direct_loopback, own_environment, ray_folder

LOOPBACK = "localhost,127.0.0.1,::1"


def test_loopback_is_reached_without_a_proxy_and_what_the_user_has_is_kept():
    assert direct_loopback({}) == {"no_proxy": LOOPBACK, "NO_PROXY": LOOPBACK}
    found = direct_loopback({"no_proxy": "a.example", "NO_PROXY": "b.example, localhost"})
    hosts = found["no_proxy"].split(",")
    assert sorted(hosts) == ["127.0.0.1", "::1", "a.example", "b.example", "localhost"]
    assert direct_loopback({"NO_PROXY": "*"})["no_proxy"] == "*"  # not one name among others
    assert direct_loopback({"no_grpc_proxy": "x"})["no_grpc_proxy"] == f"x,{LOOPBACK}"


def test_libraries_keep_their_files_in_the_cache_where_home_cannot_be_written_to(
    tmp_path, monkeypatch
):
    for key in ("MPLCONFIGDIR", "HF_HOME"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert "MPLCONFIGDIR" not in own_environment(str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", "/proc/none")
    found = own_environment(str(tmp_path / "cache"))
    assert found["MPLCONFIGDIR"] == str(tmp_path / "cache" / "matplotlib")
    assert found["HF_HOME"] == str(tmp_path / "cache" / "huggingface")


def test_ray_gets_a_short_folder_where_its_sockets_would_have_too_long_paths(tmp_path):
    long = str(tmp_path / ("x" * 90))
    chosen = ray_folder({"TMPDIR": long})["RAY_TMPDIR"]
    assert len(os.fsencode(chosen)) <= 39
    assert Path(chosen).is_dir()
    assert ray_folder({"TMPDIR": "/tmp"}) == {}
    with pytest.raises(InputError, match=f"RAY_TMPDIR = '{long}' is too long"):
        ray_folder({"RAY_TMPDIR": long})
