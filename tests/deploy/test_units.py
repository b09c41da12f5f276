"""What starts at boot: units that systemd accepts."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

from fed_ist.deploy.certificates import write_certificates
from fed_ist.deploy.node_keys import write_node_key
from fed_ist.deploy.systemd import DATABASE, _word, gate_unit, superlink_unit, supernode_unit
from fed_ist.errors import InputError
from fed_ist.launch.addresses import split_address


@pytest.fixture
def keys(tmp_path):
    folder = tmp_path / "the keys"
    write_certificates(folder, ["field.example.org"])
    write_node_key(folder, "north")
    return folder


@pytest.fixture
def device(keys, tmp_path):
    """What a unit of a device is made of."""
    (tmp_path / "the images, 100%").mkdir()
    return {
        "superlink": "field.example.org:8000",
        "authority": keys / "ca.crt",
        "key": keys / "north",
        "data_path": tmp_path / "the images, 100%",
        "link": "nb-iot",
    }


def read_unit(text: str) -> tuple[list[str], dict[str, str]]:
    """(the words of ExecStart, its environment), as systemd.service(5) has them read."""
    lines = [line.partition("=")[::2] for line in text.splitlines() if "=" in line]
    (command,) = (value for key, value in lines if key == "ExecStart")
    assigned = [shlex.split(value) for key, value in lines if key == "Environment"]
    environment = dict(word.partition("=")[::2] for (word,) in assigned)
    words = [word.replace("$$", "$").replace("%%", "%") for word in shlex.split(command)]
    return words, environment


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs Debian's systemd")
def test_systemd_accepts_the_visits_of_the_plan_for_many_devices(device, tmp_path):
    blocks = re.findall(r"```ini\n(.*?)```", (ROOT / "docs/scale.md").read_text(), re.DOTALL)
    timer, visit = (re.sub(r"^#.*\n", "", block) for block in blocks)
    name = "fed-ist-supernode"
    (tmp_path / f"{name}.timer").write_text(timer)
    (tmp_path / f"{name}.service").write_text(supernode_unit(**device))
    (tmp_path / f"{name}.service.d").mkdir()
    (tmp_path / f"{name}.service.d" / "visit.conf").write_text(visit)
    words = ["systemd-analyze", "verify", str(tmp_path / f"{name}.timer")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, [line for line in done.stderr.splitlines() if name in line]) == (0, [])


def test_systemd_accepts_the_units_and_finds_them_well_shut_in(keys, device, tmp_path):
    if not shutil.which("systemd-analyze"):
        pytest.skip("needs systemd-analyze (Debian package systemd)")
    units = {
        "superlink": superlink_unit(keys, 8001),
        "gate": gate_unit(keys, 8000, 8001),
        "gate-443": gate_unit(keys, 443, 8001),
        "supernode": supernode_unit(**device),
    }
    for name, text in units.items():
        path = tmp_path / f"fed-ist-{name}.service"
        path.write_text(text)
        done = subprocess.run(
            ["systemd-analyze", "verify", str(path)], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        command = ["systemd-analyze", "security", "--offline=yes", "--threshold=40", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_a_devices_unit_says_who_it_is_and_whom_it_trusts(device):
    words, environment = read_unit(supernode_unit(**device))
    options = dict(zip(words[2::2], words[3::2], strict=True))
    assert words[0].endswith("/bin/fed-ist")
    assert words[1] == "supernode"
    assert options == {
        "--superlink": "field.example.org:8000",
        "--root-certificates": str(device["authority"]),
        "--auth-supernode-private-key": str(device["key"]),
        "--node-config": f"data-path='{device['data_path']}' name='north' link='nb-iot'",
    }
    assert environment["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] == "1"
    assert environment["PATH"].startswith(str(Path(words[0]).parent))


def test_the_superlink_listens_on_its_own_host_alone(keys):
    words, _ = read_unit(superlink_unit(keys, 8001))
    assert words[words.index("--host") + 1] == "127.0.0.1"
    assert "--enable-supernode-auth" in words
    assert "--insecure" not in words


def test_the_gate_reads_the_keys_of_the_superlink_behind_it(keys):
    words, _ = read_unit(superlink_unit(keys, 8001))
    assert words[words.index("--database") + 1] == DATABASE
    words, _ = read_unit(gate_unit(keys, 8000, 8001))
    assert words[0].endswith("/bin/fed-ist")
    assert words[1] == "gate"
    options = dict(zip(words[2::2], words[3::2], strict=True))
    assert options["--database"] == DATABASE
    assert (options["--port"], options["--superlink-port"]) == ("8000", "8001")


def test_a_gate_may_listen_below_1024_and_do_nothing_else_of_roots(keys):
    lines = gate_unit(keys, 443, 8001).splitlines()
    assert "AmbientCapabilities=CAP_NET_BIND_SERVICE" in lines
    assert "CapabilityBoundingSet=CAP_NET_BIND_SERVICE" in lines
    assert "CapabilityBoundingSet=" not in lines
    assert "AmbientCapabilities" not in gate_unit(keys, 8000, 8001)


@pytest.mark.parametrize("line", ["Restart=always", "WantedBy=multi-user.target", "MemoryMax=80%"])
def test_all_restart_survive_a_reboot_and_are_limited(line, keys, device):
    for text in (
        superlink_unit(keys, 8001),
        gate_unit(keys, 8000, 8001),
        supernode_unit(**device),
    ):
        assert line in text.splitlines()


@given(st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), min_size=1))
def test_systemd_reads_each_word_as_it_was(text):
    if not text.isprintable():
        with pytest.raises(InputError):
            _word(text)
        return
    assert [word.replace("%%", "%") for word in shlex.split(_word(text))] == [text]


BAD_DEVICES = {
    "superlink": ("field.example.org", "give HOST:PORT"),
    "data_path": (Path("/absent"), "'/absent' is not a folder that you may read"),
    "link": ("carrier-pigeon", "Unknown link 'carrier-pigeon'. Choose from: cubesat-9k6"),
    "authority": (Path("/absent"), "The certificate '/absent' cannot be read"),
    "key": (Path("/absent"), "The key '/absent' cannot be read"),
}


@pytest.mark.parametrize("part", BAD_DEVICES)
def test_a_device_that_cannot_work_gets_no_unit(part, device):
    value, sentence = BAD_DEVICES[part]
    with pytest.raises(InputError) as caught:
        supernode_unit(**device | {part: value})
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_with_an_apostrophe_gets_no_unit(device, tmp_path):
    (tmp_path / "north's").mkdir()
    with pytest.raises(InputError, match="has an apostrophe: rename the folder"):
        supernode_unit(**device | {"data_path": tmp_path / "north's"})


def test_a_key_that_others_may_read_gets_no_unit(device):
    device["key"].chmod(0o640)
    with pytest.raises(InputError, match=r"Others may read the key .* Run: chmod 600"):
        supernode_unit(**device)


def test_a_server_without_certificate_gets_no_unit_and_no_gate(tmp_path):
    for make in (
        lambda: superlink_unit(tmp_path, 8001),
        lambda: gate_unit(tmp_path, 8000, 8001),
    ):
        with pytest.raises(InputError, match=r"ca\.crt' is missing\. Make it with: fed-ist keys"):
            make()


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("a.example:8000", ("a.example", 8000)),
        ("[::1]:1", ("::1", 1)),
        ("1.2.3.4:9", ("1.2.3.4", 9)),
    ],
)
def test_an_address_has_a_host_and_a_port(address, parts):
    assert split_address(address) == parts


@pytest.mark.parametrize(
    "address",
    ["", ":8000", "a", "a:", "a:0", "a:65536", "a:b", "::1:8000", "https://a:8000", "[]:1"],
)
def test_what_is_no_address_is_one_sentence(address):
    with pytest.raises(InputError, match="give HOST:PORT"):
        split_address(address)
