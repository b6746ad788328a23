"""What a VM does next: pure functions over plain data.

A job's state outlives its VMs in ``state.json``. Three rules keep money from leaking. Every boot with the intent to work counts as an attempt,
preempted ones too: a spot VM can be taken within a minute of its boot, again and again. The deadline counts the minutes that the job's VMs have lived,
so waiting for capacity, which is free, uses up nothing. A state that cannot be read ends the job, since nobody knows how many attempts are behind it.
Lifetimes are measured by each VM's own uptime: a wall clock that jumps changes nothing.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from typing import Any, Literal

from runners import pipeline

#: A job in one of these states is over: a VM that finds it stops at once.
OVER = ("done", "failed", "deadline")
#: A machine that has written a job's state so lately is at work on it: each writes about once a minute.
AT_WORK_MINUTES = 15
#: Minutes that a server must have been ready before the attempts behind it are forgotten: one that fails right after it is ready must not boot for ever.
STEADY_MINUTES = 30
#: A load balancer asks every 10 seconds, and sends nothing more after two answers that are not "ready".
BALANCER_S = 20
#: Of a platform's notice, what the gateway's and the server's own end are left.
LAST_S = 30
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
    lived_s: float = 0.0


@dataclass(frozen=True)
class Job:
    """What is known of a job across its VMs. Times are ISO 8601 in UTC. ``earlier_s`` is how long the VMs before the newest one lived,
    ``idle_s`` how long a server has been ready and unused, ``phases`` the seconds of its newest start, phase by phase, ``uses`` in how many looks a server
    had been used since its look before: of several servers, none is idle while this grows."""

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
    earlier_s: float = 0.0
    idle_s: float = 0.0
    phases: dict[str, Any] = field(default_factory=dict)
    uses: int = 0
    version: int = 1

    @staticmethod
    def from_json(values: Any) -> Job:
        """Read a state file; keys of a newer version are left aside. Raises ValueError for another shape."""
        kept = _fields_of(Job, values)
        boots = kept.get("boots") or ()
        if not isinstance(boots, list | tuple):
            raise ValueError(f"boots is {boots!r}")
        job = Job(**{**kept, "boots": tuple(Boot(**_fields_of(Boot, boot)) for boot in boots)})
        if job.stage not in ("", *pipeline.stages_of(job.role)):
            raise ValueError(f"{job.role} has no stage {job.stage[:80]!r}")
        return job

    def to_json(self) -> dict[str, Any]:
        """The state file's content."""
        return asdict(self)


#: No count and no time of a job is that large; a JSON number may have a thousand digits.
_TOO_LARGE = 1e15


def _fields_of(kind: type, values: Any) -> dict[str, Any]:
    """The known fields of a JSON object, each of its type. Raises ValueError."""
    if not isinstance(values, dict):
        raise ValueError(f"{str(values)[:80]!r} is no object")
    kinds: dict[str, Any] = {"str": str, "int": int, "float": (int, float), "str | None": (str, type(None)), "dict[str, Any]": dict}
    kept = {}
    for item in fields(kind):
        expected = kinds.get(str(item.type))
        if item.name not in values:
            continue
        value = values[item.name]
        number = isinstance(value, int | float)
        if expected and (not isinstance(value, expected) or isinstance(value, bool) or (number and not 0 <= value < _TOO_LARGE)):
            raise ValueError(f"{item.name} is {str(value)[:80]!r}")
        kept[item.name] = value
    if missing := {"job_id", "role", "id", "instance", "zone", "started_at"} & {item.name for item in fields(kind)} - kept.keys():
        raise ValueError(f"{', '.join(sorted(missing))} is missing")
    return kept


@dataclass(frozen=True)
class Decision:
    """What to do, and the state to write before doing it."""

    action: Action
    job: Job


def unreadable(job_id: str, role: str, why: str, now: datetime) -> Job:
    """What a state becomes that is not JSON or has another shape: the end, since nobody knows how many attempts and minutes are behind it."""
    return _end(Job(job_id, role), "failed", f"the job's state could not be read ({why[:200]}); `elson retry {job_id}` begins again", now)


def live(job: Job, boot_id: str, lived_s: float) -> Job:
    """The job with the newest age of a VM that is working on it: the newest one, or another of several servers. An older reading changes nothing."""
    number = next((number for number, boot in enumerate(job.boots) if boot.id == boot_id), None)
    if number is None or lived_s <= job.boots[number].lived_s:
        return job
    before = job.boots[number].lived_s
    boots = (*job.boots[:number], replace(job.boots[number], lived_s=lived_s), *job.boots[number + 1 :])
    if number == len(job.boots) - 1:
        return replace(job, boots=boots)
    # What an earlier VM had lived was put into ``earlier_s`` when the next one came. One without a life belongs to a job that has begun again since.
    return replace(job, boots=boots, earlier_s=job.earlier_s + lived_s - before) if before else job


def lived_s(job: Job) -> float:
    """How long the job's VMs have lived, together."""
    return job.earlier_s + (job.boots[-1].lived_s if job.boots else 0.0)


def at_boot(job: Job, boot: Boot, limits: Limits, now: datetime) -> Decision:
    """Work (and count an attempt), or stop at once because the job is over, past its deadline or out of attempts."""
    if job.status in OVER:
        return Decision("stop", job)
    if any(known.id == boot.id for known in job.boots):
        return Decision("work", job)  # the startup script ran twice in one boot
    if job.status == "idle":
        job = begin_again(job)  # a server that stopped itself was asked for again
    if past_deadline(job, limits):
        return Decision("stop", _end(job, "deadline", _deadline_text(job, limits), now))
    if job.attempts >= limits.max_attempts:
        return Decision("stop", _end(job, "failed", f"attempts used up ({job.attempts} of {limits.max_attempts}); last: {job.reason or job.status}", now))
    # Another instance has an empty disk: stages whose results are published end in seconds, what was only on the old disk is made again.
    stage = job.stage if job.boots and job.boots[-1].instance == boot.instance else ""
    counted = replace(job, attempts=job.attempts + 1, earlier_s=lived_s(job), boots=(*job.boots, boot)[-_KEPT_BOOTS:])
    started = job.first_started_at or boot.started_at
    return Decision("work", replace(counted, status="starting", reason="", stage=stage, first_started_at=started, updated_at=_iso(now)))


def elsewhere(document: Any, mine: str, now: datetime) -> str:
    """The machine of the other kind that is at work on a job, and since when it was heard last; an empty text where there is none.

    A VM and Cloud Run may be asked for the same training, which has one id and one state: both at once would be paid for one result.

    Args:
        document: the job's state object, of any shape.
        mine: how a machine of this kind names itself in it: ``group`` or ``run_job``.
        now: the time.
    """
    machine, other = (document.get("machine"), "run_job" if mine == "group" else "group") if isinstance(document, dict) else (None, "")
    if not isinstance(machine, dict) or other not in machine or document.get("status") in (*OVER, "queued"):
        return ""
    try:
        minutes = (now - datetime.fromisoformat(document["updated_at"])).total_seconds() / 60
    except (KeyError, TypeError, ValueError):
        return ""
    return f"{str(machine[other])[:100]}, {max(0.0, minutes):.0f} minutes ago" if minutes < AT_WORK_MINUTES else ""


def begin_again(job: Job) -> Job:
    """The job without attempts, minutes and idling behind it; the boots stay, for the eye."""
    boots = tuple(replace(boot, lived_s=0.0) for boot in job.boots)
    return replace(job, attempts=0, first_started_at=None, stage="", earlier_s=0.0, idle_s=0.0, boots=boots, progress={})


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
    if exit_code == TEMPORARY_EXIT_CODE and job.troubles < _MOST_TROUBLES and not past_deadline(job, limits):
        return Decision("retry", replace(job, status="retrying", reason=f"{reason} (temporary trouble)", troubles=job.troubles + 1, updated_at=_iso(now)))
    return _another_try(job, reason, limits, now, "retry")


def pause_s(job: Job) -> float:
    """Seconds before the next try: longer after each temporary trouble in a row."""
    return float(min(300.0, 5.0 * 2.0 ** min(job.troubles, 10)))


def after_unit_failure(job: Job, unit: str, interruption: str, limits: Limits, now: datetime) -> Decision:
    """What follows a unit that systemd gave up on: a fresh boot while attempts are left (counted there), else the end."""
    if interruption or job.status in OVER:
        return Decision("leave", job)
    if past_deadline(job, limits):
        return Decision("stop", _end(job, "deadline", _deadline_text(job, limits), now))
    reason = f"unit {unit} failed"
    if job.attempts >= limits.max_attempts:
        return Decision("stop", _end(job, "failed", f"attempts used up ({job.attempts} of {limits.max_attempts}); last: {reason}", now))
    return Decision("reboot", replace(job, status="retrying", reason=reason, updated_at=_iso(now)))


def at_deadline(job: Job, limits: Limits, now: datetime) -> Decision:
    """Stop when the deadline has passed. A job that is over stops, too: whoever wrote that may not have come to end this VM."""
    if job.status in OVER:
        return Decision("stop", job)
    if not past_deadline(job, limits):
        return Decision("leave", job)
    return Decision("stop", _end(job, "deadline", _deadline_text(job, limits), now))


def when_ready(job: Job, ready_s: float, idle_s: float, now: datetime, phases: dict[str, float] | None = None, *, used: bool = False) -> Job:
    """A server that answers, ready for ``ready_s`` in this boot, after the ``phases`` of its start. When that has lasted, the attempts behind it are
    forgotten, so that a preemption a week later has its own. The idle time goes into the state: another boot goes on counting. ``used`` says that this
    server was used since it was here last."""
    attempts = 0 if ready_s >= 60 * STEADY_MINUTES else job.attempts
    ready = replace(job, status="ready", reason="", attempts=attempts, idle_s=round(idle_s, 1), phases=phases or job.phases, updated_at=_iso(now))
    return replace(ready, uses=job.uses + used)


def start_phases(marks: dict[str, float], server: dict[str, float], ready_s: float) -> dict[str, float]:
    """Seconds of each phase of a server's start, from the system's first process to the first completion.

    Args:
        marks: age of the system, in seconds, when the agent began (``check``), when it began to pull and had the image (``pull``, ``image``), when the
            container was started (``container``), and when vLLM's engine said that it was up (``engine``). What was not seen is left out.
        server: the phases that the container told.
        ready_s: age of the system at the first completion.
    """
    steps = (("system", "", "check"), ("docker", "check", "pull"), ("image", "pull", "image"))
    found = {name: marks[until] - marks.get(since, 0.0) for name, since, until in steps if until in marks and (not since or since in marks)}
    if "engine" in marks:
        own = sum(server.values())
        found |= {"container": marks["engine"] - marks["container"] - own} if "container" in marks else {}
        found |= {**server, "first completion": ready_s - marks["engine"]}
    return {name: round(max(0.0, seconds), 1) for name, seconds in found.items()}


def when_idle(job: Job, minutes: float, now: datetime, uses: int | None = None) -> Decision:
    """A server that nobody used; it stays when another one of its group was, since this one saw the state with ``uses``."""
    if uses is not None and job.uses != uses:
        return Decision("leave", job)
    return Decision("stop", _end(job, "idle", f"no request for {minutes:.0f} minutes", now))


def not_ended(job: Job, now: datetime) -> Decision:
    """A server found itself idle, and nothing could end its group. A VM in its place would take the state for "asked for again", and idle once more: so the
    job has failed, the next VM only tries the end again, and the watchdog ends what is over."""
    if job.status != "idle":
        return Decision("leave", job)
    reason = f"{job.reason}, and its group could not be told to end; `elson retry {job.job_id}` begins again"
    return Decision("stop", _end(job, "failed", reason, now))


def has_drained(in_flight: float, gone_s: float, notice_s: float, *, several: bool) -> bool:
    """Whether a server that is being taken back may stop, ``gone_s`` seconds after the notice of ``notice_s``: nothing is on its way, and of several the load
    balancer has heard that nothing more should come; or the time is up."""
    return gone_s >= notice_s - LAST_S or (in_flight == 0 and gone_s >= (BALANCER_S if several else 0))


def past_deadline(job: Job, limits: Limits) -> bool:
    """Whether the job's VMs have lived for as long as they may."""
    return limits.deadline_minutes is not None and lived_s(job) >= 60 * limits.deadline_minutes


def left_s(job: Job, limits: Limits) -> float | None:
    """Seconds of VM that the job may still use, or None where it has no deadline."""
    return None if limits.deadline_minutes is None else max(0.0, 60 * limits.deadline_minutes - lived_s(job))


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


def with_others(activity: Activity, known: int | None, uses: int, now_s: float, *, used: bool) -> Activity:
    """What this server knows of its group's use after it wrote ``uses`` into the state: a use of another one since ``known``, the count that it left there
    before (None: it comes for the first time), counts as one of now. ``used`` says whether it has added one of its own."""
    return activity if known is None or uses - used == known else replace(activity, last_used_s=now_s)


def idle_for_s(activity: Activity, now_s: float) -> float:
    """Seconds since the server was last used."""
    return now_s - activity.last_used_s


def _another_try(job: Job, reason: str, limits: Limits, now: datetime, action: Action) -> Decision:
    if past_deadline(job, limits):
        return Decision("stop", _end(job, "deadline", f"{reason}; {_deadline_text(job, limits)}", now))
    if job.attempts >= limits.max_attempts:
        return Decision("stop", _end(job, "failed", f"attempts used up ({job.attempts} of {limits.max_attempts}); last: {reason}", now))
    return Decision(action, replace(job, status="retrying", reason=reason, attempts=job.attempts + 1, progress={}, updated_at=_iso(now)))


def _end(job: Job, status: str, reason: str, now: datetime) -> Job:
    return replace(job, status=status, reason=reason, updated_at=_iso(now))


def _deadline_text(job: Job, limits: Limits) -> str:
    return f"deadline: its VMs have lived {lived_s(job) / 60:.0f} minutes, {limits.deadline_minutes} are allowed"


def _signal(exit_code: int) -> str:
    return {137: " (killed, perhaps out of memory)", 139: " (segmentation fault)", 143: " (terminated)"}.get(exit_code, "")


def _iso(now: datetime) -> str:
    return now.astimezone(UTC).isoformat(timespec="milliseconds")
