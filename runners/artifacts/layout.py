"""Where everything is in the two buckets: one function a place.

models/   <name>/…            a published model: files, record.json, manifest.json
          registry/<name>.json  what a name means: id, kind, status, parents
          production.json     which name is in production
          datasets/<id>/…     a published dataset
          runs/<id>/…         reports
          compiled/<id>/…     a server's compiled code
scratch/  specs/<digest>.json  resolved specs
          staging/<id>/<digest>/…  uploads that are not published yet
          checkpoints/<train_id>/step-000075/…
          jobs/<id>/…         state and logs of a VM's job, the code that a server compiled
          watchdog/<group>.json  what the watchdog knows of a job's groups, by the first of them
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a VM's agent reads this file with the standard library alone
    from runners.spec import BucketSpec


def model(buckets: BucketSpec, name: str) -> str:
    """Folder of a published model."""
    return f"{buckets.models}/{name}"


def registry(buckets: BucketSpec, name: str = "") -> str:
    """Registry object of a name, or the registry's folder."""
    return f"{buckets.models}/registry/{name}.json" if name else f"{buckets.models}/registry/"


def production(buckets: BucketSpec) -> str:
    """The object that names the model in production."""
    return f"{buckets.models}/production.json"


def dataset(buckets: BucketSpec, dataset_id: str) -> str:
    """Folder of a published dataset."""
    return f"{buckets.models}/datasets/{dataset_id}"


def run(buckets: BucketSpec, run_id: str) -> str:
    """Folder of a run's report."""
    return f"{buckets.models}/runs/{run_id}"


def spec(buckets: BucketSpec, spec_digest: str) -> str:
    """A resolved spec."""
    return f"{buckets.scratch}/specs/{spec_digest}.json"


def staging(buckets: BucketSpec, stage_id: str, manifest_digest: str) -> str:
    """Folder of an upload that is complete or on its way, but not published."""
    return f"{buckets.scratch}/staging/{stage_id}/{manifest_digest}"


def checkpoints(buckets: BucketSpec, train_id: str) -> str:
    """Folder of a training's checkpoints."""
    return f"{buckets.scratch}/checkpoints/{train_id}"


def compiled(buckets: BucketSpec, compiled_id: str) -> str:
    """Folder of a server's published compiled code."""
    return f"{buckets.models}/compiled/{compiled_id}"


def compiled_of_job(buckets: BucketSpec, job_id: str) -> str:
    """Folder of the compiled code that a server left, not published."""
    return f"{job(buckets, job_id)}/compiled"


def job(buckets: BucketSpec, job_id: str) -> str:
    """Folder of a VM's job: state.json, logs."""
    return f"{buckets.scratch}/jobs/{job_id}"


def watchdog(buckets: BucketSpec, group: str) -> str:
    """The watchdog's memory of a job's groups. No VM may write it."""
    return f"{buckets.scratch}/watchdog/{group}.json"
