"""Shell and units: linted, short, constant; Dockerfiles too."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from runners.cloud import images
from runners.pipeline import IMAGES
from runners.vm.__main__ import STEPS, STEPS_WITH_A_NAME

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = [*sorted((ROOT / "infra" / "startup").glob("*.sh")), ROOT / "images" / "bake.sh"]
UNITS = sorted((ROOT / "infra" / "startup" / "units").iterdir())
DOCKERFILES = sorted((ROOT / "images").rglob("Dockerfile"))


def tool(name: str) -> str:
    """A linter's path; absent is a failure in CI and a skip elsewhere."""
    here = Path(sys.executable).parent / name
    found = str(here) if here.exists() else shutil.which(name)
    if not found:
        reason = f"{name} is not installed (`make system` installs it)"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    return found


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_scripts_are_linted_formatted_strict_and_short(script: Path) -> None:
    for command in ([tool("shellcheck"), "--severity=style", str(script)], [tool("shfmt"), "--diff", str(script)], ["bash", "-n", str(script)]):
        done = run(*command)
        assert done.returncode == 0, done.stdout + done.stderr
    text = script.read_text()
    assert "set -euo pipefail" in text and len(text.splitlines()) < 60
    assert not re.search(r"@[A-Z_]+@|<%|\$\{__", text), "nothing is templated"


def test_units_are_valid() -> None:
    done = run(tool("systemd-analyze"), "verify", "--man=no", "--recursive-errors=no", *map(str, UNITS))
    wrong = [line for line in done.stderr.splitlines() if "elson-" in line]
    assert done.returncode == 0 and not wrong, done.stderr


@pytest.mark.parametrize("unit", [unit for unit in UNITS if unit.suffix == ".service"], ids=lambda unit: unit.name)
def test_every_unit_calls_a_step_that_exists_and_is_bounded(unit: Path) -> None:
    text = unit.read_text()
    for step in re.findall(r"runners\.vm (\w+)", text):
        assert step in {*STEPS, *STEPS_WITH_A_NAME, "logs"}
    kind = re.search(r"Type=(\w+)", text)
    assert kind
    if kind[1] == "oneshot":
        assert "TimeoutStartSec=" in text and "Restart=" not in text, "a oneshot step retries inside itself, and not forever"
    assert "[Install]" not in text, "units are started by the startup script, never enabled"


def test_what_work_depends_on_reports_its_failure() -> None:
    for name in ("elson-check", "elson-prepare", "elson-pull@", "elson-train", "elson-serve", "elson-gateway", "elson-watch"):
        assert "OnFailure=elson-failed@%n.service" in (ROOT / f"infra/startup/units/{name}.service").read_text(), name


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda file: file.parent.name)
def test_dockerfiles_are_linted_unprivileged_and_pinned(dockerfile: Path) -> None:
    done = run(tool("hadolint"), str(dockerfile))
    assert done.returncode == 0, done.stdout
    text = dockerfile.read_text()
    assert re.search(r"^USER 10001$", text, re.MULTILINE) and "latest" not in text
    assert re.findall(r"^FROM (.*)$", text, re.MULTILINE) in (["${COMPAT_BASE} AS compat", "${PYTHON_BASE}"], ["${CADDY_BASE}"]), (
        "the base has no default that could drift"
    )
    if dockerfile.parent.name != "gateway":
        assert "--require-hashes" in text and "--no-deps" in text


def test_the_cloud_build_bounds_its_time_disk_and_machine() -> None:
    build = yaml.safe_load((ROOT / "images/cloudbuild.yaml").read_text())
    assert build["timeout"] == "3600s" and build["options"]["diskSizeGb"] == 200 and build["options"]["machineType"]
    used = set(re.findall(r"\$\{(_[A-Z_]+)\}", (ROOT / "images/cloudbuild.yaml").read_text()))
    assert used == {"_DOCKERFILE", "_IMAGE_NAME", "_BASE_ARGUMENT", "_BASE", "_COMPAT_BASE", "_BUILDER", "_COMMIT", "_IMAGE"}
    assert {ROOT / images.dockerfile(image) for image in IMAGES} == set(DOCKERFILES)
