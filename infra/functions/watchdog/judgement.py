"""Whether what works on a job has to be stopped, by its age, its number and its silence. Pure; ``main.py`` asks and stops."""

import sys
from datetime import datetime
from typing import Any

#: Minutes a VM may live before its job's state was written, and between two writes; a VM writes once a minute from its first step on.
SILENT_MINUTES = 20
#: Minutes that a VM may take to end after its job is over.
ENDING_MINUTES = 15
#: Bounds of a group whose template cannot be read: those of the default training.
DEFAULT_BOUNDS = (150, 7)
#: For what nobody has to count.
UNBOUNDED = sys.maxsize
OVER = ("done", "failed", "deadline")


def judge(memory: dict[str, Any], vms: list[str], bounds: tuple[int, int], state: dict[str, Any] | None, now: datetime) -> tuple[dict[str, Any], str]:
    """(what to remember, why to stop or an empty text) of a group that may have VMs.

    Args:
        memory: {"vms": {id: when it was seen first}, "minutes": lifetime of all of them, "quiet": minutes with a VM since the state was written last,
            "over_since": when the job was first seen to be over beside a VM, "at": when the last look was}; empty the first time.
        vms: ids of the instances that exist now; a VM that is made again has another id.
        bounds: (minutes, VMs) that the job may use.
        state: {"status", "updated"} of the job's state, an empty object where there is none, None where storage does not answer.
    """
    seen = dict(memory.get("vms", {}))
    since_s = (now - datetime.fromisoformat(memory["at"])).total_seconds() if memory.get("at") else 0.0
    lived = memory.get("minutes", 0.0) + (since_s / 60 if set(vms) & set(memory.get("present", [])) else 0.0)
    seen.update({vm: now.isoformat() for vm in vms if vm not in seen})
    quiet = memory.get("quiet", 0.0)
    remembered = {"vms": seen, "present": vms, "minutes": round(lived, 2), "quiet": quiet, "at": now.isoformat()}
    if not vms:
        return remembered, ""
    minutes, count = bounds
    if len(seen) > count:
        return remembered, f"it made {len(seen)} VMs, {count} are allowed"
    if lived > minutes:
        return remembered, f"its VMs lived {lived:.0f} minutes, {minutes} are allowed"
    if state is None:
        return remembered, ""  # nobody can be heard while storage is away; the bounds above hold
    age = max(minutes_since(seen[vm], now) for vm in vms)
    written = minutes_since(state["updated"], now) if state.get("updated") else float("inf")
    # VMs that end one after the other without a word, each before it is old enough, are one silence.
    quiet = 0.0 if written <= since_s / 60 else quiet + (since_s / 60 if memory.get("present") else 0.0)
    remembered["quiet"] = round(quiet, 2)
    ended = 0.0
    if state.get("status") in OVER:
        # It has another state before it gets a VM again, so whoever goes on writing this one is what should have ended.
        remembered["over_since"] = memory.get("over_since") or now.isoformat()
        ended = max(written, minutes_since(remembered["over_since"], now))
    elif state.get("status") == "idle":
        ended = min(age, written)  # an idle server may be asked for again at any time
    if ended > ENDING_MINUTES:
        return remembered, f"its job is over ({state['status']}), and a VM is still there after {ended:.0f} minutes"
    silent = min(max(age, quiet), written)
    if silent > SILENT_MINUTES:
        return remembered, f"its job has not reported for {silent:.0f} minutes"
    return remembered, ""


def number(text: str | None, otherwise: int) -> int:
    """A bound as metadata or an environment has it."""
    return int(text) if text and text.isdigit() else otherwise


def minutes_since(then: str, now: datetime) -> float:
    """From a time in ISO 8601 until now."""
    return (now - datetime.fromisoformat(then)).total_seconds() / 60
