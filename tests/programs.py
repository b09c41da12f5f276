"""The `fed-ist` command as tests call it."""

import os
import subprocess
import sys
from pathlib import Path

from conftest import ROOT


def fed_ist(*words: object, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess:
    command = [str(Path(sys.executable).parent / "fed-ist"), *map(str, words)]
    return subprocess.run(
        command, cwd=cwd, env=os.environ | environment, capture_output=True, text=True, check=False
    )
