"""What the metadata server says about this VM and its job, validated before anything is done with it."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from runners import outside
from runners.errors import UserError
from runners.pipeline import images_of
from runners.vm.decide import Limits

_PINNED_IMAGE = re.compile(r"[a-z0-9][a-z0-9./_-]+@sha256:[0-9a-f]{64}")
_OBJECT = re.compile(r"gs://[a-z0-9][a-z0-9._-]+/.+")
_SECRET = re.compile(r"projects/[^/]+/secrets/[^/]+(/versions/[^/]+)?")


@dataclass(frozen=True)
class Facts:
    """Who this VM is and what it was made for."""

    project: str
    zone: str
    instance: str
    instance_id: str
    role: str
    job_id: str
    group: str
    region: str
    spec_uri: str
    images: dict[str, str]
    secret: str = ""
    #: Servers that the group may have. Of several, one that fails ends alone, and the group ends when none of them is used.
    replicas: int = 1

    def save(self, file: Path) -> None:
        """Keep the facts for the units that follow."""
        file.write_text(json.dumps(asdict(self)))

    @staticmethod
    def load(file: Path) -> Facts:
        """Read what the check unit saved."""
        return Facts(**json.loads(file.read_text()))


def parse(metadata: dict[str, Any]) -> Facts:
    """Facts from the answer to ``/computeMetadata/v1/?recursive=true``. Raises UserError naming the bad key."""
    return outside.shaped(
        lambda: _parsed(metadata), "the metadata of this VM", "an instance with attributes and a project", "run `pulumi up` on this stack again"
    )


def _parsed(metadata: dict[str, Any]) -> Facts:
    instance, attributes = metadata["instance"], metadata["instance"]["attributes"]

    def need(key: str, rule: re.Pattern[str]) -> str:
        value = str(attributes.get(key, ""))
        if not rule.fullmatch(value):
            raise UserError(f"metadata {key} is {value!r}", f"a value like {rule.pattern}", "run `pulumi up` on this stack again")
        return value

    role = need("elson-role", re.compile("train|serve"))
    images = _images(str(attributes.get("elson-images", "")), role)
    return Facts(
        project=metadata["project"]["projectId"],
        zone=instance["zone"].rsplit("/", 1)[-1],
        instance=instance["name"],
        instance_id=str(instance["id"]),
        role=role,
        job_id=need("elson-job-id", re.compile(r"[a-z0-9][a-z0-9._-]{0,120}")),
        group=need("elson-group", re.compile(r"[a-z][a-z0-9-]{0,62}")),
        region=need("elson-region", re.compile(r"[a-z0-9-]+")),
        spec_uri=need("elson-spec-uri", _OBJECT),
        images=images,
        secret=need("elson-secret", _SECRET) if role == "serve" else "",
        replicas=int(need("elson-replicas", re.compile(r"[1-9]\d?"))) if "elson-replicas" in attributes else 1,
    )


def _images(text: str, role: str) -> dict[str, str]:
    try:
        images = {str(stage): str(image) for stage, image in json.loads(text).items()}
    except (ValueError, AttributeError):
        raise UserError(f"metadata elson-images is {text[:200]!r}", "a JSON object of images by stage", "run `pulumi up` on this stack again") from None
    needed = sorted(images_of(role))
    for stage in needed:
        if not _PINNED_IMAGE.fullmatch(images.get(stage, "")):
            raise UserError(
                f"the image of {stage} is {images.get(stage)!r}", "an image pinned as NAME@sha256:<64 hex digits>", "run `elson images build`, then `pulumi up`"
            )
    return {stage: images[stage] for stage in needed}


def limits(spec: dict[str, Any], role: str, replicas: int = 1) -> Limits:
    """Bounds of the job, from the resolved spec (which holds every default). Several servers share one state, so each has its own attempts in it."""
    machine = spec["machine"]
    return Limits(max_attempts=machine["max_attempts"] * replicas, deadline_minutes=machine["deadline_minutes"] if role == "train" else None)
