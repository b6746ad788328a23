"""A boot image with docker, the toolkit and a role's containers: minutes less at every boot of an expensive machine.

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
from dataclasses import dataclass
from pathlib import Path

from runners import log
from runners.cloud.images import ROOT
from runners.errors import UserError
from runners.pipeline import images_of
from runners.spec import MachineSpec, Spec

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


def plan(spec: Spec, role: str, project: str, zone: str, files: Path) -> Bake:
    """The gcloud calls that bake an image. ``files`` is the folder that holds ``images.json``. Raises UserError without pinned containers."""
    images = containers(spec, role)
    digest = hashlib.sha256(
        "".join([*images.values(), (ROOT / "infra/startup/prepare.sh").read_text(), (ROOT / "images/bake.sh").read_text()]).encode()
    ).hexdigest()
    name = f"elson-{role}-{digest[:12]}"
    machine = spec.machine
    # An image is made from the stock one, also when the stack boots a baked one already.
    source = machine.image if machine and not machine.image_is_baked else str(MachineSpec.model_fields["image"].default)
    subnet = machine.subnet if machine else "train"
    gcloud = ["gcloud", "compute"]
    where = [f"--project={project}", f"--zone={zone}"]
    create = [*gcloud, "instances", "create", name, *where, f"--machine-type={_MACHINE}", f"--boot-disk-size={_DISK_GB}GB", "--boot-disk-type=pd-ssd"]
    create += [*_source(source), f"--subnet=elson-{subnet}", f"--service-account=elson-{role}@{project}.iam.gserviceaccount.com"]
    create += ["--scopes=cloud-platform", f"--max-run-duration={_MINUTES}m", "--instance-termination-action=DELETE", "--metadata=enable-guest-attributes=TRUE"]
    create += ["--labels=elson-bake=true"]
    keys = {"startup-script": ROOT / "images/bake.sh", "elson-prepare": ROOT / "infra/startup/prepare.sh", "elson-images": files / "images.json"}
    create += ["--metadata-from-file=" + ",".join(f"{key}={path}" for key, path in keys.items())]
    return Bake(
        image=f"projects/{project}/global/images/{name}",
        image_status=[*gcloud, "images", "describe", name, f"--project={project}", "--format=value(status)"],
        vm_status=[*gcloud, "instances", "describe", name, *where, "--format=value(status)"],
        delete_image=[*gcloud, "images", "delete", name, f"--project={project}", "--quiet"],
        create=create,
        poll=[*gcloud, "instances", "get-guest-attributes", name, *where, "--query-path=elson/baked", "--format=value(value)"],
        stop=[*gcloud, "instances", "stop", name, *where],
        make=[*gcloud, "images", "create", name, f"--project={project}", f"--source-disk={name}", f"--source-disk-zone={zone}", f"--family=elson-{role}"],
        cleanup=[*gcloud, "instances", "delete", name, *where, "--quiet"],
    )


def containers(spec: Spec, role: str) -> dict[str, str]:
    """The pinned containers of a role. Raises UserError when one is missing."""
    found = {stage: getattr(spec.environments, stage) for stage in images_of(role)}
    missing = [stage for stage, image in found.items() if not image]
    if missing:
        raise UserError(f"environments.{missing[0]} is not in the stack file", "an image pinned by digest", f"elson images build {' '.join(missing)}")
    return found


def bake(spec: Spec, role: str, project: str, zone: str) -> str:
    """Bake and return the image's name. Raises UserError."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "images.json").write_text(json.dumps(containers(spec, role)))
        calls = plan(spec, role, project, zone, Path(folder))
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
