"""elson outside a checkout: the wheel alone, in another folder. Every command works or says what is missing; `elson new` writes a project that works."""

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from runners.commands.cli import COMMANDS, IN_A_PROJECT

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the unpacked wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    for name in tracked:
        if (ROOT / name).is_file():
            (folder / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / "tree" / name)
    program = f"from setuptools import build_meta; build_meta.build_wheel({str(folder)!r})"
    subprocess.run([sys.executable, "-c", program], cwd=folder / "tree", capture_output=True, check=True)
    with zipfile.ZipFile(next(folder.glob("elson-*.whl"))) as wheel:
        wheel.extractall(folder / "site")
    return folder / "site"


def elson(where: Path, site: Path | None, *arguments: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("GOOGLE_", "STORAGE_", "ELSON_", "PYTHONPATH"))}
    clean |= {"PYTHONPATH": str(site)} if site else {}
    return subprocess.run([sys.executable, "-m", "runners", *arguments], cwd=where, env=clean, capture_output=True, text=True)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_outside_a_checkout(name: str, site: Path, tmp_path: Path) -> None:
    assert elson(tmp_path, site, name, "--help").returncode == 0


CALLS = {
    "run": [], "plan": ["--offline"], "doctor": [], "images": ["build", "--dry-run"], "train": ["--spec", "x"], "merge": ["--spec", "x"],
    "quantize": ["--spec", "x"], "job": ["--spec", "x"], "serve": ["--spec", "gs://nowhere.invalid/x.json"], "data": ["build"], "evaluate": ["--dry-run"],
    "models": ["ls"], "status": [], "retry": ["x"], "prices": ["show"], "base": ["make", "tiny", "--out", "made"], "key": ["rotate"], "new": ["."],
    "compare": ["a", "b"], "init": ["--dry-run"], "up": ["train-h100", "--dry-run"], "down": ["train-h100", "--dry-run"],
    "view": ["--export", "site"], "sweep": ["--vary", "train.rank=8"], "load": ["--api-url", "http://127.0.0.1:9", "--tokenizer", "."],
}  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_works_or_says_what_is_missing(name: str, site: Path, tmp_path: Path) -> None:
    (tmp_path / "cwd").mkdir()
    done = elson(tmp_path / "cwd", site, name, *CALLS[name])
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode in (0, 1, 2)
    assert (name in IN_A_PROJECT) == ("elson new my-model" in done.stderr)
    assert done.returncode == 0 or done.stderr.strip()


def test_a_new_project_plans_and_builds_data(site: Path, tmp_path: Path) -> None:
    made = elson(tmp_path, site, "new", "mine")
    assert made.returncode == 0 and made.stdout == "mine\n", made.stderr
    mine = tmp_path / "mine"
    for name in (
        "Pulumi.yaml",
        "infra/__main__.py",
        "infra/stacks/Pulumi.train-h100.yaml",
        "data/sources.yaml",
        "images/Dockerfile",
        "Makefile",
        "images/uv.lock",
    ):
        assert (mine / name).is_file(), name
    assert not (mine / "runners" / "project").exists()
    assert elson(mine, mine, "plan", "-s", "train-h100", "--offline").returncode == 0
    assert elson(mine, mine, "data", "build", "--drop-leaks").returncode == 0
    again = elson(tmp_path, site, "new", "mine")
    assert again.returncode == 1 and "is there already" in again.stderr
    program = "from runners import identity; print(identity.code_digest('train'), identity.code_digest('quantize'))"
    digests = {subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=True).stdout for folder in (mine, ROOT)}
    assert len(digests) == 1, "the same code has other ids in a new project"


_WITHOUT = """
import importlib, json, sys
away = set(json.loads(sys.argv[1]))
class Away:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in away: raise ImportError(f"{name} is in an extra")
sys.meta_path.insert(0, Away())
for name in sys.argv[2:]: importlib.import_module(name)
"""


def test_what_every_command_needs_is_not_in_an_extra() -> None:
    """`elson evaluate`, `compare`, `plan`, `models` and `status` with the packages of no extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    def names(found: Iterable[str]) -> set[str]:
        return {re.split(r"[<>=\[]", one)[0].lower() for one in found}

    extras = names(one for group in project["optional-dependencies"].values() for one in group) - names(project["dependencies"])
    away = [module for module, of in importlib.metadata.packages_distributions().items() if extras.issuperset(one.lower() for one in of)]
    assert {"markdown_it", "pulumi"} <= set(away)
    rooms = ["evaluation.run", "evaluation.report", "evaluation.comparing", "evaluation.exporter", "evaluation.importer", "evaluation.load", "planning.plan"]
    rooms += ["artifacts.registry", "cloud.jobs", "commands.cli"]
    command = [sys.executable, "-c", _WITHOUT, json.dumps(away), *(f"runners.{room}" for room in rooms)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-1000:]
