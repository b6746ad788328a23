"""Publish a base model by a small job in the cloud: 30 GB go from the hub to the bucket there, and not through the user's line.

The job is a Cloud Build build under the account ``elson-train``, which may add models and use scratch, and cannot overwrite or delete a model.
Left out: gated models, since the job gets no token; publish these from here.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from runners.artifacts import hub
from runners.cloud import images
from runners.errors import UserError
from runners.spec import BucketSpec

CONFIG = images.ROOT / "images" / "publish-base.yaml"


def command(name: str, source: str, buckets: BucketSpec, project: str, region: str, file: Path = images.BASES) -> list[str]:
    """The ``gcloud`` call, to be run in the folder that ``context`` fills. Raises UserError while the base image has no digest."""
    values = {"_PYTHON": images.pinned("python", file), "_NAME": name, "_SOURCE": source, "_MODELS": buckets.models, "_SCRATCH": buckets.scratch}
    return [
        *("gcloud", "builds", "submit", ".", f"--config={CONFIG}", f"--project={project}", f"--region={region}"),
        f"--substitutions={','.join(f'{key}={value}' for key, value in values.items())}",
        f"--service-account=projects/{project}/serviceAccounts/elson-train@{project}.iam.gserviceaccount.com",
        # The account may read scratch, and not the bucket that gcloud would make for its sources.
        f"--gcs-source-staging-dir={buckets.scratch}/builds",
    ]


def context(folder: Path) -> None:
    """What the job runs: the code and the lock of the tools."""
    shutil.copytree(images.ROOT / "runners", folder / "runners", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(images.ROOT / "images" / "tools" / "requirements.lock", folder / "requirements.lock")


def submit(name: str, source: str, buckets: BucketSpec, project: str, region: str) -> None:
    """Check the source from here, then run the job and wait for its end. Raises UserError."""
    if not source.startswith("hf:"):
        raise UserError(f"{source} is not at a hub", "hf:OWNER/NAME@COMMIT", "leave out --in-cloud: a folder is uploaded, a bucket is copied inside the cloud")
    if "," in source + name:
        raise UserError(f"{source} or {name} has a comma", "a model and a name without commas", "pass another name")
    hub.look_up(source)
    call = command(name, source, buckets, project, region)
    with tempfile.TemporaryDirectory(prefix="elson-base-") as folder:
        context(Path(folder))
        images.gcloud(call, Path(folder))
