"""``elson status`` and ``elson retry`` of a training on Cloud Run, over a real bucket and executions that change."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner

from runners.artifacts import layout, storage
from runners.cloud import executions, follow, jobs
from runners.commands import places
from runners.commands.cli import cli
from runners.errors import UserError
from runners.fields import PriceSpec
from runners.identity import stage_id
from runners.spec import BaseModelSpec, BucketSpec, CodeDigests, DatasetSpec, MachineSpec, Spec
from runners.vm.decide import Boot, Job
from tests.infra.executions import RunPlatform, platform
from tests.vm.test_jobs import Session

SPEC = Spec(
    base_model=BaseModelSpec(id="base-1"),
    dataset=DatasetSpec(id="data-1"),
    code=CodeDigests(train="a", merge="b", quantize="c"),
    machine=MachineSpec(machine_type="run-rtx6000-20", provisioning_model="RUN", price=PriceSpec(usd_per_hour=3.0, priced_at="2026-11-22")),
)
JOB = stage_id(SPEC, "quantize")
TRAIN, QUANTIZE = executions.job_names(JOB)
BOOT = Boot("0-elson-train", "elson-train-01234567-r1", "us-central1", "2026-03-01T00:00:00+00:00", lived_s=600.0)


@pytest.fixture
def cloud_run(monkeypatch: pytest.MonkeyPatch) -> RunPlatform:
    """A platform without an execution yet."""
    made = platform(lambda _place, minute: "" if minute > 5 else "no card", reports=False, timeout_minutes=10, most_tries=2)
    made.executions.clear()
    monkeypatch.setattr(jobs, "_session", lambda: Session(made))
    monkeypatch.setattr(places, "must_belong", lambda *_: None)
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "p")
    return made


def put(buckets: BucketSpec, status: str = "running", **changes: Any) -> dict[str, Any]:
    """What a task writes."""
    machine = {"project": "p", "region": "us-central1", "run_job": TRAIN, "execution": "x", **changes}
    spec_uri = layout.spec(buckets, "0123456789abcdef")
    job = Job(JOB, "train", status=status, stage="train", attempts=1, earlier_s=600.0, boots=(BOOT,), updated_at="2026-03-01T00:10:00+00:00")
    state = {**job.to_json(), "machine": machine, "spec_uri": changes.get("spec_uri", spec_uri), "max_attempts": 6, "minutes_left": 130.0}
    storage.update_json(f"{layout.job(buckets, JOB)}/state.json", lambda _: state)
    return state


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch, buckets: BucketSpec) -> None:
    """The spec of the state, whose name is its digest."""
    from runners.outside import digest

    values = SPEC.model_copy(update={"buckets": buckets}).model_dump(mode="json")
    name = layout.spec(buckets, digest(values))
    storage.write_json(name, values, generation=0)
    monkeypatch.setattr(
        "tests.cloud_run.test_status.layout.spec", lambda given, key: name if key == "0123456789abcdef" else f"{given.scratch}/specs/{key}.json"
    )


def shown(buckets: BucketSpec, *words: str) -> str:
    asked = [*words, "--models-bucket", buckets.models, "--scratch-bucket", buckets.scratch]
    return str(CliRunner().invoke(cli, asked, catch_exceptions=False, standalone_mode=False).output)


def test_each_phase_of_an_execution_is_shown(cloud_run: RunPlatform, buckets: BucketSpec, named: None) -> None:
    put(buckets)
    storage.write(f"{layout.job(buckets, JOB)}/logs/{BOOT.instance}-0elsontr.log", "step 1\nstep 2\n", generation=0)
    assert "execution none" in shown(buckets, "status", JOB)
    one = cloud_run.begin(TRAIN)
    said = shown(buckets, "status", JOB, "--log", "1")
    assert f"execution {TRAIN}-00000 waiting for a card" in said and said.endswith("step 2\n") and "step 1" not in said
    assert "about $1.00: 20 minutes at $3.00 an hour, prices of 2026-11-22" in said
    assert "130 more minutes of a task" in said and "group" not in said
    phases = []
    while one.ended is None:
        cloud_run.step()
        phases.append(jobs.machine(jobs.where(buckets, JOB, put(buckets), "p"))["executions"][-1]["phase"])
    assert list(dict.fromkeys(phases)) == ["waiting for a card", "running", "between two tries", "failed"]
    said = shown(buckets, "status", JOB)
    assert "failed, tried again: The configured time-out was reached." in said
    following = cloud_run.begin(QUANTIZE)
    found = jobs.machine(jobs.where(buckets, JOB, put(buckets, run_job=QUANTIZE), "p"))
    assert [row["name"].rpartition("-")[0] for row in found["executions"]] == [TRAIN, QUANTIZE] and found["size"] == 1
    following.cancel_at = 0
    cloud_run.step()
    assert "cancelled" in shown(buckets, "status", JOB)


def test_a_bucket_or_an_api_that_says_nothing_hides_no_state(cloud_run: RunPlatform, buckets: BucketSpec, named: None) -> None:
    put(buckets)
    cloud_run.is_away = lambda _region, _minute: True
    said = shown(buckets, "status", JOB)
    assert "Cloud Run cannot be asked: Cloud Run answers 503" in said and "status    running" in said
    put(buckets, spec_uri=f"{buckets.scratch}/specs/{'9' * 16}.json")
    assert "there is no spec" in shown(buckets, "status", JOB) and "cost" not in shown(buckets, "status", JOB)


def test_only_the_newest_executions_of_many_are_shown(cloud_run: RunPlatform, buckets: BucketSpec, named: None) -> None:
    for minute in range(7):
        cloud_run.minute = minute
        cloud_run.begin(TRAIN)
    found = jobs.machine(jobs.where(buckets, JOB, put(buckets), "p"))["executions"]
    assert [row["name"][-1] for row in found] == ["4", "5", "6"], "pages have two"


@pytest.mark.parametrize(
    "lie",
    [
        {"run_job": "elson-train-0123abcd"},
        {"run_job": f"{TRAIN}/../elson-train-0123abcd"},
        {"run_job": [TRAIN]},
        {"run_job": None},
        {"project": "another"},
        {"region": "europe-west4"},
    ],
    ids=str,
)
def test_a_state_that_names_another_job_is_not_followed(lie: dict[str, Any], cloud_run: RunPlatform, buckets: BucketSpec, named: None) -> None:
    with pytest.raises(UserError, match="names another"):
        jobs.where(buckets, JOB, put(buckets, **lie), "p")
    assert "not asked" in shown(buckets, "status", JOB) and not cloud_run.calls


def test_a_failed_job_begins_again_by_its_stack_and_never_beside_an_execution(cloud_run: RunPlatform, buckets: BucketSpec, named: None) -> None:
    one = cloud_run.begin(TRAIN)
    put(buckets, status="failed")
    memory = layout.watchdog(buckets, f"run-{jobs.group_name(JOB)}")
    storage.write_json(memory, {"groups": {}}, generation=0)
    with pytest.raises(UserError, match="has not ended"):
        shown(buckets, "retry", JOB)
    one.ended = 3.0
    CliRunner().invoke(cli, ["retry", JOB, "--models-bucket", buckets.models, "--scratch-bucket", buckets.scratch], catch_exceptions=False)
    assert jobs.state(buckets, JOB)["status"] == "queued" and storage.read(memory) is None, "the watchdog forgets it"
    assert not [call for call in cloud_run.calls if call.startswith("POST")], "`pulumi up` starts it"


def test_a_job_whose_execution_ended_without_a_word_may_begin_again(cloud_run: RunPlatform, buckets: BucketSpec, named: None) -> None:
    one = cloud_run.begin(TRAIN)
    put(buckets, status="running")
    with pytest.raises(UserError, match="has not ended"):
        jobs.retry(buckets, JOB, project="p")
    one.ended, one.outcome = 3.0, "cancelled"
    assert jobs.retry(buckets, JOB, project="p")["status"] == "queued"


def test_who_waits_for_a_training_is_told_what_it_waits_for(cloud_run: RunPlatform) -> None:
    cloud_run.begin(TRAIN)
    said: list[str] = []
    seen = follow._Seen(said.append)
    for _ in range(2):
        seen.waiting(jobs.machine({"project": "p", "region": "us-central1", "run_jobs": f"{TRAIN} {QUANTIZE}"}))
    assert said == [f"== no task has reported yet: {TRAIN}-00000 waiting for a card"]
