"""Everything about the package is in pyproject.toml; this adds the files that `elson new` writes to the wheel."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent


class WithProjectFiles(build_py):
    """Copies the files of a project to ``runners/project`` of the wheel. An editable installation reads them where they are."""

    def run(self) -> None:
        """Build, then copy."""
        super().run()
        if self.editable_mode:
            return
        for name in (ROOT / "runners" / "commands" / "project_files.txt").read_text().split():
            source, target = ROOT / name, Path(self.build_lib) / "runners" / "project" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info", "mine"))
            else:
                shutil.copyfile(source, target)


setup(cmdclass={"build_py": WithProjectFiles})
