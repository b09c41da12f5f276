"""Has the wheel bring the app's settings, which stand in pyproject.toml and nowhere else."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SETTINGS = "fed_ist/app/pyproject.toml"


class BuildWithSettings(build_py):
    """Copies pyproject.toml to where `fed_ist.files.installed.installed_app` looks for it."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:  # else the checkout's own is used
            target = Path(self.build_lib, SETTINGS)
            self.mkpath(str(target.parent))
            self.copy_file("pyproject.toml", str(target))

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        found: list[str] = super().get_outputs(include_bytecode)
        return found if self.editable_mode else [*found, str(Path(self.build_lib, SETTINGS))]


setup(cmdclass={"build_py": BuildWithSettings})
