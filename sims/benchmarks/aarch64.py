"""Proof that the wheel and the core's tests run on a 64-bit ARM, such as a Raspberry Pi's.

`python -m sims.benchmarks.aarch64 FOLDER`, as root on Debian or Ubuntu with debootstrap,
qemu-user-static and binfmt-support. FOLDER gets Debian 12 for ARM, whose programs qemu emulates.
The wheel is installed in it from the package index without a compiler, and the tests whose outcome
may depend on the processor are run. What FOLDER has already is not made again. The outcome is
written to results/aarch64.md. As emulation is slow, this takes an hour or two.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from fed_ist.errors import InputError
from fed_ist.files.atomic import write_atomic
from fed_ist.words import table
from sims.endings import exit_code

RELEASE = "bookworm"
EMULATOR = Path("/proc/sys/fs/binfmt_misc/qemu-aarch64")
VENV = "/opt/fed-ist"
COPY = "/opt/checkout"  # the files that tests read in addition to the wheel
COPIED = ("pyproject.toml", "README.md", "docs", "tests", "sims/configs")
# The versions with which the tests ran elsewhere, and those packages that ARM needs in others.
CONSTRAINTS = ("constraints.txt", "constraints-arm.txt")
INDEX_VARIABLES = ("PIP_CERT", "PIP_DEFAULT_TIMEOUT", "PIP_INDEX_URL", "SSL_CERT_FILE")
TOOLS = ("hypothesis", "onnx", "onnxruntime", "onnxscript", "pytest")
# Tests of what depends on the processor or on compiled packages; everything else is plain Python.
TESTS = (
    *("other_machines", "masks", "dealing", "packing", "images", "codecs", "top_k", "slices"),
    *("layout", "encoder", "onnx", "ridge", "anchors", "gaussians", "server_optimizers"),
    *("packets", "config", "coded_rounds"),
)
REPORTED = (
    *("flwr", "grpcio", "matplotlib", "numpy", "onnxruntime", "pillow", "pyarrow", "ray"),
    *("safetensors", "timm", "torch", "torchvision", "zstandard"),
)


def require_emulation() -> None:
    """Raise `InputError` where this machine cannot run programs for ARM in a folder of its own."""
    if sys.platform != "linux" or os.geteuid() != 0:
        raise InputError(
            "Emulating an ARM needs Linux and root: it changes to another root folder."
        )
    if shutil.which("debootstrap") is None:
        raise InputError(
            "Making Debian's folder needs debootstrap: install the package of that name."
        )
    if platform.machine() != "aarch64" and not EMULATOR.exists():
        raise InputError(
            "This machine runs no programs for ARM: install qemu-user-static and binfmt-support, "
            "mount binfmt_misc on /proc/sys/fs/binfmt_misc if nothing is there, and run "
            "`update-binfmts --enable qemu-aarch64`."
        )


def lay_debian(root: Path) -> None:
    """Put Debian for ARM, with Python, into a folder, unless it is there already."""
    done = root / "opt" / "debian-is-complete"
    if not done.exists():
        command = ["debootstrap", "--arch=arm64", "--variant=minbase"]
        command += ["--include=ca-certificates,python3,python3-venv", RELEASE, str(root)]
        _run(command)
        done.touch()
    # The files by which this machine reaches the package index.
    for name in ("etc/resolv.conf", "etc/ssl/certs/ca-certificates.crt"):
        if Path("/", name).exists():
            shutil.copyfile(Path("/", name), root / name)


def install(root: Path, checkout: Path) -> None:
    """Install the wheel of a checkout in its own environment, and copy the files of its tests."""
    with tempfile.TemporaryDirectory(prefix="fed-ist-wheel-") as name:
        pip = [sys.executable, "-m", "pip", "--quiet", "wheel", "--no-deps"]
        _run([*pip, "--wheel-dir", name, str(checkout)])
        (wheel,) = Path(name).glob("*.whl")
        shutil.copy(wheel, root / "opt")
    copy = root / COPY[1:]
    shutil.rmtree(copy, ignore_errors=True)
    for name in COPIED:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        source = checkout / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, copy / name)
    constraints = [(checkout / name).read_text(encoding="utf-8") for name in CONSTRAINTS]
    (copy / "constraints.txt").write_text(merge_constraints(*constraints), encoding="utf-8")
    if not (root / VENV[1:] / "bin" / "pip").exists():
        _run(inside(root, "python3", "-m", "venv", VENV))
    pip = [f"{VENV}/bin/pip", "install", "--only-binary=:all:", "--no-compile"]
    pip += ["--progress-bar=off", "--constraint", f"{COPY}/constraints.txt"]
    _run(inside(root, *pip, f"/opt/{wheel.name}", *TOOLS))
    # Otherwise an earlier wheel of the same version would stay.
    _run(inside(root, *pip, "--no-deps", "--force-reinstall", f"/opt/{wheel.name}"))


def merge_constraints(general: str, special: str) -> str:
    """Two constraints files as one; for a package that is in both, the special line counts."""
    special_lines = [line for line in special.splitlines() if "==" in line]
    names = {line.split("==")[0].lower() for line in special_lines}
    lines = [line for line in general.splitlines() if line.split("==")[0].lower() not in names]
    return "\n".join([*lines, *special_lines, ""])


def run_tests(root: Path) -> Path:
    """Run the chosen tests in the folder; returns the path of pytest's JUnit record."""
    record = f"{COPY}/junit.xml"
    command = [f"{VENV}/bin/pytest", "-m", "not flower and not data", "--junitxml", record]
    command += [f"/{path.relative_to(root)}" for path in find_tests(root / COPY[1:])]
    subprocess.run(inside(root, *command), env=_environment(), check=False)
    found = root / record[1:]
    if not found.exists():
        raise InputError("pytest did not get as far as running tests; its output above says why.")
    return found


def find_tests(checkout: Path) -> list[Path]:
    """The files of the chosen tests, each in the folder of its room."""
    return [path for name in TESTS for path in (checkout / "tests").rglob(f"test_{name}.py")]


def inside(root: Path, *command: str) -> list[str]:
    """The command line that runs a command in Debian's folder as if that were the machine."""
    mounts = 'mount -t proc proc "$0/proc" && mount --rbind /dev "$0/dev" && exec chroot "$0" "$@"'
    return ["unshare", "--mount", "sh", "-c", mounts, str(root), *command]


def _environment() -> dict[str, str]:
    """The variables by which this machine reaches the package index, and a few fixed ones."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if key in INDEX_VARIABLES or key.lower().endswith("_proxy")
    }
    own = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "HOME": "/root", "LANG": "C.UTF-8"}
    return kept | own | {"PYTHONUNBUFFERED": "1"}  # so that its progress is seen


def _run(command: Sequence[str]) -> None:
    if subprocess.run(command, env=_environment(), check=False).returncode != 0:
        raise InputError(f"`{' '.join(command)}` failed; its output above says why.")


def read_versions(root: Path) -> dict[str, str]:
    """The versions of the installed packages, by name."""
    command = inside(root, f"{VENV}/bin/pip", "list", "--format=json")
    listed = subprocess.run(
        command,
        env=_environment(),
        check=True,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    ).stdout
    return {package["name"].lower(): package["version"] for package in json.loads(listed)}


def render(record: Path, versions: dict[str, str], install_s: float) -> str:
    """The outcome in Markdown. record: pytest's. install_s: what installing took, in seconds."""
    counts: dict[str, Counter[str]] = {}
    seconds: defaultdict[str, float] = defaultdict(float)
    failures = []
    for case in ElementTree.parse(record).getroot().iter("testcase"):
        name = case.get("classname", "").removeprefix("tests.")
        outcome = next((e.tag for e in case if e.tag in ("failure", "error", "skipped")), "passed")
        counts.setdefault(name, Counter())[outcome] += 1
        seconds[name] += float(case.get("time", 0))
        if outcome in ("failure", "error"):
            failures.append(f"{name}::{case.get('name')}")
    rows = [
        (name, n["passed"], n["skipped"], n["failure"] + n["error"], f"{seconds[name]:.0f}")
        for name, n in counts.items()
    ]
    packages = ", ".join(f"{name} {versions[name]}" for name in REPORTED)
    return "\n".join(
        [
            "# fed-ist on aarch64",
            "",
            f"Debian {RELEASE}, emulated by qemu on {platform.machine()}; the wheel and "
            f"{len(versions)} packages, all of them binary, installed in {install_s / 60:.0f} "
            f"minutes: {packages}.",
            "",
            table(("tests", "passed", "skipped", "failed", "seconds, emulated"), rows),
            "",
            *(f"- failed: {name}" for name in failures),
        ]
    )


def measure(root: Path) -> int:
    """Install and test in a Debian below `root`, and write the report; returns an exit code."""
    checkout = Path(__file__).resolve().parent.parent.parent
    require_emulation()
    lay_debian(root)
    begun_s = time.monotonic()
    install(root, checkout)
    install_s = time.monotonic() - begun_s
    text = render(run_tests(root), read_versions(root), install_s)
    write_atomic(checkout / "results" / "aarch64.md", (text.rstrip() + "\n").encode())
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(lambda: measure(Path(sys.argv[1]).resolve())))
