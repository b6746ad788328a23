"""The job's state in the bucket, the facts and the interruption on this VM, and the end of this VM."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from runners import log
from runners.artifacts import layout
from runners.vm import decide, logs
from runners.vm.cloud import Cloud, CloudError, guest_attribute
from runners.vm.containers import RUN
from runners.vm.decide import Decision, Job, Limits
from runners.vm.facts import Facts, limits

_INTERRUPTION, _ENDED = RUN / "interruption", RUN / "ended"
MARKS, PHASES = RUN / "marks", RUN / "phases.json"
#: Age that is written although nothing else changed: what tells the watchdog that this VM works, and what a lost VM's lifetime is short by at most.
_HEARTBEAT_S = 60
#: Rounds of asking the group to end this VM: about ten minutes of a Compute API in trouble, and one minute of one that says no.
_ROUNDS, _ROUNDS_WHEN_REFUSED = 16, 5


class Context:
    """Everything a unit of this VM works with."""

    def __init__(self, facts: Facts, spec: dict[str, Any]) -> None:
        self.facts, self.spec, self.cloud = facts, spec, Cloud()
        buckets: Any = SimpleNamespace(**spec["buckets"])
        self.folder = layout.job(buckets, facts.job_id)
        self.limits: Limits = limits(spec, facts.role, facts.replicas)

    @staticmethod
    def load() -> Context:
        """From what the check unit saved."""
        return Context(Facts.load(RUN / "facts.json"), json.loads((RUN / "spec.json").read_text()))

    @property
    def state_uri(self) -> str:
        """The job's state object."""
        return f"{self.folder}/state.json"

    def job(self) -> Job:
        """The state as the bucket has it; a new one when there is none, a failed one when it cannot be read. Raises CloudError."""
        return self._parse(self.cloud.read(self.state_uri)[0])[0]

    def elsewhere(self) -> str:
        """What runs this job on Cloud Run now, or an empty text. Raises CloudError."""
        try:
            return decide.elsewhere(json.loads(self.cloud.read(self.state_uri)[0] or b"{}"), "group", now())
        except (ValueError, RecursionError):
            return ""

    def settle(self, decision_of: Callable[[Job], Decision]) -> Decision:
        """Decide on the state in the bucket and write what follows, as one compare-and-swap. Raises CloudError.

        A state that cannot be read is replaced by one that says so, and the decision is to stop.
        """
        decided: list[tuple[Job, Decision]] = []

        def change(body: bytes | None) -> dict[str, Any] | None:
            found, is_readable = self._parse(body)
            job = decide.live(found, boot_id(), alive_s())
            decision = decision_of(job) if is_readable else Decision("stop", job)
            decided[:] = [(found, decision)]
            grown = decide.lived_s(decision.job) - decide.lived_s(found)
            return self._document(decision.job) if not is_readable or decision.job != job or grown >= _HEARTBEAT_S else None

        self.cloud.update(self.state_uri, change)
        before, decision = decided[0]
        (RUN / "job.json").write_text(json.dumps(decision.job.to_json()))
        if decision.action != "leave" or decision.job.status != before.status:
            self._tell(decision)
        return decision

    def _tell(self, decision: Decision) -> None:
        job = decision.job
        log.event("decided", action=decision.action, status=job.status, reason=job.reason, attempts=job.attempts)
        guest_attribute("state", json.dumps({"status": job.status, "stage": job.stage, "reason": job.reason, "attempts": job.attempts}))

    def _parse(self, body: bytes | None) -> tuple[Job, bool]:
        """The state, and whether it could be read."""
        if body is None:
            return Job(self.facts.job_id, self.facts.role), True
        try:
            job = Job.from_json(json.loads(body))
            if job.role != self.facts.role:
                raise ValueError(f"its role is {job.role}")
        except (ValueError, RecursionError) as error:
            return decide.unreadable(self.facts.job_id, self.facts.role, str(error), now()), False
        return job, True

    def _document(self, job: Job) -> dict[str, Any]:
        # What `elson status` needs to find the machine without a stack at hand.
        where = {"project": self.facts.project, "region": self.facts.region, "group": self.facts.group}
        left = decide.left_s(job, self.limits)
        return {
            **job.to_json(),
            # A state is written while a stage says nothing, too; the end of a job keeps its time.
            "updated_at": job.updated_at if job.status in decide.OVER else now().isoformat(timespec="milliseconds"),
            "machine": where,
            "spec_uri": self.facts.spec_uri,
            "max_attempts": self.limits.max_attempts,
            "minutes_left": None if left is None else round(left / 60, 1),
        }


def now() -> datetime:
    """The time in UTC."""
    return datetime.now(UTC)


def alive_s() -> float:
    """Seconds since this system started, by a clock that nobody can set."""
    started = int(Path("/proc/1/stat").read_text().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
    return round(float(Path("/proc/uptime").read_text().split()[0]) - started, 1)


def mark(name: str) -> None:
    """Note the system's age at a step of a server's start, once a boot."""
    MARKS.mkdir(exist_ok=True)
    with contextlib.suppress(FileExistsError), (MARKS / name).open("x") as file:
        file.write(str(alive_s()))


def marks() -> dict[str, float]:
    """What was noted in this boot (the folder is in memory)."""
    return {file.name: float(file.read_text() or "nan") for file in MARKS.iterdir()} if MARKS.exists() else {}


def boot_id() -> str:
    """The kernel's name for this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def interrupt(reason: str) -> None:
    """Note that containers end from now on because of us or the platform, and are no failures. A server is not ready any more."""
    (RUN / "health" / "ready").unlink(missing_ok=True)
    if not _INTERRUPTION.exists():
        _INTERRUPTION.write_text(reason)


def interruption() -> str:
    """Why containers are being stopped, or an empty text."""
    return _INTERRUPTION.read_text() if _INTERRUPTION.exists() else ""


def end(context: Context | None, facts: Facts) -> None:
    """Save the logs, then delete this VM through its group; once, whoever asks first.

    The group is emptied if the instance cannot be taken out of it. Of several servers, one that knows its job ends because that is over, and ends the group;
    one that could not learn it ends alone, and its group makes another. If nothing works for ten minutes, or all is refused for one, the VM is switched off:
    a running GPU is the worst way to wait, and the group makes another one, which the watchdog outside counts.
    """
    with _once() as first:
        if not first:
            return
        interrupt("ended")
        if context:
            with contextlib.suppress(Exception):  # no log is worth a VM that stays
                logs.upload(context.cloud, context.folder, facts)
        cloud = context.cloud if context else Cloud()
        ways = (cloud.delete_instance, cloud.empty_group) if facts.replicas == 1 else (cloud.empty_group,) if context else (cloud.delete_instance,)
        refusals = 0
        for attempt in range(1, _ROUNDS + 1):
            for remove in ways:
                try:
                    remove(facts)
                except CloudError as error:
                    refusals += error.code == 403
                    log.error("could not end this VM", how=remove.__name__, attempt=attempt, problem=str(error)[:500])
                else:
                    log.event("this VM is being deleted", how=remove.__name__)
                    _ENDED.touch()
                    return
            if refusals >= len(ways) * _ROUNDS_WHEN_REFUSED:
                break
            time.sleep(min(60, 5 * attempt))
        log.error(
            "switching off: the group could not be told to delete this VM",
            fix="grant the VM's account compute.instanceGroupManagers.update, or delete the group",
        )
        if context:
            with contextlib.suppress(CloudError):
                context.settle(lambda job: decide.not_ended(job, now()))
        subprocess.run(["systemctl", "poweroff"], check=False)


@contextlib.contextmanager
def _once() -> Iterator[bool]:
    """True for the first that comes, False for those after it; a crash of the first lets the next one try."""
    handle = os.open(RUN / "end.lock", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield not _ENDED.exists()
    finally:
        os.close(handle)
