"""`elson images bake` that fails, hangs or is killed: no VM is left, and no image that was not made to its end is used."""

from __future__ import annotations

import subprocess
import sys

import pytest

from runners.cloud import bake
from tests.cloud.conftest import DIGEST, PROJECT, Machine

#: `elson` on the test's own stacks.
_IN_FOLDER = """
import sys; from pathlib import Path; from runners.planning import stacks; stacks.FOLDER = Path("infra/stacks").absolute()
from runners.commands.cli import cli; cli(sys.argv[1:], prog_name="elson")
"""
BAKE = ("images", "bake", "-s", "train-h100", "--project", PROJECT, "--zone", "us-central1-a")


@pytest.fixture
def pinned(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A stack whose containers are built, and a bake that asks often."""
    images = "".join(f"\n      {stage}: us-central1-docker.pkg.dev/a-project/elson/{stage}@{DIGEST}" for stage in ("train", "quantize"))
    own = machine.folder / "infra" / "stacks" / "mine" / "Pulumi.train-h100.yaml"
    own.parent.mkdir(exist_ok=True)
    own.write_text(f"config:\n  elson:spec:\n    environments:{images}\n")
    monkeypatch.setattr(bake, "_POLL_S", 0.01)
    return machine


def left(machine: Machine) -> tuple[dict[str, str], dict[str, str]]:
    state = machine.gcloud()
    return state.get("vms", {}), state.get("boot_images", {})


def is_used(machine: Machine) -> bool:
    return "image_is_baked" in machine.mine("train-h100")


def killed_after(machine: Machine, command: str) -> None:
    """The command in a process of its own, which is killed when a call of gcloud has done its work."""
    machine.gcloud(kills_after=command)
    done = subprocess.run([sys.executable, "-c", _IN_FOLDER, *BAKE], cwd=machine.folder, capture_output=True, timeout=120, check=False)
    assert done.returncode == -9, done.stderr.decode()
    machine.gcloud(kills_after="")
    assert not is_used(machine)


def test_a_bake_leaves_its_image_and_nothing_else_and_a_second_one_makes_nothing(pinned: Machine) -> None:
    pinned.ok(*BAKE)
    vms, images = left(pinned)
    assert vms == {} and list(images.values()) == ["READY"] and is_used(pinned)
    pinned.ok(*BAKE)
    assert len(pinned.calls("compute", "instances", "create")) == 1


def test_a_script_that_fails_is_told_and_nothing_is_left(pinned: Machine) -> None:
    pinned.gcloud(baked="failed at line 25")
    assert "baking failed at line 25" in pinned.fails(*BAKE)
    assert left(pinned) == ({}, {}) and not is_used(pinned)


def test_a_script_that_hangs_is_ended_with_its_vm(pinned: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    pinned.gcloud(baked="")
    monkeypatch.setattr(bake, "_MINUTES", 0.01)
    assert "was not baked in" in pinned.fails(*BAKE)
    assert left(pinned) == ({}, {}) and not is_used(pinned)


def test_an_image_that_was_not_made_to_its_end_is_deleted(pinned: Machine) -> None:
    pinned.gcloud(image_status="FAILED")
    assert "images create" in pinned.fails(*BAKE)
    assert left(pinned) == ({}, {}) and not is_used(pinned)
    pinned.gcloud(image_status="READY")
    pinned.ok(*BAKE)
    assert is_used(pinned)


def test_a_vm_that_cannot_be_deleted_is_told_with_the_command(pinned: Machine) -> None:
    pinned.gcloud(refused={"compute instances delete": "HTTPError 503: try again"})
    assert "gcloud compute instances delete" in pinned.ok(*BAKE).stderr


def test_killed_while_it_bakes_the_vm_has_the_platforms_end_and_is_not_taken_for_a_new_one(pinned: Machine) -> None:
    killed_after(pinned, "compute instances create")
    (call,) = pinned.calls("compute", "instances", "create")
    assert "--max-run-duration=60m" in call and "--instance-termination-action=DELETE" in call and "--labels=elson-bake=true" in call
    said = pinned.fails(*BAKE)
    assert "is RUNNING" in said and "gcloud compute instances delete" in said
    assert list(left(pinned)[0].values()) == ["RUNNING"], "it may be another person's, at work"
    pinned.gcloud(vms={})  # an hour later
    pinned.ok(*BAKE)


def test_killed_after_the_vm_was_stopped_the_next_bake_deletes_it_first(pinned: Machine) -> None:
    killed_after(pinned, "compute instances stop")
    assert list(left(pinned)[0].values()) == ["TERMINATED"]
    pinned.ok(*BAKE)
    assert left(pinned)[0] == {} and is_used(pinned)


@pytest.mark.parametrize("status", ["READY", "FAILED"])
def test_killed_after_the_image_the_next_bake_uses_it_only_when_it_is_ready(status: str, pinned: Machine) -> None:
    killed_after(pinned, "compute images create")
    pinned.gcloud(boot_images=dict.fromkeys(left(pinned)[1], status))
    pinned.ok(*BAKE)
    assert left(pinned)[1] == dict.fromkeys(left(pinned)[1], "READY") and is_used(pinned)
    assert len(pinned.calls("compute", "instances", "create")) == (1 if status == "READY" else 2)
