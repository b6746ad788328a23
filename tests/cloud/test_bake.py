"""`elson images bake` that fails, hangs or is killed: no VM is left, and no image that was not made to its end is used. Weights in an image, read back."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from runners.artifacts import arrival, layout, registry, storage, wire
from runners.artifacts.record import manifest_of
from runners.cloud import bake
from runners.errors import UserError
from runners.planning import stacks
from runners.planning.serving import ModelToServe
from runners.serving import compiled, serve
from runners.spec import Spec, parse
from runners.training.shape import Shape
from tests.cloud.baked_disk import line_of
from tests.cloud.conftest import BUCKETS, DIGEST, PROJECT, Machine

#: `elson` on the test's own stacks.
_IN_FOLDER = """
import sys; from pathlib import Path; from runners.planning import stacks; stacks.FOLDER = Path("infra/stacks").absolute()
from runners.commands.cli import cli; cli(sys.argv[1:], prog_name="elson")
"""
BAKE = ("images", "bake", "-s", "train-h100", "--project", PROJECT, "--zone", "us-central1-a")


@pytest.fixture
def pinned(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A stack whose containers are built, and a bake that asks often."""
    write_stack(machine, "train-h100", "train", "quantize")
    monkeypatch.setattr(bake, "_POLL_S", 0.01)
    return machine


def write_stack(machine: Machine, stack: str, *stages: str) -> None:
    images = "".join(f"\n      {stage}: us-central1-docker.pkg.dev/a-project/elson/{stage}@{DIGEST}" for stage in stages)
    own = machine.folder / "infra" / "stacks" / "mine" / f"Pulumi.{stack}.yaml"
    own.parent.mkdir(exist_ok=True)
    own.write_text(f"config:\n  gcp:project: {PROJECT}\n  elson:spec:\n    environments:{images}\n")


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


WITH_WEIGHTS = ("images", "bake", "-s", "serve-l4", "--project", PROJECT, "--zone", "us-central1-a", "--weights")
SHARD = struct.pack("<Q", 64) + b'{"w":{"dtype":"U8","shape":[200000],"data_offsets":[0,200000]}}'.ljust(64) + bytes(200_000)


@pytest.fixture
def server(pinned: Machine, tmp_path: Path) -> Machine:
    """A stack that serves a published model with published compiled code."""
    for uri in (BUCKETS.models, BUCKETS.scratch):
        storage.client().create_bucket(storage.split(uri)[0])
    write_stack(pinned, "serve-l4", "serve", "gateway")
    for name in ("a-q4", "b-q4"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "tokenizer.json").write_text(json.dumps({"name": name}))
        (folder / "model.safetensors").write_bytes(SHARD + name.encode())
        registry.publish(BUCKETS, folder, name=name, stage_id=f"qdora-{name}", kind="qdora")
    serves(pinned, "a-q4")
    code = tmp_path / "code"
    code.mkdir()
    (code / "cache.tar.gz").write_bytes(b"code")
    storage.upload(code, layout.compiled(BUCKETS, compiled.compiled_id(resolved())))
    return pinned


def resolved() -> Spec:
    return stacks.look_up(stacks.load("serve-l4").spec).spec


def serves(machine: Machine, name: str) -> None:
    stacks.remember("serve-l4", {"elson:spec": {"serve": {"model": name}}})


def booted(machine: Machine, tmp_path: Path) -> Path:
    """The work folder of a VM that boots the stack's image."""
    wanted = resolved().machine
    assert wanted
    shutil.copytree(machine.standin / "disks" / "images" / wanted.image.rpartition("/")[2], tmp_path / "vm")
    return tmp_path / "vm" / str(bake.WORK).lstrip("/")


def test_weights_are_baked_verified_and_read_by_a_server_that_asks_the_bucket_for_headers_alone(
    server: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.ok(*WITH_WEIGHTS)
    manifest, spec = manifest_of(tmp_path / "a-q4").digest, resolved()
    assert spec.machine and spec.machine.baked_model == manifest == spec.serve.model_manifest
    (made,) = server.calls("compute", "images", "create")
    assert f"--labels=elson-model={manifest}" in made, "the image says whose weights it holds"
    work, received, receive = booted(server, tmp_path), [], wire.receive
    monkeypatch.setattr(wire, "receive", lambda uri, path, start, end, generation=0: received.append(end) or receive(uri, path, start, end, generation))
    folder, _, found = serve.begin_model(spec, work)
    assert found and not arrival.is_here(folder, "model.safetensors"), "checked before it is read"
    found.rest()
    assert arrival.is_here(folder, "model.safetensors") and max(received) <= 72
    assert compiled.bring(spec, work) and (work / "compiled" / "cache.tar.gz").read_bytes() == b"code" and max(received) <= 72
    server.ok(*WITH_WEIGHTS)
    assert len(server.calls("compute", "instances", "create")) == 1, "the image is there"


def test_weights_that_the_disk_damaged_and_those_of_another_model_come_from_the_bucket(server: Machine, tmp_path: Path) -> None:
    server.ok(*WITH_WEIGHTS)
    work = booted(server, tmp_path)
    file = work / "models" / "a-q4" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    serves(server, "b-q4")
    for spec, name in ((resolved(), "b-q4"), (resolved().model_copy(update={"serve": resolved().serve.model_copy(update={"model": "a-q4"})}), "a-q4")):
        wanted = spec.model_copy(update={"serve": spec.serve.model_copy(update={"model_id": None, "model_manifest": None})})
        folder, entry, found = serve.begin_model(wanted, work)
        assert found and entry.name == name
        found.rest()
        assert (folder / "model.safetensors").read_bytes() == SHARD + name.encode()
    assert "the boot image holds the weights of" in server.ok("plan", "-s", "serve-l4", "--verbose").stderr


def test_an_image_without_weights_takes_the_place_of_one_with_them(server: Machine) -> None:
    server.ok(*WITH_WEIGHTS)
    server.ok(*WITH_WEIGHTS[:-1])
    wanted = resolved().machine
    assert wanted and wanted.image_is_baked and wanted.baked_model is None and len(left(server)[1]) == 2


def test_weights_that_cannot_be_brought_make_no_image(server: Machine) -> None:
    generation = next(item.generation for item in storage.listing(f"{BUCKETS.models}/a-q4") if item.path == "model.safetensors")
    storage.write(f"{BUCKETS.models}/a-q4/model.safetensors", SHARD + b"b-q4", generation=generation)
    assert f"baking failed at line {line_of('docker run')}" in server.fails(*WITH_WEIGHTS)
    assert left(server) == ({}, {}) and "image_is_baked" not in server.mine("serve-l4")


def test_weights_are_refused_where_no_server_would_find_them(server: Machine) -> None:
    assert "is no server on a VM" in server.fails("images", "bake", "-s", "train-h100", "--project", PROJECT, "--weights")
    stacks.remember("serve-l4", {"elson:spec": {"machine": {"machine_type": "a2-ultragpu-1g"}}})
    assert "local SSD" in server.fails(*WITH_WEIGHTS)
    assert not server.calls("compute")


def test_of_two_models_the_disk_of_a_bake_holds_the_first_one(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = {"role": "serve", "machine_type": "g4-standard-48", "provisioning_model": "STANDARD", "disk_gb": 200, "max_run_minutes": 1440}
    small, large, larger = ModelToServe(), *(ModelToServe(Shape(8192, layers, 64, 8, 128, 29568, 152064)) for layers in (80, 100))

    def bakes(first: ModelToServe, second: ModelToServe) -> None:
        spec = parse({"serve": {"second": {"model": "other", "served_model_name": "other"}}, "machine": machine})
        monkeypatch.setattr(stacks, "look_up", lambda _: stacks.ResolvedStack(spec, "", shape=first.shape, bucket_region="us-central1", second=second))
        assert bake.with_weights("serve-g4", spec) == spec

    bakes(small, large)
    with pytest.raises(UserError, match="100 GB at most, the disk of a bake"):
        bakes(larger, small)
