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


class Context:
    """Everything a unit of this VM works with."""

    def __init__(self, facts: Facts, spec: dict[str, Any]) -> None:
        self.facts, self.spec, self.cloud = facts, spec, Cloud()
        buckets: Any = SimpleNamespace(**spec["buckets"])
        self.folder = layout.job(buckets, facts.job_id)
        self.limits: Limits = limits(spec, facts.role)

    @staticmethod
    def load() -> Context:
        """From what the check unit saved."""
        return Context(Facts.load(RUN / "facts.json"), json.loads((RUN / "spec.json").read_text()))

    @property
    def state_uri(self) -> str:
        """The job's state object."""
        return f"{self.folder}/state.json"

    def job(self) -> Job:
        """The state as the bucket has it; a new one when there is none. Raises CloudError."""
        body, _ = self.cloud.read(self.state_uri)
        return self._parse(json.loads(body) if body else None)

    def settle(self, decision_of: Callable[[Job], Decision]) -> Decision:
        """Decide on the state in the bucket and write what follows, as one compare-and-swap. Raises CloudError."""
        decided: list[Decision] = []

        def change(values: dict[str, Any] | None) -> dict[str, Any] | None:
            job = self._parse(values)
            decided[:] = [decision_of(job)]
            return None if decided[0].job == job else self._document(decided[0].job)

        self.cloud.update(self.state_uri, change)
        decision = decided[0]
        (RUN / "job.json").write_text(json.dumps(decision.job.to_json()))
        if decision.action == "leave":
            return decision
        log.event("decided", action=decision.action, status=decision.job.status, reason=decision.job.reason, attempts=decision.job.attempts)
        guest_attribute(
            "state", json.dumps({"status": decision.job.status, "stage": decision.job.stage, "reason": decision.job.reason, "attempts": decision.job.attempts})
        )
        return decision

    def _parse(self, values: dict[str, Any] | None) -> Job:
        return Job.from_json(values) if values else Job(self.facts.job_id, self.facts.role)

    def _document(self, job: Job) -> dict[str, Any]:
        # What `elson status` needs to find the machine without a stack at hand.
        where = {"project": self.facts.project, "region": self.facts.region, "group": self.facts.group}
        end = decide.deadline(job, self.limits)
        return {
            **job.to_json(),
            "machine": where,
            "spec_uri": self.facts.spec_uri,
            "max_attempts": self.limits.max_attempts,
            "deadline_at": end.isoformat() if end else None,
        }


def now() -> datetime:
    """The time in UTC."""
    return datetime.now(UTC)


def boot_id() -> str:
    """The kernel's name for this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def interrupt(reason: str) -> None:
    """Note that containers end from now on because of us or the platform, and are no failures."""
    if not _INTERRUPTION.exists():
        _INTERRUPTION.write_text(reason)


def interruption() -> str:
    """Why containers are being stopped, or an empty text."""
    return _INTERRUPTION.read_text() if _INTERRUPTION.exists() else ""


def end(context: Context | None, facts: Facts) -> None:
    """Save the logs, then delete this VM through its group; once, whoever asks first.

    The group is emptied if the instance cannot be taken out of it. If neither is granted for ten minutes, the VM is switched off:
    a running GPU is the worst way to wait.
    """
    with _once() as first:
        if not first:
            return
        interrupt("ended")
        if context:
            with contextlib.suppress(CloudError):
                logs.upload(context.cloud, context.folder, facts)
        cloud = context.cloud if context else Cloud()
        for attempt in range(1, 17):
            for remove in (cloud.delete_instance, cloud.empty_group):
                try:
                    remove(facts)
                except CloudError as error:
                    log.error("could not end this VM", how=remove.__name__, attempt=attempt, problem=str(error)[:500])
                else:
                    log.event("this VM is being deleted", how=remove.__name__)
                    _ENDED.touch()
                    return
            time.sleep(min(60, 5 * attempt))
        log.error(
            "switching off: the group could not be told to delete this VM",
            fix="grant the VM's account compute.instanceGroupManagers.update, or delete the group",
        )
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
