"""The tasks of a training job on Cloud Run: what the VM's agent is on a VM.

A try of a task reads the job's state, does the stages of its container that are not done, and writes down how it ended: the same state object, rules and
exit codes as on a VM (runners/vm/decide.py). The platform tries a failed task again; a job that is over ends such a try at its first step.
While a stage runs, the state and the end of its log are written twice a minute, and a stage at work at the job's deadline is ended.
A stage is a process of its own, so its memory is free before the next, and on Cloud Run that memory is the disk too.

Set by infra: ELSON_JOB, ELSON_TASK ("train merge", or "quantize"), ELSON_NEXT (the job to start afterwards), ELSON_PROJECT, ELSON_REGION. By the platform:
CLOUD_RUN_JOB, CLOUD_RUN_EXECUTION, CLOUD_RUN_TASK_ATTEMPT.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

from runners import log
from runners.artifacts import layout, storage
from runners.artifacts.record import now
from runners.errors import UserError
from runners.processes import bound
from runners.spec import Spec
from runners.vm import decide
from runners.vm.decide import Boot, Decision, Job, Limits

_STATE_S = 30.0
#: Seconds that a stage has to save at the deadline.
GRACE_S = 10.0
#: Kept of a try's log: the end, where the reason is.
_KEPT_LINES = 20_000
_RUN = "https://run.googleapis.com"


@dataclass(frozen=True)
class Task:
    """One try of a task, as the environment describes it."""

    job_id: str
    stages: tuple[str, ...]
    following: str
    run_job: str
    execution: str
    attempt: int
    project: str
    region: str

    @staticmethod
    def from_environment(values: Mapping[str, str]) -> Task:
        """Raises UserError naming the variables that are missing."""
        wanted = ("ELSON_JOB", "ELSON_TASK", "CLOUD_RUN_JOB", "CLOUD_RUN_EXECUTION", "CLOUD_RUN_TASK_ATTEMPT")
        if missing := [name for name in wanted if not values.get(name)]:
            raise UserError(f"{', '.join(missing)} are not set", "the environment of a task of Cloud Run", "pulumi up -s train-run starts it there")
        return Task(
            values["ELSON_JOB"],
            tuple(values["ELSON_TASK"].split()),
            values.get("ELSON_NEXT", ""),
            values["CLOUD_RUN_JOB"],
            values["CLOUD_RUN_EXECUTION"],
            int(values["CLOUD_RUN_TASK_ATTEMPT"]),
            values.get("ELSON_PROJECT", ""),
            values.get("ELSON_REGION", ""),
        )

    @property
    def boot(self) -> Boot:
        """This try, in the words of a VM's state: each has its own file system."""
        return Boot(f"{self.attempt}-{self.execution}", self.execution, self.region, now())


def run_task(spec: Spec, spec_uri: str, folder: Path, task: Task) -> int:
    """Do one try of a task; returns its exit code: 0 done, 1 over without a result, 143 ended from outside, else a failure that another try may get past."""
    state, stopped = JobState(spec, spec_uri, task), threading.Event()
    running: list[subprocess.Popen[str]] = []

    def terminate(_signal: int, _frame: FrameType | None) -> None:
        # Ten seconds are left. The stage saves what it can; checkpoints left for the bucket long before.
        stopped.set()
        for child in running:
            child.terminate()

    signal.signal(signal.SIGTERM, terminate)
    if other := state.elsewhere():
        log.error("this try ends: its job is at work on another machine", machine=other, fix="elson down the stack of one of the two")
        return 1
    decision = state.settle(lambda job: _begin(job, task, state.limits))
    if decision.action == "stop":
        return 0 if decision.job.status == "done" else 1
    for stage in task.stages:
        state.settle(lambda job, stage=stage: Decision("work", replace(job, status="running", stage=stage, updated_at=now())))
        code = _run_stage(stage, spec_uri, folder, state, running) if not stopped.is_set() else 143
        decision = state.settle(lambda job, stage=stage, code=code: _ended(job, task, stage, code, "terminated" if stopped.is_set() else "", state.limits))
        if decision.action == "leave":
            return 143
        if decision.action == "stop":
            return 0 if decision.job.status == "done" else 1
        if decision.action == "reboot":
            return code if 0 < code < 256 else 1
    return _start_following(task, state)


class JobState:
    """The job's state object in the bucket."""

    def __init__(self, spec: Spec, spec_uri: str, task: Task) -> None:
        machine = spec.machine
        if machine is None:
            raise UserError("the spec has no machine", "the spec of a stack that trains", "pulumi up -s train-run")
        folder = layout.job(spec.buckets, task.job_id)
        self._uri, self._spec_uri = f"{folder}/state.json", spec_uri
        self._task, self._boot, self._began_s = task, task.boot, time.monotonic()
        self._log_uri, self._log_generation = f"{folder}/logs/{self._boot.instance}-{self._boot.id.replace('-', '')[:8]}.log", 0
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        # Each of the two jobs begins once without anything having gone wrong.
        self.limits = Limits(machine.max_attempts + 1, machine.deadline_minutes)

    def elsewhere(self) -> str:
        """The group whose VM runs this job now, or an empty text."""
        found = storage.read(self._uri)
        try:
            return decide.elsewhere(json.loads(found[0]) if found else {}, "run_job", _now())
        except (ValueError, RecursionError):
            return ""

    def settle(self, decision_of: Any) -> Decision:
        """Decide on the state in the bucket and write what follows, as one compare-and-swap."""
        decided: list[Decision] = []

        def change(values: dict[str, Any] | None) -> dict[str, Any]:
            try:
                job = decide.live(Job.from_json(values) if values else Job(self._task.job_id, "train"), self._boot.id, time.monotonic() - self._began_s)
                decided[:] = [decision_of(job)]
            except ValueError as error:
                decided[:] = [Decision("stop", decide.unreadable(self._task.job_id, "train", str(error), _now()))]
            where = {"project": self._task.project, "region": self._task.region, "run_job": self._task.run_job, "execution": self._task.execution}
            left_s = decide.left_s(decided[0].job, self.limits)
            more = {"machine": where, "spec_uri": self._spec_uri, "max_attempts": self.limits.max_attempts}
            more["minutes_left"] = None if left_s is None else round(left_s / 60, 1)
            return {**(values if isinstance(values, dict) else {}), **asdict(decided[0].job), **more}

        storage.update_json(self._uri, change)
        decision = decided[0]
        if decision.action != "leave" or decision.job.status == "terminated":
            log.event("decided", action=decision.action, status=decision.job.status, reason=decision.job.reason, attempts=decision.job.attempts)
        return decision

    def pulse(self, progress: dict[str, Any]) -> bool:
        """Show that this try is at work and how far it is; whether the job is over. A bucket that does not answer now is asked again later."""

        def look(job: Job) -> Decision:
            decision = decide.at_deadline(job, self.limits, _now())
            return decision if decision.action == "stop" else Decision("leave", replace(job, progress=progress or job.progress, updated_at=now()))

        try:
            decision = self.settle(look)
            self.keep_log()
        except (OSError, UserError) as error:
            log.warning("state not written", problem=str(error)[:200])
            return False
        return decision.action == "stop"

    def heard(self, line: str) -> None:
        """Pass a line of a stage on to the platform's log, and remember it."""
        sys.stderr.write(line)
        sys.stderr.flush()
        self._lines.append(line)

    def keep_log(self) -> None:
        """Write this try's log beside the job's state, where `elson status JOB --log` reads it. Raises OSError and UserError."""
        self._log_generation = storage.write(self._log_uri, "".join(list(self._lines)), generation=self._log_generation)


def _begin(job: Job, task: Task, limits: Limits) -> Decision:
    decision = decide.at_boot(job, task.boot, limits, _now())
    if decision.action == "work" and job.status == "terminated":
        return replace(decision, job=replace(decision.job, reason=f"goes on after: {job.reason}"))
    return decision


def _ended(job: Job, task: Task, stage: str, code: int, interruption: str, limits: Limits) -> Decision:
    if job.status in decide.OVER:
        return Decision("stop", job)
    if interruption or code in (0, *decide.FINAL_EXIT_CODES):
        return decide.after_stage(job, stage, code, interruption, limits, _now())
    return decide.after_unit_failure(job, f"{stage} (exit code {code})", "", limits, _now())


def _run_stage(stage: str, spec_uri: str, folder: Path, state: JobState, running: list[subprocess.Popen[str]]) -> int:
    """A stage as a process. Beside it the state is written twice a minute; at the job's deadline the stage has a moment to save."""
    latest: dict[str, Any] = {}
    ended = threading.Event()

    def beside() -> None:
        while not ended.wait(_STATE_S):
            if state.pulse(dict(latest)):
                child.terminate()
                if not ended.wait(GRACE_S):
                    child.kill()
                return

    with subprocess.Popen(bound(_command(stage, spec_uri, folder)), stderr=subprocess.PIPE, text=True, errors="replace") as child:
        running[:] = [child]
        pulses = threading.Thread(target=beside)
        pulses.start()
        for line in child.stderr or ():
            state.heard(line)
            if found := log.read_progress(line):
                latest.update({"stage": stage, **found})
        child.wait()
        ended.set()
        pulses.join()
    running.clear()
    try:
        state.keep_log()
    except (OSError, UserError) as error:
        log.warning("log not kept in the bucket", problem=str(error)[:200])
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def _command(stage: str, spec_uri: str, folder: Path) -> list[str]:
    return [sys.executable, "-m", "runners", stage, "--spec", spec_uri, "--work", str(folder)]


def _start_following(task: Task, state: JobState) -> int:
    """Start the next job, unless a try before this one did. It finds its inputs in the bucket, and ends at once when its artifact is there."""
    if not task.following:
        return 0
    name = task.following.rsplit("/", 1)[-1]
    begun = state.settle(lambda job: Decision("leave", job)).job.boots
    last = next((index for index, boot in reversed(list(enumerate(begun))) if boot.instance.startswith(name)), -1)
    first = next((index for index, boot in enumerate(begun) if boot.instance == task.execution), len(begun))
    if last > first:
        log.event("the next job has begun already", job=name)
        return 0
    import google.auth
    from google.auth.transport.requests import AuthorizedSession

    credentials, _ = google.auth.default(scopes=["https://www.googleapis.com/auth/cloud-platform"])
    session = AuthorizedSession(credentials)
    answer = session.post(f"{os.environ.get('CLOUDSDK_API_ENDPOINT_OVERRIDES_RUN', _RUN).rstrip('/')}/v2/{task.following}:run", json={}, timeout=60)
    if answer.status_code != 200:
        log.error("the next job cannot be started", job=name, status_code=answer.status_code, answer=answer.text[:400])
        return 75  # another try, a minute later, may be allowed: grants take a while to be known everywhere
    log.event("the next job is started", job=name)
    return 0


def _now() -> datetime:
    return datetime.now(UTC)
