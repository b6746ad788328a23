"""The job that publishes in the cloud: the call, and the very step it runs, against a hub and a bucket on loopback."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from runners.artifacts import local_bucket, registry
from runners.cloud import base_job
from runners.errors import UserError
from runners.planning import stacks

from .test_hub import SOURCE, Hub, served  # noqa: F401  # the fixture

PROJECT = "a-project"
BUCKETS = stacks.buckets_of(PROJECT)
DIGEST = "sha256:" + "0" * 64


@pytest.fixture
def call(tmp_path: Path) -> Iterator[list[str]]:
    bases = tmp_path / "bases.yaml"
    bases.write_text(f"python: {{image: docker.io/library/python, tag: x, digest: '{DIGEST}'}}\n")
    yield base_job.command("qwen", SOURCE, BUCKETS, PROJECT, "us-central1", bases)


def substitutions(call: list[str]) -> dict[str, str]:
    (given,) = [word.removeprefix("--substitutions=") for word in call if word.startswith("--substitutions=")]
    return dict(pair.split("=", 1) for pair in given.split(","))


def test_the_job_is_bounded_pinned_and_of_the_account_that_may_only_add_models(call: list[str]) -> None:
    config = yaml.safe_load(base_job.CONFIG.read_text())
    used = set(re.findall(r"\$\{(_\w+)\}", base_job.CONFIG.read_text()))
    assert used == set(substitutions(call)), "Cloud Build refuses a substitution that is missing, or not used"
    assert config["timeout"].endswith("s") and all(step["name"] == "${_PYTHON}" for step in config["steps"])
    assert substitutions(call)["_PYTHON"].endswith(DIGEST) and "--require-hashes" in config["steps"][0]["args"]
    assert f"--service-account=projects/{PROJECT}/serviceAccounts/elson-train@{PROJECT}.iam.gserviceaccount.com" in call
    assert f"--gcs-source-staging-dir=gs://{PROJECT}-elson-scratch/builds" in call


def test_the_step_publishes(call: list[str], served: type[Hub], tmp_path: Path) -> None:  # noqa: F811 - the fixture of that name
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    base_job.context(workspace)
    values = substitutions(call)
    words = [re.sub(r"\$\{(_\w+)\}", lambda match: values[match[1]], word) for word in yaml.safe_load(base_job.CONFIG.read_text())["steps"][1]["args"]]
    with local_bucket.running(tmp_path, BUCKETS) as url:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("GOOGLE_", "STORAGE_", "ELSON_", "PYTHONPATH"))}
        done = subprocess.run([sys.executable, *words], cwd=workspace, env=clean | {"STORAGE_EMULATOR_HOST": url}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert registry.usable(BUCKETS, "qwen").kind == "base"


def test_only_a_hub_is_read_by_the_job() -> None:
    with pytest.raises(UserError, match="leave out --in-cloud"):
        base_job.submit("qwen", "./folder", BUCKETS, PROJECT, "us-central1")
