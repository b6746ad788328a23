"""A boot image with docker, the toolkit and a role's containers: minutes less at every boot of an expensive machine. A server's may hold its weights too.

A small VM without a GPU is made from the stock image, ``images/bake.sh`` runs on it, its disk becomes an image, and the VM is deleted whatever happens.
Should this command be killed, the platform deletes the VM after an hour, the watchdog one that was stopped already, and the next call what it finds.
An image is used only when it is READY, and made only after the script has said "done". The VM has an address of its own, since there is no NAT while
no stack is up; no firewall rule lets anybody in.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import subprocess
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from runners import log
from runners.cloud.images import ROOT
from runners.errors import UserError
from runners.pipeline import images_of
from runners.planning import stacks
from runners.planning.machines import machine
from runners.spec import MachineSpec, Spec
from runners.vm.containers import CONTAINER_USER, WORK

#: Pulling and unpacking is disk and network; a GPU would cost fifty times as much and do nothing.
_MACHINE, _DISK_GB, _MINUTES = "n2-standard-4", 100, 60
_POLL_S = 15.0


@dataclass(frozen=True)
class Bake:
    """The calls of one bake, in order; ``cleanup`` always runs. ``image_status`` and ``vm_status`` say what an earlier one has left."""

    image: str
    image_status: list[str]
    vm_status: list[str]
    delete_image: list[str]
    create: list[str]
    poll: list[str]
    stop: list[str]
    make: list[str]
    cleanup: list[str]


def plan(spec: Spec, role: str, project: str, zone: str, files: Path, weights: str | None = None) -> Bake:
    """The gcloud calls that bake an image. Raises UserError without pinned containers.

    Args:
        files: the folder that holds ``images.json`` and ``bring.txt``.
        weights: digest of the files of the model that goes into the image.
    """
    images = containers(spec, role)
    scripts = ((ROOT / file).read_text() for file in ("infra/startup/prepare.sh", "images/bake.sh"))
    digest = hashlib.sha256("".join([*images.values(), *scripts, weights or ""]).encode()).hexdigest()
    name = f"elson-{role}-{digest[:12]}"
    wanted = spec.machine
    # An image is made from the stock one, also when the stack boots a baked one already.
    source = wanted.image if wanted and not wanted.image_is_baked else str(MachineSpec.model_fields["image"].default)
    subnet = wanted.subnet if wanted else "train"
    gcloud = ["gcloud", "compute"]
    where = [f"--project={project}", f"--zone={zone}"]
    create = [*gcloud, "instances", "create", name, *where, f"--machine-type={_MACHINE}", f"--boot-disk-size={_DISK_GB}GB", "--boot-disk-type=pd-ssd"]
    create += [*_source(source), f"--subnet=elson-{subnet}", f"--service-account=elson-{role}@{project}.iam.gserviceaccount.com"]
    create += ["--scopes=cloud-platform", f"--max-run-duration={_MINUTES}m", "--instance-termination-action=DELETE", "--metadata=enable-guest-attributes=TRUE"]
    create += ["--labels=elson-bake=true"]
    keys = {"startup-script": ROOT / "images/bake.sh", "elson-prepare": ROOT / "infra/startup/prepare.sh", "elson-images": files / "images.json"}
    keys["elson-bring"] = files / "bring.txt"
    create += ["--metadata-from-file=" + ",".join(f"{key}={path}" for key, path in keys.items())]
    return Bake(
        image=f"projects/{project}/global/images/{name}",
        image_status=[*gcloud, "images", "describe", name, f"--project={project}", "--format=value(status)"],
        vm_status=[*gcloud, "instances", "describe", name, *where, "--format=value(status)"],
        delete_image=[*gcloud, "images", "delete", name, f"--project={project}", "--quiet"],
        create=create,
        poll=[*gcloud, "instances", "get-guest-attributes", name, *where, "--query-path=elson/baked", "--format=value(value)"],
        stop=[*gcloud, "instances", "stop", name, *where],
        make=[*gcloud, "images", "create", name, f"--project={project}", f"--source-disk={name}", f"--source-disk-zone={zone}", f"--family=elson-{role}"]
        + ([f"--labels=elson-model={weights}"] if weights else []),
        cleanup=[*gcloud, "instances", "delete", name, *where, "--quiet"],
    )


def containers(spec: Spec, role: str) -> dict[str, str]:
    """The pinned containers of a role. Raises UserError when one is missing."""
    found = {stage: getattr(spec.environments, stage) for stage in images_of(role)}
    missing = [stage for stage, image in found.items() if not image]
    if missing:
        raise UserError(f"environments.{missing[0]} is not in the stack file", "an image pinned by digest", f"elson images build {' '.join(missing)}")
    return found


def bring_arguments(image: str, spec_uri: str) -> list[str]:
    """``docker run …`` of the container that brings the weights to where a server looks for them (``runners/vm/containers.py``). No word holds a blank."""
    bounds = ["--rm", "--network", "host", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--user", str(CONTAINER_USER)]
    return [*bounds, "--env", "HOME=/scratch", "--volume", f"{WORK}:/scratch", image, "serve", "--spec", spec_uri, "--work", "/scratch", "--bring"]


def with_weights(stack: str, spec: Spec) -> Spec:
    """The resolved spec of a server whose weights can be baked. Raises UserError where they would not be found, or do not fit."""
    host = machine(spec.machine.machine_type) if spec.machine else None
    if host is None or spec.machine is None or spec.machine.role != "serve" or host.is_run:
        raise UserError(f"{stack} is no server on a VM", "one whose boot disk holds its weights", "leave out --weights")
    if host.local_ssd_gib:
        raise UserError(f"{host.name} has its work folder on its local SSD, which is empty at every boot", "a machine without one", "leave out --weights")
    found = stacks.look_up(spec)
    made = stacks.plan_of(stack, found).accept()
    # A second model's weights come from the bucket, to the server's own disk.
    baked = replace(made, disk=tuple((name, gb) for name, gb in made.disk if not name.startswith("second ")))
    if baked.disk_needed_gb > _DISK_GB:
        raise UserError(
            f"system, containers and weights make {baked.disk_needed_gb:.0f} GB", f"{_DISK_GB} GB at most, the disk of a bake", "leave out --weights"
        )
    return found.spec


@dataclass(frozen=True)
class Weights:
    """What goes into an image beside its containers: a server's resolved spec in the bucket, and the digest of its model's files."""

    spec_uri: str
    manifest: str


def bake(spec: Spec, role: str, project: str, zone: str, *, weights: Weights | None = None) -> str:
    """Bake and return the image's name. Raises UserError."""
    with tempfile.TemporaryDirectory() as folder:
        images = containers(spec, role)
        (Path(folder) / "images.json").write_text(json.dumps(images))
        bring = bring_arguments(images["serve"], weights.spec_uri) if weights else ["nothing"]
        (Path(folder) / "bring.txt").write_text(" ".join(bring) + "\n")
        calls = plan(spec, role, project, zone, Path(folder), weights.manifest if weights else None)
        if _found(calls):
            return calls.image
        try:
            _run(calls.create)
            _wait(calls.poll)
            _run(calls.stop)
            _make(calls)
        finally:
            if subprocess.run(calls.cleanup, check=False).returncode:
                log.warning("the VM may still be there; the platform or the watchdog deletes it within two hours", now=shlex.join(calls.cleanup))
    return calls.image


def _found(calls: Bake) -> bool:
    """Whether the image is there already. What a bake that was cut off has left is deleted. Raises UserError while another one is at work."""
    end = time.monotonic() + 60 * _MINUTES
    while (status := _status(calls.image_status)) == "PENDING" and time.monotonic() < end:
        time.sleep(_POLL_S)
    if status == "READY":
        return True
    if status:
        _run(calls.delete_image)
    if (vm := _status(calls.vm_status)) in ("TERMINATED", "STOPPED"):
        _run(calls.cleanup)
    elif vm:
        name = calls.image.rpartition("/")[2]
        raise UserError(
            f"the VM {name} is {vm}: this image is being baked, or was when a command was cut off",
            "no such VM",
            f"wait (it is deleted after {_MINUTES} minutes), or: {shlex.join(calls.cleanup)}",
        )
    return False


def _make(calls: Bake) -> None:
    """The image of the disk; one that does not get READY is deleted. Raises UserError."""
    try:
        _run(calls.make)
        if (status := _status(calls.image_status)) != "READY":
            raise UserError(f"the image is {status or 'not there'}", "READY", "run the same command again")
    except UserError:
        if _status(calls.image_status):
            subprocess.run(calls.delete_image, check=False)
        raise


def _status(command: list[str]) -> str:
    """What gcloud says of a resource, or nothing where there is none."""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _wait(poll: list[str]) -> None:
    end = time.monotonic() + 60 * _MINUTES
    with log.progress("baking", _MINUTES, "min") as meter:
        while time.monotonic() < end:
            said = subprocess.run(poll, capture_output=True, text=True, check=False).stdout.strip()
            if said == "done":
                return
            if said:
                raise UserError(f"baking {said}", "done", "read the VM's serial port in Cloud Logging, then run the same command again")
            time.sleep(_POLL_S)
            meter.advance(_POLL_S / 60)
    raise UserError(f"the image was not baked in {_MINUTES} minutes", "done", "run the same command again")


def _run(command: list[str]) -> None:
    if subprocess.run(command, check=False).returncode:
        raise UserError(f"`{' '.join(command[:4])} …` failed", "0; its message is above", "fix that, then run the same command again")


def _source(image: str) -> list[str]:
    project, _, rest = image.removeprefix("projects/").partition("/global/images/")
    return [f"--image-project={project}", f"--image-family={rest.removeprefix('family/')}"] if rest.startswith("family/") else [f"--image={image}"]
