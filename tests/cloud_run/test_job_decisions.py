"""A task's decisions, without a stage: every way a try can begin and end."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.run_plan import plan_training
from runners.artifacts import layout, storage
from runners.artifacts.record import now
from runners.cloud import jobs as told
from runners.cloud_run import job
from runners.errors import UserError
from runners.planning.stacks import ResolvedStack, load
from runners.spec import BucketSpec, Spec, parse
from runners.vm.decide import OVER, Job

ENVIRONMENT = {
    "ELSON_JOB": "qdora-0123456789abcdef",
    "ELSON_TASK": "train merge",
    "ELSON_PROJECT": "a-project",
    "ELSON_REGION": "us-central1",
    "CLOUD_RUN_JOB": "elson-train-01234567",
    "CLOUD_RUN_EXECUTION": "elson-train-01234567-r1",
    "CLOUD_RUN_TASK_ATTEMPT": "0",
}


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def spec(buckets: BucketSpec) -> Spec:
    values = load("train-run").spec.model_dump(mode="json")
    return parse({**values, "buckets": buckets.model_dump()})


def attempt(spec: Spec, monkeypatch: pytest.MonkeyPatch, codes: dict[str, int], number: int = 0, **environment: str) -> tuple[int, list[str]]:
    """One try whose stages end with the given codes: (its exit code, the stages it ran)."""
    ran: list[str] = []

    def stage(name: str, *_: Any) -> int:
        ran.append(name)
        return codes.get(name, 0)

    monkeypatch.setattr(job, "_run_stage", stage)
    task = job.Task.from_environment({**ENVIRONMENT, "CLOUD_RUN_TASK_ATTEMPT": str(number), **environment})
    return job.run_task(spec, "gs://scratch/specs/x.json", Path("unused"), task), ran


def status(spec: Spec) -> dict[str, Any]:
    return told.state(spec.buckets, ENVIRONMENT["ELSON_JOB"])


def test_a_crash_is_tried_again_until_the_attempts_are_used_up(spec: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    assert spec.machine is not None
    for number in range(spec.machine.max_attempts):
        assert attempt(spec, monkeypatch, {"train": 137}, number) == (137, ["train"])
        assert status(spec)["status"] == "retrying" and status(spec)["attempts"] == number + 1
    assert attempt(spec, monkeypatch, {"train": 137}, 5) == (1, ["train"]), "the last one is the end, and says so"
    assert status(spec)["status"] == "failed" and "attempts used up (6 of 6)" in status(spec)["reason"]
    assert attempt(spec, monkeypatch, {}, 6) == (1, []), "a job that is over begins no stage"


@pytest.mark.parametrize("code", [1, 2])
def test_a_refusal_ends_the_job(spec: Spec, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    assert attempt(spec, monkeypatch, {"merge": code}) == (1, ["train", "merge"])
    assert status(spec)["status"] in OVER and attempt(spec, monkeypatch, {}, 1) == (1, [])


def test_past_the_deadline_nothing_begins(spec: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    assert attempt(spec, monkeypatch, {"train": 137})[0] == 137
    storage.update_json(f"{layout.job(spec.buckets, ENVIRONMENT['ELSON_JOB'])}/state.json", lambda old: {**(old or {}), "earlier_s": 9 * 3600.0})
    assert attempt(spec, monkeypatch, {}, 1) == (1, [])
    assert status(spec)["status"] == "deadline"
    assert told.retry(spec.buckets, ENVIRONMENT["ELSON_JOB"])["status"] == "queued"
    assert attempt(spec, monkeypatch, {}, 0, CLOUD_RUN_EXECUTION="elson-train-01234567-r2") == (0, ["train", "merge"]), "begun again by a person"
    assert status(spec)["retries"] == 1, "which gives the next execution another name"


def test_a_try_that_comes_while_a_vm_is_at_work_on_its_job_ends_and_changes_nothing(spec: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"{layout.job(spec.buckets, ENVIRONMENT['ELSON_JOB'])}/state.json"
    before = Job(ENVIRONMENT["ELSON_JOB"], "train", status="running", stage="train", attempts=1, updated_at=now()).to_json()
    storage.write_json(uri, {**before, "machine": {"group": "elson-train-01234567"}}, generation=0)
    content = storage.read(uri)
    assert attempt(spec, monkeypatch, {}) == (1, []) and storage.read(uri) == content
    storage.update_json(uri, lambda old: {**(old or {}), "updated_at": "2026-03-01T00:00:00+00:00"})
    assert attempt(spec, monkeypatch, {}, 1) == (0, ["train", "merge"]), "silent: it goes on where that one ended"


def test_quantizing_ends_the_job_and_a_late_try_finds_it_done(spec: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    assert attempt(spec, monkeypatch, {}) == (0, ["train", "merge"])
    assert status(spec)["status"] == "running" and status(spec)["stage"] == "quantize"
    second = {"ELSON_TASK": "quantize", "CLOUD_RUN_JOB": "elson-quantize-01234567", "CLOUD_RUN_EXECUTION": "elson-quantize-01234567-x"}
    assert attempt(spec, monkeypatch, {}, 0, **second) == (0, ["quantize"])
    assert status(spec)["status"] == "done" and attempt(spec, monkeypatch, {}, 1, **second) == (0, [])


def test_sigterm_between_two_stages_ends_the_try_before_the_next(spec: Spec, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stage(name: str, *_: Any) -> int:
        signal.raise_signal(signal.SIGTERM)
        return 0 if name == "train" else pytest.fail("merge was begun")

    monkeypatch.setattr(job, "_run_stage", stage)
    assert job.run_task(spec, "gs://x", Path("unused"), job.Task.from_environment(ENVIRONMENT)) == 143
    assert status(spec)["status"] == "terminated" and status(spec)["status"] not in OVER
    assert '"status": "terminated"' in capsys.readouterr().err, "the log says why the try ends"


def at_work(spec: Spec, monkeypatch: pytest.MonkeyPatch, program: str) -> int:
    """One try whose stages are this program, with a state that is written every tenth of a second."""
    monkeypatch.setattr(job, "_STATE_S", 0.1)
    monkeypatch.setattr(job, "GRACE_S", 0.5)
    monkeypatch.setattr(job, "_command", lambda *_: [sys.executable, "-c", program])
    return job.run_task(spec, layout.spec(spec.buckets, "0" * 16), Path("unused"), job.Task.from_environment(ENVIRONMENT))


@pytest.mark.parametrize("ignores", ["", "signal.signal(signal.SIGTERM, signal.SIG_IGN); "])
def test_a_stage_that_hangs_ends_at_the_jobs_deadline_and_not_at_the_platforms(ignores: str, spec: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage that says nothing is no reason to count nothing: five tries of an hour each would follow."""
    uri = f"{layout.job(spec.buckets, ENVIRONMENT['ELSON_JOB'])}/state.json"
    monkeypatch.setattr(job.JobState, "pulse", late(uri, job.JobState.pulse))
    begun = time.monotonic()
    assert at_work(spec, monkeypatch, f"import signal, time; {ignores}time.sleep(60)") == 1
    assert time.monotonic() - begun < 20 and status(spec)["status"] == "deadline" and status(spec)["stage"] == "train"


def late(uri: str, pulse: Any) -> Any:
    """The third look comes when the job has lived for nine hours."""
    looks: list[float] = []

    def look(state: job.JobState, progress: dict[str, Any]) -> Any:
        looks.append(0)
        if len(looks) == 3:
            storage.update_json(uri, lambda old: {**(old or {}), "earlier_s": 9 * 3600.0})
        return pulse(state, progress)

    return look


def test_a_silent_stage_is_shown_to_be_at_work_and_its_log_is_kept(spec: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, float]] = []
    pulse = job.JobState.pulse

    def look(state: job.JobState, progress: dict[str, Any]) -> Any:
        over = pulse(state, progress)
        seen.append((status(spec)["updated_at"], status(spec)["boots"][-1]["lived_s"]))
        return over

    monkeypatch.setattr(job.JobState, "pulse", look)
    assert at_work(spec, monkeypatch, "import sys, time; print('reading', file=sys.stderr, flush=True); time.sleep(0.8)") == 0
    assert len(seen) > 3 and seen[0] < seen[-1], "written though nothing was said"
    assert told.last_log(spec.buckets, ENVIRONMENT["ELSON_JOB"], 5) == ["reading", "reading"], "both stages of this container"
    assert status(spec)["spec_uri"] == layout.spec(spec.buckets, "0" * 16)


def test_the_log_of_the_newest_try_is_shown_and_a_bucket_that_is_away_ends_no_stage(spec: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    at_work(spec, monkeypatch, "import sys; print('first', file=sys.stderr); sys.exit(137)")
    monkeypatch.setitem(ENVIRONMENT, "CLOUD_RUN_TASK_ATTEMPT", "1")

    def away(*_: Any, **__: Any) -> int:
        raise OSError("no route")

    with monkeypatch.context() as patch:
        patch.setattr(job.storage, "write", away)
        assert at_work(spec, patch, "import time; time.sleep(0.5)") == 0
    monkeypatch.setitem(ENVIRONMENT, "CLOUD_RUN_TASK_ATTEMPT", "2")
    assert at_work(spec, monkeypatch, "import sys; print('third', file=sys.stderr)") == 0
    assert told.last_log(spec.buckets, ENVIRONMENT["ELSON_JOB"], 5) == ["third", "third"]


def test_a_machine_that_is_no_task_of_cloud_run_is_told(spec: Spec) -> None:
    with pytest.raises(UserError, match="CLOUD_RUN_EXECUTION"):
        job.Task.from_environment({name: value for name, value in ENVIRONMENT.items() if name != "CLOUD_RUN_EXECUTION"})


def test_each_beginning_of_a_job_has_a_token_of_its_own_and_an_ended_one_has_none(spec: Spec) -> None:
    def tokens(**found: Any) -> Any:
        plan = plan_training("train-run", "a-project", ResolvedStack(spec, "qdora-0123456789abcdef", **found))
        return plan and (plan.train.start_token, plan.quantize.start_token)

    first, again = tokens(), tokens(retries=1)
    assert first[0] and again[0] and first[0] != again[0] and tokens() == first
    assert first[1] is None, "the first job starts the second"
    assert tokens(over="failed: a gate") == (None, None)
    plan = plan_training("train-run", "a-project", ResolvedStack(spec, "qdora-0123456789abcdef"))
    assert plan and len(plan.train.name) + 1 + len(first[0]) < 63
    assert plan.train.timeout_s == 3600 and plan.train.retries == 4
