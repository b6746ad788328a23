"""Training on Cloud Run with the real stages on the tiny model: taken in the middle of a step, out of time, without rights at first, and done all the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.run_plan import TrainingPlan, plan_training
from runners import stages
from runners.artifacts import local_bucket, storage
from runners.cloud import jobs as told
from runners.identity import stage_id
from runners.planning.stacks import ResolvedStack
from runners.spec import MachineSpec, Spec
from tests.cloud_run.jobs_platform import Jobs
from tests.vm.simulation import seed

MACHINE = MachineSpec(role="train", machine_type="run-rtx6000-20", provisioning_model="RUN", max_run_minutes=60, max_attempts=5)


def planned(spec: Spec) -> TrainingPlan:
    found = plan_training("train-run", "a-project", ResolvedStack(spec, stage_id(spec, "quantize")))
    assert found is not None
    return found


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Any]:
    """``world(changes…)``: jobs of the tiny spec on a bucket of this test's own, with its base model and dataset."""
    import shutil

    made: list[Jobs] = []
    files = seed.files()
    tiny = seed.resolved(MACHINE)
    shutil.copytree(files, tmp_path / "home" / "bucket")
    with local_bucket.running(tmp_path / "home", tiny.buckets) as url:

        def begin(**changes: Any) -> tuple[Jobs, Spec]:
            spec = tiny.model_copy(update={section: getattr(tiny, section).model_copy(update=change) for section, change in changes.items()})
            stages.save_spec(spec)
            made.append(Jobs(planned(spec), tmp_path / f"jobs-{len(made)}", url))
            return made[-1], spec

        yield begin
    for one in made:
        one.close()


def state(spec: Spec) -> dict[str, Any]:
    return told.state(spec.buckets, stage_id(spec, "quantize"))


@pytest.mark.timeout(900)
def test_taken_in_a_step_out_of_time_and_done_at_the_third_try(world: Any) -> None:
    jobs, spec = world(train={"epochs": 40, "early_stop_evaluations": 100})
    checkpoints = jobs.folder.parent / "home" / "bucket" / "scratch" / "checkpoints"

    def in_a_step(after: int) -> Any:
        return lambda row: row.get("message") == "train" and row.get("done", 0) >= after and any(checkpoints.rglob("manifest.json"))

    jobs.vanish["train", 0] = in_a_step(20)
    jobs.maintenance["train", 1] = in_a_step(60)
    jobs.run()
    first, second, third = jobs.of("train")
    assert first.code == -9 and second.code == 143 and not second.killed, (first.code, second.code)
    assert third.code == 0, third.log[-3000:]
    for again in (second, third):
        assert "going on from a checkpoint" in again.log
    assert jobs.calls == [f"/v2/projects/a-project/locations/us-central1/jobs/{jobs.plan.quantize.name}:run"]
    (quantized,) = jobs.of("quantize")
    assert quantized.code == 0, quantized.log[-3000:]
    found = state(spec)
    assert (found["status"], found["attempts"], len(found["boots"])) == ("done", 4, 4)
    assert found["machine"]["run_job"] == jobs.plan.quantize.name
    published = {entry["kind"]: entry for entry in map(json.loads, _registry(spec)) if entry["status"] == "ready"}
    assert {"base", "dataset", "dora", "merged", "qdora"} == set(published)
    record = storage.read_json(f"{spec.buckets.models}/{published['dora']['name']}/record.json")
    assert record is not None and record[0]["metrics"]["resumed_from_step"] >= 20, "what the second try had saved"
    assert published["qdora"]["id"] == stage_id(spec, "quantize"), "the id of the same work on a VM"


@pytest.mark.timeout(600)
def test_a_time_out_and_missing_rights_cost_a_try_each_and_no_work(world: Any) -> None:
    jobs, spec = world()
    jobs.refuse = 1
    jobs.timeout_s["train", 0] = 4
    jobs.run()
    first, second, third = jobs.of("train")
    assert first.code == 143 and second.code == 75 and third.code == 0, [(one.code, one.log[-800:]) for one in jobs.tries]
    assert "the next job cannot be started" in second.log and "Permission 'run.jobs.run' denied" in second.log
    assert "done already" in third.log and third.seconds < second.seconds
    assert state(spec)["status"] == "done" and len(jobs.of("quantize")) == 1
    # A try that comes late, after the second job has begun, starts nothing.
    calls = list(jobs.calls)
    assert jobs.execute(jobs.plan.train) and jobs.calls == calls
    assert jobs.tries[-1].seconds < 30 and "done" in state(spec)["status"]


@pytest.mark.timeout(600)
def test_a_refusal_is_final_and_the_platforms_further_tries_end_at_once(world: Any) -> None:
    jobs, spec = world(merge={"max_mean_kl": 1e-12, "min_top1_agreement": 1.0})
    jobs.run()
    first, *rest = jobs.of("train")
    found = state(spec)
    assert found["status"] == "failed" and "merge refused to go on (exit code 1)" in found["reason"], found
    assert first.code == 1 and {one.code for one in rest} == {1} and len(rest) == 4, "not hidden as a success"
    assert all("begins" not in one.log and '"train"' not in one.log for one in rest), "no stage was run again"
    assert sum(one.seconds for one in rest) / 4 < first.seconds and not jobs.calls and not jobs.of("quantize")
    assert told.retry(spec.buckets, found["job_id"])["retries"] == 1


def _registry(spec: Spec) -> list[str]:
    folder = f"{spec.buckets.models}/registry"
    return [found[0].decode() for stored in storage.listing(folder) if (found := storage.read(f"{folder}/{stored.path}"))]
