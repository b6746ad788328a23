"""The pages about what goes on now: a run on this machine, and the cloud's machines with what would stop each of them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from runners.pages import charts, page
from runners.pages.charts import Series
from runners.pages.page import Html, Tile
from runners.view import progress
from runners.view.runs import Bucket
from runners.view.screens import framed
from runners.vm.decide import OVER, Job, lived_s

_REFRESH_S = 4
_LINES = 200
_ENDED = (*OVER, "idle")
#: The stops that do not rest on the machine.
_OUTSIDE = (
    ("the platform (maxRunDuration)", "deletes each machine at its longest time (machine.max_run_minutes)"),
    ("the watchdog outside the machine", "resizes the group to 0 after the longest time, or when the job stops reporting"),
    ("the budget", "resizes every group of elson to 0 when the month's budget is spent"),
)


def live(bucket: Bucket) -> str:
    """The run that is under way: which stage, how far, losses, speed, what is left, and the log."""
    rows = list(bucket.under_way)
    at = progress.position(rows)
    steps = [row for row in rows if row["message"] == "train" and isinstance(row.get("loss"), (int, float))]
    tiles = [Tile("Stage", at.stage or None, bucket.holder or "ended", "info" if bucket.holder else "none")]
    if at.what:
        tiles.append(Tile(at.what, at.share, at.left))
    if steps:
        last = steps[-1]
        tiles.append(Tile("Loss", last["loss"], f"step {last.get('done', 0):g}"))
        tiles.append(Tile("Tokens a second", last.get("tokens_per_s")))
        memory = last.get("peak_memory_gib")
        tiles.append(Tile("Memory", f"{memory:.1f} GiB" if isinstance(memory, (int, float)) else None, "at most so far"))
    errors = [row["message"] for row in rows if row.get("severity") == "ERROR"]
    sections = [page.section("Now", *([page.banner("bad", errors[-1])] if errors else []), page.stat_tiles(tiles))]
    if steps:
        curve = [Series("training", [(row["done"], row["loss"]) for row in steps])]
        held_out = [row for row in rows if row["message"] == "held-out loss"]
        checked = [(row["step"], row["loss"]) for row in held_out if all(isinstance(row.get(key), (int, float)) for key in ("step", "loss"))]
        curve += [Series("validation", checked, marks=True)] if checked else []
        sections.append(page.section("Loss", charts.line_chart(curve, title="Loss on the answers", x_label="optimizer step", y_label="nats per token")))
    sections.append(page.section("Log", page.code("\n".join(_line(row) for row in rows[-_LINES:]))))
    return framed(
        "Under way" if bucket.holder else "The last log", sections, bucket.holder or "nothing is running", bucket, refresh_s=_REFRESH_S if bucket.holder else 0
    )


def jobs(bucket: Bucket, now: datetime | None = None) -> str:
    """The cloud's machines: what each job does, the minutes billed, and what each of the stops would do next."""
    at = now or datetime.now(UTC)
    sections = []
    for job in bucket.jobs:
        facts: dict[str, Any] = {
            "status": job.get("status"),
            "reason": job.get("reason") or None,
            "stage": job.get("stage") or None,
            "attempts": f"{job.get('attempts', 0)} of {job.get('max_attempts', '?')}",
            "minutes billed, about": round(billed_minutes(job, at), 1),
            "as of": f"{str(job['updated_at'])[:19].replace('T', ' ')} UTC" if job.get("updated_at") else None,
        }
        boots = [(boot.get("instance"), boot.get("zone"), str(boot.get("started_at", ""))[:19].replace("T", " ")) for boot in job.get("boots", ())]
        stops = page.table(("stop", "next"), next_stops(job), cards=True)
        parts: list[str] = [page.facts(facts), stops]
        if boots:
            parts.append(page.details("1 machine" if len(boots) == 1 else f"{len(boots)} machines", page.table(("machine", "zone", "from"), boots)))
        sections.append(page.section(f"{job.get('role', 'job')} {job.get('job_id', '?')}", *parts))
    note = "Minutes are as the machines counted them, the newest until now; what is billed is on Google's bill."
    return framed("Machines", [*sections, Html(page.paragraph(note))], f"{len(bucket.jobs)} jobs in {bucket.where}", bucket)


def billed_minutes(job: dict[str, Any], now: datetime) -> float:
    """Minutes that VMs of a job existed, by its own account; the newest counts until now while the job goes on."""
    state = _state(job)
    if state is None or not state.boots:
        return 0.0
    started = _time(state.boots[-1].started_at)
    newest = 0.0 if state.status in (*_ENDED, "preempted", "queued") or started is None else (now - started).total_seconds()
    return max(lived_s(state), state.earlier_s + newest) / 60


def next_stops(job: dict[str, Any]) -> list[tuple[str, str]]:
    """What each independent stop would do next, in words."""
    state = _state(job)
    if state is None:
        return [("the machine itself", "its state cannot be read: it stops at its next look"), *_OUTSIDE]
    if state.status in _ENDED:
        return [("the machine itself", f"has ended: {state.reason or state.status}")]
    left = job.get("minutes_left")
    until = "when it has had no request for machine.idle_minutes"
    if isinstance(left, (int, float)):
        until = f"at its deadline, after {left:.0f} more minutes of its life"
    own = f"when its work is done or fails for good; {until}"
    return [("the machine itself", own), *_OUTSIDE]


def _state(job: dict[str, Any]) -> Job | None:
    """The state as the VM reads it; None for one that it would not understand either."""
    try:
        return Job.from_json(job)
    except ValueError:
        return None


def _line(row: dict[str, Any]) -> str:
    rest = " ".join(f"{key}={value}" for key, value in row.items() if key not in ("time", "severity", "stage", "message"))
    return f"{str(row.get('time', ''))[11:19]} {row.get('stage', '')!s:9} {row['message']}{'  ' + rest if rest else ''}"


def _time(value: Any) -> datetime | None:
    try:
        found = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
