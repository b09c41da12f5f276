"""The `fed-ist` command as tests call it."""

import io
import os
import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

from conftest import ROOT


def fed_ist(*words: object, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess:
    command = [str(Path(sys.executable).parent / "fed-ist"), *map(str, words)]
    return subprocess.run(
        command, cwd=cwd, env=os.environ | environment, capture_output=True, text=True, check=False
    )


def within(*words: object) -> subprocess.CompletedProcess:
    """The same in this process, which has loaded torch already, as most of a command's time is."""
    from fed_ist.cli.main import main

    command, code = ["fed-ist", *map(str, words)], 0
    out, err = io.StringIO(), io.StringIO()
    with (
        chdir(ROOT),
        redirect_stdout(out),
        redirect_stderr(err),
        patch.object(sys, "argv", command),
    ):
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
    return subprocess.CompletedProcess(command, code, out.getvalue(), err.getvalue())
