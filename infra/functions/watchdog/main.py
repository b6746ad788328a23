"""The watchdog: looks at every elson group, and resizes to 0 what lives too long, makes too many VMs, does not report, or is over.

Executions of Cloud Run are looked at beside the groups, by the same rules (``executions.py``), and cancelled.

A job that may run in several places has a group in each: they are one family, with one memory and one pair of bounds, and ``places.py`` says which of
them is asked.

Deployed as a Cloud Function that Cloud Scheduler calls every few minutes. It believes nothing a VM says about its bounds: they come from the group's
template, ages and counts from its own memory (``watchdog/<group>.json`` in the scratch bucket). A job's state is read for two things: when it was
written, and whether the job is over. Raising makes the call an error in the logs; the next look comes anyway.
"""

import http.client
import json
import os
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import bakes
import executions
import places

COMPUTE = os.environ.get("ELSON_COMPUTE_URL", "https://compute.googleapis.com/compute/v1")
RUN = os.environ.get("ELSON_RUN_URL", "https://run.googleapis.com")
STORAGE = os.environ.get("ELSON_STORAGE_URL", "https://storage.googleapis.com")
METADATA = os.environ.get("ELSON_METADATA_URL", "http://metadata.google.internal/computeMetadata/v1")
PREFIX = "elson-"
#: Minutes a VM may live before its job's state was written, and between two writes; a VM writes once a minute from its first step on.
SILENT_MINUTES = 20
#: Minutes that a VM may take to end after its job is over.
ENDING_MINUTES = 15
#: Bounds of a group whose template cannot be read: those of the default training.
DEFAULT_BOUNDS = (150, 7)
#: A larger state of a job is not fetched: a VM's account may write it.
MOST_BYTES = 1 << 20
OVER = ("done", "failed", "deadline")


class _Changed(Exception):
    """Somebody wrote or deleted a memory after this look had read it: who starts a job again does."""


class _Memory:
    """What is known of one job's groups, in one object. Each write says which generation it has read."""

    def __init__(self, uri: str, token: str) -> None:
        self.uri, self.token, self.generation = uri, token, "0"

    def read(self, ids: dict[str, str]) -> dict[str, Any]:
        """What is known of these very groups; a group that was made again under the same name is another."""
        try:
            self.generation = str(_call("GET", _object(self.uri), self.token)["generation"])
            found = _call("GET", f"{_object(self.uri)}?alt=media&generation={self.generation}", self.token)
        except OSError as error:
            if getattr(error, "code", 0) != 404:
                raise
            return {}
        except ValueError:
            return {}
        known = found.get("groups") if isinstance(found, dict) else None
        if not isinstance(known, dict) or any(known.get(name, id) != id for name, id in ids.items()):
            return {}
        return found

    def keep(self, memory: dict[str, Any]) -> None:
        address = f"{_upload()}&name={_quoted(self.uri)}&ifGenerationMatch={self.generation}"
        self.generation = str(self._write("POST", address, json.dumps(memory).encode())["generation"])

    def forget(self) -> None:
        if self.generation != "0":
            self._write("DELETE", f"{_object(self.uri)}?ifGenerationMatch={self.generation}")
            self.generation = "0"

    def _write(self, method: str, url: str, body: bytes = b"") -> dict[str, Any]:
        try:
            return _call(method, url, self.token, body)
        except OSError as error:
            if getattr(error, "code", 0) in (404, 412):
                raise _Changed(self.uri) from None
            raise


def watch(_request: Any) -> str:
    """Handle one call of the scheduler."""
    project, failed, now = os.environ["ELSON_PROJECT"], [], datetime.now(UTC)
    token = _token()
    for name, members in _families(_groups(project, token), project, token).items():
        failed += _tried(_look, name, members, token, now)
    failed += _look_at_runs(project, token, now)
    failed += bakes.delete_overdue(f"{COMPUTE}/projects/{project}", lambda method, url: _call(method, url, token), _say, now)
    if failed:
        raise RuntimeError(f"not looked at: {', '.join(failed)}")
    return "ok"


def judge(memory: dict[str, Any], vms: list[str], bounds: tuple[int, int], state: dict[str, Any] | None, now: datetime) -> tuple[dict[str, Any], str]:
    """(what to remember, why to stop or an empty text) of a group that may have VMs.

    Args:
        memory: {"vms": {id: when it was seen first}, "minutes": lifetime of all of them, "at": when the last look was}; empty the first time.
        vms: ids of the instances that exist now; a VM that is made again has another id.
        bounds: (minutes, VMs) that the job may use.
        state: {"status", "updated"} of the job's state, an empty object where there is none, None where storage does not answer.
    """
    seen = dict(memory.get("vms", {}))
    since_s = (now - datetime.fromisoformat(memory["at"])).total_seconds() if memory.get("at") else 0.0
    lived = memory.get("minutes", 0.0) + (since_s / 60 if set(vms) & set(memory.get("present", [])) else 0.0)
    seen.update({vm: now.isoformat() for vm in vms if vm not in seen})
    remembered = {"vms": seen, "present": vms, "minutes": round(lived, 2), "at": now.isoformat()}
    if not vms:
        return remembered, ""
    minutes, count = bounds
    if len(seen) > count:
        return remembered, f"it made {len(seen)} VMs, {count} are allowed"
    if lived > minutes:
        return remembered, f"its VMs lived {lived:.0f} minutes, {minutes} are allowed"
    if state is None:
        return remembered, ""  # nobody can be heard while storage is away; the bounds above hold
    age = max(_minutes(seen[vm], now) for vm in vms)
    written = _minutes(state["updated"], now) if state.get("updated") else float("inf")
    # An idle server may be asked for again at any time; a job that is over has another state before it gets a VM again.
    ended = written if state.get("status") in OVER else min(age, written) if state.get("status") == "idle" else 0.0
    if ended > ENDING_MINUTES:
        return remembered, f"its job is over ({state['status']}), and a VM is still there after {ended:.0f} minutes"
    if min(age, written) > SILENT_MINUTES:
        return remembered, f"its job has not reported for {min(age, written):.0f} minutes"
    return remembered, ""


def groups(answer: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """(``regions/R`` or ``zones/Z``, group) of our groups."""
    return [
        (scope, group) for scope, part in answer.get("items", {}).items() for group in part.get("instanceGroupManagers", []) if group["name"].startswith(PREFIX)
    ]


def _groups(project: str, token: str) -> list[tuple[str, dict[str, Any]]]:
    """Our groups, of every page."""
    found, page = [], ""
    while True:
        query = "maxResults=500&returnPartialSuccess=true" + (f"&pageToken={_quoted(page)}" if page else "")
        answer = _call("GET", f"{COMPUTE}/projects/{project}/aggregated/instanceGroupManagers?{query}", token)
        found += groups(answer)
        page = answer.get("nextPageToken", "")
        if not page:
            return found


def _look_at_runs(project: str, token: str, now: datetime) -> list[str]:
    """Judge the executions of each training on Cloud Run; returns what could not be looked at."""
    found, failed = [], []
    for region in os.environ.get("ELSON_RUN_REGIONS", "").split():
        try:
            found += _executions(f"projects/{project}/locations/{region}", token)
        except (OSError, ValueError, KeyError, TypeError) as error:
            failed.append(f"Cloud Run in {region}")
            _say("ERROR", "Cloud Run could not be looked at", region=region, problem=repr(error)[:500])
    for name, members in executions.families(found).items():
        failed += _tried(_look_at_run, name, members, token, now)
    return failed


def _tried(look: Callable[..., None], name: str, members: list[Any], token: str, now: datetime) -> list[str]:
    """Look at one family, so that a bad one hides no other; its name where it could not be looked at."""
    try:
        look(name, members, token, now)
    except _Changed:
        _say("INFO", "started again while it was looked at", group=name)
    except (OSError, ValueError, KeyError, TypeError) as error:
        _say("ERROR", "could not be looked at", group=name, problem=repr(error)[:500])
        return [name]
    return []


def _executions(parent: str, token: str) -> list[dict[str, Any]]:
    """Ours in a region that have not ended, of every page."""
    found, page = [], ""
    while True:
        query = "pageSize=100" + (f"&pageToken={_quoted(page)}" if page else "")
        answer = _call("GET", f"{RUN}/v2/{parent}/jobs/-/executions?{query}", token)
        found += executions.unfinished(answer)
        page = answer.get("nextPageToken", "")
        if not page:
            return found


def _look_at_run(name: str, members: list[dict[str, Any]], token: str, now: datetime) -> None:
    """Judge one training's executions, remember, and cancel them when there is a reason."""
    memory = _Memory(f"watchdog/{name}.json", token)
    known = memory.read({})
    at_work = sorted(member["id"] for member in members if member["at_work"])
    # The platform counts the tries, and a job's state the beginnings: here nothing has to.
    bounds = (max(_number(member["minutes"], DEFAULT_BOUNDS[0]) for member in members), sys.maxsize)
    state = _state(members[0]["job_id"], token)
    try:
        judged, reason = judge(executions.remembered(known), at_work, bounds, state, now)
    except (TypeError, ValueError, KeyError, AttributeError):
        judged, reason = judge({}, at_work, bounds, state, now)
    trouble: OSError | None = None
    try:
        memory.keep(judged | {"groups": {}, **({"stopped": reason} if reason else {})})
    except OSError as error:
        trouble = error
    for member in members if reason else []:
        try:
            _call("POST", f"{RUN}/v2/{member['name']}:cancel", token, b"{}")
            _say("ERROR", "watchdog: execution cancelled", group=name, execution=member["name"], reason=reason, minutes=judged["minutes"])
        except OSError as error:
            trouble = error
    if trouble:
        raise trouble


def _families(found: list[tuple[str, dict[str, Any]]], project: str, token: str) -> dict[str, list[dict[str, Any]]]:
    """First place's group -> groups of one job, each with its address, id, size and metadata."""
    families: dict[str, list[dict[str, Any]]] = {}
    for scope, group in found:
        try:
            values = _template(group, token)
            ranked: list[dict[str, Any]] = json.loads(values.get("elson-places", "[]"))
            first = str(ranked[0]["group"]) if ranked else group["name"]
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            _say("ERROR", "a group's template cannot be read", group=group["name"], problem=repr(error)[:300])
            values, ranked, first = {}, [], group["name"]
        url = f"{COMPUTE}/projects/{project}/{scope}/instanceGroupManagers/{group['name']}"
        member = {"name": group["name"], "id": str(group.get("id", "")), "size": group.get("targetSize", 0), "url": url, "values": values, "places": ranked}
        families.setdefault(first, []).append(member)
    return families


def _look(name: str, members: list[dict[str, Any]], token: str, now: datetime) -> None:
    """Judge one job's groups, remember, stop them when there is a reason, or ask another place."""
    seen = {member["name"]: {"size": member["size"], **_managed(member, token)} for member in members}
    vms = sorted(vm for one in seen.values() for vm in one["vms"])
    ids = {member["name"]: member["id"] for member in members}
    memory = _Memory(f"watchdog/{name}.json", token)
    known = memory.read(ids)
    ranked: list[dict[str, Any]] = next((member["places"] for member in members if member["places"]), [])
    everywhere = {place["group"] for place in ranked} <= set(seen)
    if not vms and not any(one["size"] for one in seen.values()) and (not ranked or (everywhere and "stopped" in known)):
        memory.forget()  # whoever starts it again begins with nothing behind it
        return
    # A stop has set these to 0, so a person or `pulumi up` has started the job again before this look.
    if any(seen[group]["size"] for group in known.get("emptied", []) if group in seen):
        known = {}
    values: dict[str, str] = next((member["values"] for member in members if member["values"]), {})
    bounds = (_number(values.get("elson-max-minutes"), DEFAULT_BOUNDS[0]), _number(values.get("elson-max-vms"), DEFAULT_BOUNDS[1]))
    state = _state(values.get("elson-job-id", ""), token)
    try:
        judged, reason = judge(known, vms, bounds, state, now)
    except (TypeError, ValueError, KeyError, AttributeError):  # a memory of another shape: begin again, rather than fail at every look
        known = {}
        judged, reason = judge(known, vms, bounds, state, now)
    # A region that did not answer when its job was stopped may come back with a group that asks for a VM.
    reason = reason or (str(known.get("stopped", "")) if ranked else "")
    kept = judged | {"groups": {**known.get("groups", {}), **ids}}
    if reason:
        _stop(members, reason, kept, name, memory, token)
        return
    if ranked:
        kept = _move(kept | {"place": known["place"] if isinstance(known.get("place"), dict) else {}}, ranked, seen, state, members, memory, token, now)
    if kept:
        memory.keep(kept)


def _move(
    kept: dict[str, Any],
    ranked: list[dict[str, Any]],
    seen: dict[str, dict[str, Any]],
    state: dict[str, Any] | None,
    members: list[dict[str, Any]],
    memory: _Memory,
    token: str,
    now: datetime,
) -> dict[str, Any]:
    """Ask the place that the rules say; returns what to remember, nothing when the job is at rest. The intent is written before anything is resized."""
    silent = 0.0 if state is None else _minutes(state["updated"], now) if state.get("updated") else float("inf")
    place, empty, going, reason = places.move(kept["place"], ranked, seen, silent, now)
    if not place and not empty:
        if any(one["vms"] for one in seen.values()):
            return kept
        memory.forget()
        return {}
    kept |= {"place": place}
    urls = {member["name"]: member for member in members}
    if going:
        memory.keep(kept)
    elif reason:
        _say("ERROR", "watchdog: group resized to 0", group=ranked[0]["group"], reason=reason, minutes=kept["minutes"], vms=len(kept["vms"]))
    for group in empty:
        _call("POST", f"{urls[group]['url']}/resize?size=0", token)
    # A VM that came in the meantime goes first; the next look ends the move.
    if going and not any(_managed(urls[group], token)["vms"] for group in empty):
        _call("POST", f"{urls[going]['url']}/resize?size=1", token)
        _say("WARNING", "watchdog: another place is asked", group=going, reason=reason)
        kept |= {"place": places.begun(place, going, now)}
    return kept


def _managed(member: dict[str, Any], token: str) -> dict[str, Any]:
    """Ids of a group's VMs, and why the last attempt to make one failed."""
    managed = _call("POST", f"{member['url']}/listManagedInstances", token).get("managedInstances", [])
    errors = [error for one in managed for error in one.get("lastAttempt", {}).get("errors", {}).get("errors", [])]
    return {"vms": sorted(str(one["id"]) for one in managed if one.get("id")), "problems": [str(error.get("code", "")) for error in errors]}


def _stop(members: list[dict[str, Any]], reason: str, kept: dict[str, Any], name: str, memory: _Memory, token: str) -> None:
    """Resize to 0, unless the job was started again since this look began; storage that does not answer keeps no VM alive."""
    trouble: OSError | None = None
    try:
        memory.keep(kept | {"stopped": reason})
    except OSError as error:
        trouble = error
    asked = [member for member in members if member["size"] or not member["places"]]
    for member in asked:
        try:
            _call("POST", f"{member['url']}/resize?size=0", token)
        except OSError as error:
            trouble = error
    if trouble:
        raise trouble
    if asked:
        _say("ERROR", "watchdog: group resized to 0", group=name, reason=reason, minutes=kept["minutes"], vms=len(kept["vms"]))
    memory.keep(kept | {"stopped": reason, "emptied": [member["name"] for member in members]})


def _template(group: dict[str, Any], token: str) -> dict[str, str]:
    """The metadata of the group's template."""
    path = group["versions"][0]["instanceTemplate"].split("/compute/v1/")[-1]
    items = _call("GET", f"{COMPUTE}/{path}", token)["properties"]["metadata"]["items"]
    return {item["key"]: item["value"] for item in items}


def _state(job: str, token: str) -> dict[str, Any] | None:
    """When the job's state was written, and its status; what cannot be parsed has been written all the same."""
    try:
        found = _call("GET", _object(f"jobs/{job}/state.json"), token)
    except OSError as error:
        return {} if getattr(error, "code", 0) == 404 else None
    if int(found.get("size", 0)) > MOST_BYTES:
        return {"updated": found["updated"], "status": ""}
    try:
        content = _call("GET", f"{_object(f'jobs/{job}/state.json')}?alt=media", token)
        status = content.get("status") if isinstance(content, dict) else ""
    except (OSError, ValueError):
        status = ""
    return {"updated": found["updated"], "status": status}


def _minutes(then: str, now: datetime) -> float:
    return (now - datetime.fromisoformat(then)).total_seconds() / 60


def _number(text: str | None, otherwise: int) -> int:
    return int(text) if text and text.isdigit() else otherwise


def _quoted(name: str) -> str:
    return urllib.parse.quote(name, safe="")


def _object(name: str) -> str:
    return f"{STORAGE}/storage/v1/b/{os.environ['ELSON_SCRATCH']}/o/{_quoted(name)}"


def _upload() -> str:
    return f"{STORAGE}/upload/storage/v1/b/{os.environ['ELSON_SCRATCH']}/o?uploadType=media"


def _token() -> str:
    request = urllib.request.Request(f"{METADATA}/instance/service-accounts/default/token", headers={"Metadata-Flavor": "Google"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return str(json.load(answer)["access_token"])


def _call(method: str, url: str, token: str, body: bytes = b"") -> dict[str, Any]:
    """Raises OSError for an answer that is an error or cut off, ValueError for one that is no JSON: one group's objects never hide the others."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", "Content-Length": str(len(body))}
    request = urllib.request.Request(url, data=body or None, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            text = answer.read()
        parsed: dict[str, Any] = json.loads(text) if text else {}
    except http.client.HTTPException as error:
        raise OSError(repr(error)) from None
    except RecursionError:
        raise ValueError("JSON that is nested too deeply") from None
    return parsed


def _say(severity: str, message: str, **fields: Any) -> None:
    sys.stdout.write(json.dumps({"severity": severity, "message": message, **fields}) + "\n")
    sys.stdout.flush()
