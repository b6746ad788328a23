"""Which place a job is asked for next: one group in each place, and at most one of them has size 1. Pure; ``main.py`` resizes.

A place is asked until its patience is over, or until it says that it has no capacity; then the next one is asked, and after the last the first again.
Waiting is free, so it has no end. It is given up only when every place has said for two hours what waiting does not change: no quota, no such machine.
What VMs may cost together is bounded elsewhere, over all places.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

#: What Compute says when there is no machine now (https://cloud.google.com/compute/docs/troubleshooting/troubleshooting-vm-creation).
STOCKOUTS = ("ZONE_RESOURCE_POOL_EXHAUSTED", "RESOURCE_POOL_EXHAUSTED", "STOCKOUT", "INSUFFICIENT_CAPACITY", "INSUFFICIENTCAPACITY")
#: What waiting does not change. A stockout can look like it, so it has to be said for long, in every place.
REFUSALS = ("QUOTA", "LIMIT_EXCEEDED", "UNSUPPORTED_OPERATION", "NOT_FOUND", "RESOURCENOTFOUND", "INVALID", "FORBIDDEN", "PERMISSION")
REFUSED_FOR = timedelta(hours=2)
#: A place that refused is asked again after this time (a quota may have been granted), or when every place refuses.
AGAIN_AFTER = timedelta(hours=1)
#: A place that says it has nothing is asked at least so long: its group tries every zone.
AT_LEAST = timedelta(minutes=5)
#: VMs that a place may take back before another is asked.
MOST_LOST = 2
#: A region that does not answer may have a VM that works: its job must be silent for so long before another place is asked.
AWAY_FOR = timedelta(minutes=20)
#: A move that was interrupted is finished by the next look. When that comes later than this, size 0 everywhere is what somebody wanted.
UNFINISHED_FOR = timedelta(hours=1)


def move(
    memory: dict[str, Any], places: list[dict[str, Any]], seen: dict[str, dict[str, Any]], silent_minutes: float, now: datetime
) -> tuple[dict[str, Any], list[str], str, str]:
    """(what to remember, groups to resize to 0, the group to resize to 1 or "", why: of a move, or of giving up when there is no group).

    Args:
        memory: what the last call returned; empty the first time.
        places: {"group", "patience" in minutes} by rank.
        seen: group -> {"size", "vms": ids, "problems": error codes}; a group that is not there does not answer.
        silent_minutes: since the job's state was written; infinite where there is none.
        now: the time.
    """
    names = [place["group"] for place in places]
    asked = [name for name in names if name in seen and seen[name]["size"] > 0]
    at, going = memory.get("at"), memory.get("going")
    if not asked and at not in set(names) - set(seen):
        if not going or now - _time(memory["going_at"], now) > UNFINISHED_FOR:
            return {}, [], "", ""  # ended, or stopped by somebody
        memory = {**memory, "going_at": now.isoformat()}
        if any(one["vms"] for one in seen.values()):
            return memory, [], "", ""  # the old VM is still going
        tries = memory.get("tries", 0)
        start = names.index(going) + (1 if tries else 0) if going in names else 0
        going = next(name for name in (*names[start:], *names[:start]) if name in seen)
        return {**memory, "going": going, "tries": tries + 1}, [], going, "a move was interrupted"
    here = _here(at, names, asked, seen)
    extra = [name for name in asked if name != here]
    if here != at:
        memory = begun(memory, here, now)
    if here not in seen:
        away_since = _time(memory.get("away_since"), now)
        memory = {**memory, "away_since": away_since.isoformat()}
        if now - away_since < AWAY_FOR or silent_minutes * 60 < AWAY_FOR.total_seconds():
            return memory, extra, "", ""
        return _to_the_next(memory, names, here, seen, extra, now, "its region does not answer")
    memory = _looked({key: value for key, value in memory.items() if key not in ("away_since", "going", "going_at", "tries")}, here, seen[here], now)
    if seen[here]["vms"]:
        return memory, extra, "", ""
    patience = timedelta(minutes=places[names.index(here)]["patience"])
    reason = _reason(memory, here, seen[here]["problems"], now - _time(memory["since"], now), patience)
    refused = memory.get("refused", {})
    if set(names) <= set(refused) and all(now - _time(refused[name]["first"], now) >= REFUSED_FOR for name in names):
        said = "; ".join(f"{name}: {refused[name]['code']}" for name in names)
        return {}, [name for name in names if name in seen], "", f"every place has refused for two hours ({said})"
    return _to_the_next(memory, names, here, seen, extra, now, reason) if reason else (memory, extra, "", "")


def _here(at: Any, names: list[str], asked: list[str], seen: dict[str, dict[str, Any]]) -> str:
    """The one place that counts: where there is a VM, else the one that is remembered, else the best."""
    with_vm = [name for name in asked if seen[name]["vms"]]
    if at in asked and (at in with_vm or not with_vm):
        return str(at)
    if at in names and at not in seen and not with_vm:
        return str(at)
    return (with_vm or asked)[0]


def begun(memory: dict[str, Any], group: str, now: datetime) -> dict[str, Any]:
    """The memory of a place that is asked from now on."""
    return {"at": group, "since": now.isoformat(), "lost": 0, "vms": [], "refused": memory.get("refused", {})}


def _looked(memory: dict[str, Any], here: str, found: dict[str, Any], now: datetime) -> dict[str, Any]:
    """Count VMs that went, restart the patience while there is one, and keep since when the place refuses."""
    gone = [vm for vm in memory.get("vms", []) if vm not in found["vms"]]
    refused = dict(memory.get("refused", {}))
    code = next((code for code in found["problems"] if _is(code, REFUSALS)), "")
    if code:
        refused[here] = {"first": refused.get(here, {}).get("first", now.isoformat()), "last": now.isoformat(), "code": code}
    elif found["vms"] or found["problems"]:
        refused.pop(here, None)
    since = now.isoformat() if found["vms"] or gone else memory.get("since", now.isoformat())
    return {**memory, "since": since, "lost": memory.get("lost", 0) + len(gone), "vms": list(found["vms"]), "refused": refused}


def _reason(memory: dict[str, Any], here: str, problems: list[str], waited: timedelta, patience: timedelta) -> str:
    """Why another place is asked, or an empty text."""
    if here in memory["refused"]:
        return str(memory["refused"][here]["code"])
    if memory["lost"] >= MOST_LOST:
        return f"it took back {memory['lost']} VMs"
    stockout = next((code for code in problems if _is(code, STOCKOUTS)), "")
    if stockout and waited >= AT_LEAST:
        return stockout
    return f"no VM in {waited.total_seconds() / 60:.0f} minutes" if waited >= patience else ""


def _to_the_next(
    memory: dict[str, Any], names: list[str], here: str, seen: dict[str, dict[str, Any]], extra: list[str], now: datetime, reason: str
) -> tuple[dict[str, Any], list[str], str, str]:
    """The next place that answers, of those that did not refuse lately if there is one; the same place when there is no other."""
    start = names.index(here) + 1
    others = [name for name in (*names[start:], *names[: start - 1]) if name in seen]
    refused = memory.get("refused", {})
    willing = [name for name in others if name not in refused or now - _time(refused[name].get("last"), now) >= AGAIN_AFTER]
    if not others or (not willing and here not in refused):
        return memory, extra, "", ""
    going = (willing or others)[0]
    return {**memory, "going": going, "going_at": now.isoformat()}, [*extra, *([here] if here in seen else [])], going, reason


def _is(code: str, kinds: tuple[str, ...]) -> bool:
    # A stockout with the word of a refusal in it is a stockout.
    text = code.upper()
    if kinds is REFUSALS and any(kind in text for kind in STOCKOUTS):
        return False
    return any(kind in text for kind in kinds)


def _time(text: Any, now: datetime) -> datetime:
    return datetime.fromisoformat(text) if isinstance(text, str) else now
