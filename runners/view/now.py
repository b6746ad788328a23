"""The pages about what goes on now: a run on this machine, and the cloud's machines with what would stop each of them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from runners.pages import charts, page
from runners.pages.charts import Series
from runners.pages.page import Html, Tile
from runners.view.runs import Bucket
from runners.view.screens import framed

_REFRESH_S = 4
_LINES = 200
_STARTED = ("working", "running", "serving", "ready", "queued", "building")


def live(bucket: Bucket) -> str:
    """The run that is under way: which stage, how far, losses, speed, what is left, and the log."""
    rows = list(bucket.under_way)
    begins = [place for place, row in enumerate(rows) if row["message"].startswith("stage ")]
    stages = [rows[place]["message"] for place in begins]
    moving: dict[str, Any] = next((row for row in reversed(rows[begins[-1] :] if begins else rows) if "done" in row), {})
    steps = [row for row in rows if row["message"] == "train" and isinstance(row.get("loss"), (int, float))]
    tiles = [Tile("Stage", stages[-1].removeprefix("stage ") if stages else None, bucket.holder or "ended", "info" if bucket.holder else "none")]
    if moving:
        done, total = moving.get("done", 0), moving.get("total")
        share = f"{done:g} of {total:g} {moving.get('unit', '')}" if isinstance(total, (int, float)) else f"{moving.get('elapsed_s', 0):g} s"
        tiles.append(Tile(str(moving["message"]), share, _left(moving)))
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
            "as of": str(job.get("updated_at", ""))[:19].replace("T", " "),
        }
        boots = [(boot.get("instance"), boot.get("zone"), str(boot.get("started_at", ""))[:19].replace("T", " ")) for boot in job.get("boots", ())]
        stops = page.table(("stop", "next"), next_stops(job, at))
        parts: list[str] = [page.facts(facts), stops]
        if boots:
            parts.append(page.details(f"{len(boots)} machines", page.table(("machine", "zone", "from"), boots)))
        sections.append(page.section(f"{job.get('role', 'job')} {job.get('job_id', '?')}", *parts))
    note = "Minutes are counted from each machine's start to the next one's, or to the last sign of life; the bill is Google's."
    return framed("Machines", [*sections, Html(page.paragraph(note))], f"{len(bucket.jobs)} jobs in {bucket.where}", bucket)


def billed_minutes(job: dict[str, Any], now: datetime) -> float:
    """Minutes that VMs of a job existed, by its own account: a lower bound where a machine died without a word."""
    starts = [when for boot in job.get("boots", ()) if (when := _time(boot.get("started_at")))]
    over = job.get("status") in ("done", "failed", "deadline", "idle", "stopped")
    seen = _time(job.get("updated_at"))
    last = seen if over and seen else max(now, seen or now)
    ends = [*starts[1:], last]
    return sum(max(0.0, (end - start).total_seconds()) for start, end in zip(starts, ends, strict=True)) / 60 if starts else 0.0


def next_stops(job: dict[str, Any], now: datetime) -> list[tuple[str, str]]:
    """What each independent stop would do next, in words."""
    if job.get("status") in ("done", "failed", "deadline", "idle", "stopped"):
        return [("the machine itself", f"has ended: {job.get('reason') or job['status']}")]
    boots = job.get("boots") or [{}]
    started = _time(boots[-1].get("started_at"))
    limit = (job.get("machine") or {}).get("max_run_minutes") or job.get("max_run_minutes")
    deadline = _time(job.get("deadline_at"))
    rows = [("the machine itself", f"at its deadline, {_in(deadline, now)}" if deadline else "when it is done, has failed or is idle")]
    if started and isinstance(limit, (int, float)):
        left = limit - (now - started).total_seconds() / 60
        rows.append(("the platform (maxRunDuration)", f"deletes this machine in {left:.0f} min" if left > 0 else "should have deleted this machine"))
    else:
        rows.append(("the platform (maxRunDuration)", "deletes each machine after machine.max_run_minutes"))
    rows.append(("the watchdog outside the machine", "resizes the group to 0 past its bound, or when the job stops reporting"))
    rows.append(("the budget", "resizes every elson group to 0 when the month's money is spent"))
    return rows


def _left(moving: dict[str, Any]) -> str:
    done, total, elapsed = moving.get("done"), moving.get("total"), moving.get("elapsed_s")
    if not (isinstance(done, (int, float)) and isinstance(total, (int, float)) and isinstance(elapsed, (int, float)) and done):
        return ""
    return f"about {page.duration(elapsed / done * (total - done))} left" if done < total else "done"


def _line(row: dict[str, Any]) -> str:
    rest = " ".join(f"{key}={value}" for key, value in row.items() if key not in ("time", "severity", "stage", "message"))
    return f"{str(row.get('time', ''))[11:19]} {row.get('stage', '')!s:9} {row['message']}{'  ' + rest if rest else ''}"


def _time(value: Any) -> datetime | None:
    try:
        found = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _in(when: datetime | None, now: datetime) -> str:
    minutes = ((when or now) - now).total_seconds() / 60
    return f"in {minutes:.0f} min" if minutes > 0 else f"{-minutes:.0f} min ago"
