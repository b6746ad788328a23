"""What a VM does next: pure functions over plain data.

A job's state outlives its VMs in ``state.json``. Two rules keep money from leaking: every boot with the intent to work counts as an attempt, preempted ones too
(a spot VM can be taken within a minute of its boot, again and again), and a deadline runs from the first attempt's start, whoever was working meanwhile.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from runners import pipeline

#: A training job in one of these states is over: a VM that finds it stops at once.
OVER = ("done", "failed", "deadline")
#: Exit codes of a runner that a second try would only repeat: a refused spec, a failed gate (1), a benchmark that can't be measured or a wrong option (2).
FINAL_EXIT_CODES = (1, 2)
#: A bucket that does not answer, a full disk (EX_TEMPFAIL): no fault of the job, so it is tried again without using up an attempt.
TEMPORARY_EXIT_CODE = 75
#: In a row; with the pauses of ``pause_s`` about an hour, if the deadline leaves that long.
_MOST_TROUBLES = 15
_KEPT_BOOTS = 20

Action = Literal["work", "next", "retry", "reboot", "leave", "stop"]


@dataclass(frozen=True)
class Limits:
    """Bounds of a job. ``deadline_minutes`` is None for a server, which ends by idling."""

    max_attempts: int
    deadline_minutes: int | None


@dataclass(frozen=True)
class Boot:
    """One VM's start with this job."""

    id: str
    instance: str
    zone: str
    started_at: str


@dataclass(frozen=True)
class Job:
    """What is known of a job across its VMs. Times are ISO 8601 in UTC."""

    job_id: str
    role: str
    status: str = "queued"
    reason: str = ""
    stage: str = ""
    attempts: int = 0
    first_started_at: str | None = None
    updated_at: str = ""
    boots: tuple[Boot, ...] = ()
    progress: dict[str, Any] = field(default_factory=dict)
    troubles: int = 0
    version: int = 1

    @staticmethod
    def from_json(values: dict[str, Any]) -> Job:
        """Read a state file; keys of a newer version are left aside."""
        known = {item.name for item in fields(Job)}
        kept = {key: value for key, value in values.items() if key in known}
        return Job(**{**kept, "boots": tuple(Boot(**boot) for boot in values.get("boots", ()))})

    def to_json(self) -> dict[str, Any]:
        """The state file's content."""
        return asdict(self)


@dataclass(frozen=True)
class Decision:
    """What to do, and the state to write before doing it."""

    action: Action
    job: Job


def at_boot(job: Job, boot: Boot, limits: Limits, now: datetime) -> Decision:
    """Work (and count an attempt), or stop at once because the job is over, past its deadline or out of attempts."""
    if job.status in OVER:
        return Decision("stop", job)
    if job.boots and job.boots[-1].id == boot.id:
        return Decision("work", job)  # the startup script ran twice in one boot
    if job.status == "idle":
        job = replace(job, attempts=0, first_started_at=None)  # a server that stopped itself was asked for again
    if past_deadline(job, limits, now):
        return Decision("stop", _end(job, "deadline", _deadline_text(job, limits), now))
    if job.attempts >= limits.max_attempts:
        return Decision("stop", _end(job, "failed", f"attempts used up ({job.attempts} of {limits.max_attempts}); last: {job.reason or job.status}", now))
    # Another instance has an empty disk: stages whose results are published end in seconds, what was only on the old disk is made again.
    stage = job.stage if job.boots and job.boots[-1].instance == boot.instance else ""
    boots = (*job.boots, boot)[-_KEPT_BOOTS:]
    started = job.first_started_at or boot.started_at
    return Decision(
        "work", replace(job, status="starting", reason="", stage=stage, attempts=job.attempts + 1, first_started_at=started, boots=boots, updated_at=_iso(now))
    )


def after_stage(job: Job, stage: str, exit_code: int, interruption: str, limits: Limits, now: datetime) -> Decision:
    """What follows a container's end: the next stage, another try, the end, or (when it was stopped from outside) nothing."""
    if interruption:
        return Decision("leave", replace(job, status=interruption, reason=f"{stage} was stopped: {interruption}", updated_at=_iso(now)))
    if exit_code == 0:
        stages = pipeline.stages_of(job.role)
        following = stages[stages.index(stage) + 1 :]
        if following:
            return Decision("next", replace(job, stage=following[0], progress={}, troubles=0, updated_at=_iso(now)))
        return Decision("stop", _end(job, "done", f"{stage} finished", now))
    if exit_code in FINAL_EXIT_CODES:
        return Decision("stop", _end(job, "failed", f"{stage} refused to go on (exit code {exit_code}); its last lines are in the logs", now))
    reason = f"{stage} ended with exit code {exit_code}{_signal(exit_code)}"
    if exit_code == TEMPORARY_EXIT_CODE and job.troubles < _MOST_TROUBLES and not past_deadline(job, limits, now):
        return Decision("retry", replace(job, status="retrying", reason=f"{reason} (temporary trouble)", troubles=job.troubles + 1, updated_at=_iso(now)))
    return _another_try(job, reason, limits, now, "retry")


def pause_s(job: Job) -> float:
    """Seconds before the next try: longer after each temporary trouble in a row."""
    return min(300.0, 5.0 * 2 ** min(job.troubles, 10))


def after_unit_failure(job: Job, unit: str, interruption: str, limits: Limits, now: datetime) -> Decision:
    """What follows a unit that systemd gave up on: a fresh boot while attempts are left (counted there), else the end."""
    if interruption or job.status in OVER:
        return Decision("leave", job)
    if past_deadline(job, limits, now):
        return Decision("stop", _end(job, "deadline", _deadline_text(job, limits), now))
    reason = f"unit {unit} failed"
    if job.attempts >= limits.max_attempts:
        return Decision("stop", _end(job, "failed", f"attempts used up ({job.attempts} of {limits.max_attempts}); last: {reason}", now))
    return Decision("reboot", replace(job, status="retrying", reason=reason, updated_at=_iso(now)))


def at_deadline(job: Job, limits: Limits, now: datetime) -> Decision:
    """Stop when the deadline has passed and the job is not over yet."""
    if job.status in OVER or not past_deadline(job, limits, now):
        return Decision("leave", job)
    return Decision("stop", _end(job, "deadline", _deadline_text(job, limits), now))


def when_ready(job: Job, now: datetime) -> Job:
    """A server that answers: the attempts behind it are forgotten, so that a preemption a week later has its own."""
    return replace(job, status="ready", reason="", attempts=0, updated_at=_iso(now))


def when_idle(job: Job, minutes: float, now: datetime) -> Job:
    """A server that nobody used."""
    return _end(job, "idle", f"no request for {minutes:.0f} minutes", now)


def past_deadline(job: Job, limits: Limits, now: datetime) -> bool:
    """Whether the time since the first attempt's start is used up."""
    end = deadline(job, limits)
    return end is not None and now >= end


def deadline(job: Job, limits: Limits) -> datetime | None:
    """When the job must be over, or None."""
    if limits.deadline_minutes is None or job.first_started_at is None:
        return None
    return datetime.fromisoformat(job.first_started_at) + timedelta(minutes=limits.deadline_minutes)


@dataclass(frozen=True)
class Activity:
    """What has been seen of a server's use. ``answered`` is vLLM's counter, ``probes`` how many of those requests were ours."""

    answered: float
    probes: int
    last_used_s: float


def observe(before: Activity, answered: float, in_flight: float, probes: int, now_s: float) -> Activity:
    """Account for one reading of the counters. A counter that fell belongs to a restarted server: a new start, not a use."""
    restarted = answered < before.answered
    used = in_flight > 0 or (not restarted and answered - before.answered > probes - before.probes)
    return Activity(answered, probes, now_s if used else before.last_used_s)


def idle_for_s(activity: Activity, now_s: float) -> float:
    """Seconds since the server was last used."""
    return now_s - activity.last_used_s


def _another_try(job: Job, reason: str, limits: Limits, now: datetime, action: Action) -> Decision:
    if past_deadline(job, limits, now):
        return Decision("stop", _end(job, "deadline", f"{reason}; {_deadline_text(job, limits)}", now))
    if job.attempts >= limits.max_attempts:
        return Decision("stop", _end(job, "failed", f"attempts used up ({job.attempts} of {limits.max_attempts}); last: {reason}", now))
    return Decision(action, replace(job, status="retrying", reason=reason, attempts=job.attempts + 1, progress={}, updated_at=_iso(now)))


def _end(job: Job, status: str, reason: str, now: datetime) -> Job:
    return replace(job, status=status, reason=reason, updated_at=_iso(now))


def _deadline_text(job: Job, limits: Limits) -> str:
    return f"deadline of {limits.deadline_minutes} minutes after the first start at {job.first_started_at}"


def _signal(exit_code: int) -> str:
    return {137: " (killed, perhaps out of memory)", 139: " (segmentation fault)", 143: " (terminated)"}.get(exit_code, "")


def _iso(now: datetime) -> str:
    return now.astimezone(UTC).isoformat(timespec="milliseconds")
