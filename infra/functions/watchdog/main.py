"""The watchdog: looks at every elson group, and resizes to 0 what lives too long, makes too many VMs, does not report, or is over.

Executions of Cloud Run are looked at beside the groups, by the same rules (``executions.py``), and cancelled. Services that serve without a pause for
longer than they may are deleted (``services.py``).

A job that may run in several places has a group in each: they are one family, with one memory and one pair of bounds, and ``places.py`` says which of
them is asked.

Deployed as a Cloud Function that Cloud Scheduler calls every few minutes. It believes nothing a VM says about its bounds: they come from the group's
template, ages and counts from its own memory (``watchdog/<group>.json`` in the scratch bucket). A job's state is read for two things: when it was
written, and whether the job is over. Raising makes the call an error in the logs; the next look comes anyway.
"""

import json
import os
import urllib.parse
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import apis
import bakes
import executions
import places
import services
import sizes
from judgement import DEFAULT_BOUNDS, UNBOUNDED, judge, minutes_since, number
from memory import Changed, JobMemory

PREFIX = "elson-"


def watch(_request: Any) -> str:
    """Handle one call of the scheduler."""
    project, failed, now = os.environ["ELSON_PROJECT"], [], datetime.now(UTC)
    token = apis.token()
    for name, members in _families(_groups(project, token), project, token).items():
        failed += _tried(_look, name, members, token, now)
    failed += _look_at_runs(project, token, now)
    failed += _look_at_services(project, token, now)
    failed += bakes.delete_overdue(f"{apis.COMPUTE}/projects/{project}", lambda method, url: apis.call(method, url, token), apis.say, now)
    if failed:
        raise RuntimeError(f"not looked at: {', '.join(failed)}")
    return "ok"


def groups(answer: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """(``regions/R`` or ``zones/Z``, group) of our groups."""
    return [
        (scope, group) for scope, part in answer.get("items", {}).items() for group in part.get("instanceGroupManagers", []) if group["name"].startswith(PREFIX)
    ]


def _groups(project: str, token: str) -> list[tuple[str, dict[str, Any]]]:
    """Our groups, of every page."""
    found, page = [], ""
    while True:
        query = "maxResults=500&returnPartialSuccess=true" + (f"&pageToken={apis.quoted(page)}" if page else "")
        answer = apis.call("GET", f"{apis.COMPUTE}/projects/{project}/aggregated/instanceGroupManagers?{query}", token)
        found += groups(answer)
        page = answer.get("nextPageToken", "")
        if not page:
            return found


def _look_at_runs(project: str, token: str, now: datetime) -> list[str]:
    """Judge the executions of each training on Cloud Run; returns what could not be looked at."""
    found, failed = [], []
    for region in os.environ.get("ELSON_RUN_REGIONS", "").split():
        try:
            for answer in _pages(f"projects/{project}/locations/{region}/jobs/-/executions", token):
                found += executions.unfinished(answer)
        except (OSError, ValueError, KeyError, TypeError) as error:
            failed.append(f"Cloud Run in {region}")
            apis.say("ERROR", "Cloud Run could not be looked at", region=region, problem=repr(error)[:500])
    for name, members in executions.families(found).items():
        failed += _tried(_look_at_run, name, members, token, now)
    return failed


def _look_at_services(project: str, token: str, now: datetime) -> list[str]:
    """Judge each service that serves; returns what could not be looked at."""
    failed = []
    for region in os.environ.get("ELSON_RUN_REGIONS", "").split():
        try:
            found = [one for answer in _pages(f"projects/{project}/locations/{region}/services", token) for one in services.ours(answer, PREFIX)]
        except (OSError, ValueError, KeyError, TypeError) as error:
            failed.append(f"services in {region}")
            apis.say("ERROR", "services of Cloud Run could not be looked at", region=region, problem=repr(error)[:500])
            continue
        for one in found:
            failed += _tried(_look_at_service, f"serve-{one['short']}", [one], token, now)
    return failed


def _look_at_service(name: str, members: list[dict[str, Any]], token: str, now: datetime) -> None:
    """Judge one service by the platform's count of its instances, remember, and delete it when there is a reason."""
    (service,) = members
    memory = JobMemory(f"watchdog/{name}.json", token)
    known = memory.read({service["name"]: service["id"]})
    times = {"interval.startTime": (now - services.WINDOW).isoformat(), "interval.endTime": now.isoformat()}
    asked = urllib.parse.urlencode({"filter": services.instances_filter(service), **times, "view": "FULL"})
    url = f"{apis.MONITORING}/v3/projects/{os.environ['ELSON_PROJECT']}/timeSeries?{asked}"
    is_serving = service["is_kept"] or services.has_instances(apis.call("GET", url, token))
    judged, reason = services.judge(known, service, is_serving, now)
    if judged:
        memory.keep(judged | {"groups": {service["name"]: service["id"]}})
    else:
        memory.forget()
    if reason:
        apis.call("DELETE", f"{apis.RUN}/v2/{service['name']}", token)
        apis.say("ERROR", "watchdog: service deleted", group=name, service=service["name"], reason=reason)


def _tried(look: Callable[..., None], name: str, members: list[Any], token: str, now: datetime) -> list[str]:
    """Look at one family, so that a bad one hides no other; its name where it could not be looked at."""
    try:
        look(name, members, token, now)
    except Changed:
        apis.say("INFO", "started again while it was looked at", group=name)
    except (OSError, ValueError, KeyError, TypeError) as error:
        apis.say("ERROR", "could not be looked at", group=name, problem=repr(error)[:500])
        return [name]
    return []


def _pages(path: str, token: str) -> Iterator[dict[str, Any]]:
    """Every page of a list of Cloud Run."""
    page = ""
    while True:
        query = "pageSize=100" + (f"&pageToken={apis.quoted(page)}" if page else "")
        answer = apis.call("GET", f"{apis.RUN}/v2/{path}?{query}", token)
        yield answer
        page = answer.get("nextPageToken", "")
        if not page:
            return


def _look_at_run(name: str, members: list[dict[str, Any]], token: str, now: datetime) -> None:
    """Judge one training's executions, remember, and cancel them when there is a reason."""
    memory = JobMemory(f"watchdog/{name}.json", token)
    known = memory.read({})
    at_work = sorted(member["id"] for member in members if member["at_work"])
    # The platform counts the tries, and a job's state the beginnings: here nothing has to.
    bounds = (max(number(member["minutes"], DEFAULT_BOUNDS[0]) for member in members), UNBOUNDED)
    state = apis.state(members[0]["job_id"], token)
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
            apis.call("POST", f"{apis.RUN}/v2/{member['name']}:cancel", token, b"{}")
            apis.say("ERROR", "watchdog: execution cancelled", group=name, execution=member["name"], reason=reason, minutes=judged["minutes"])
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
            apis.say("ERROR", "a group's template cannot be read", group=group["name"], problem=repr(error)[:300])
            values, ranked, first = {}, [], group["name"]
        url = f"{apis.COMPUTE}/projects/{project}/{scope}/instanceGroupManagers/{group['name']}"
        member = {"name": group["name"], "id": str(group.get("id", "")), "size": group.get("targetSize", 0), "url": url, "values": values, "places": ranked}
        member["scaler"] = f"{apis.COMPUTE}/projects/{project}/{scope}/autoscalers/{group['name']}" if group.get("status", {}).get("autoscaler") else ""
        families.setdefault(first, []).append(member)
    return families


def _look(name: str, members: list[dict[str, Any]], token: str, now: datetime) -> None:
    """Judge one job's groups, remember, stop them when there is a reason, or ask another place."""
    seen = {member["name"]: {"size": member["size"], **_managed(member, token)} for member in members}
    vms = sorted(vm for one in seen.values() for vm in one["vms"])
    ids = {member["name"]: member["id"] for member in members}
    memory = JobMemory(f"watchdog/{name}.json", token)
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
    bounds = (number(values.get("elson-max-minutes"), DEFAULT_BOUNDS[0]), number(values.get("elson-max-vms"), DEFAULT_BOUNDS[1]))
    state = apis.state(values.get("elson-job-id", ""), token)
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
    memory: JobMemory,
    token: str,
    now: datetime,
) -> dict[str, Any]:
    """Ask the place that the rules say; returns what to remember, nothing when the job is at rest. The intent is written before anything is resized."""
    silent = 0.0 if state is None else minutes_since(state["updated"], now) if state.get("updated") else float("inf")
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
        apis.say("ERROR", "watchdog: group resized to 0", group=ranked[0]["group"], reason=reason, minutes=kept["minutes"], vms=len(kept["vms"]))
    for group in empty:
        apis.call("POST", f"{urls[group]['url']}/resize?size=0", token)
    # A VM that came in the meantime goes first; the next look ends the move.
    if going and not any(_managed(urls[group], token)["vms"] for group in empty):
        apis.call("POST", f"{urls[going]['url']}/resize?size=1", token)
        apis.say("WARNING", "watchdog: another place is asked", group=going, reason=reason)
        kept |= {"place": places.begun(place, going, now)}
    return kept


def _managed(member: dict[str, Any], token: str) -> dict[str, Any]:
    """Ids of a group's VMs, and why the last attempt to make one failed."""
    managed = apis.call("POST", f"{member['url']}/listManagedInstances", token).get("managedInstances", [])
    errors = [error for one in managed for error in one.get("lastAttempt", {}).get("errors", {}).get("errors", [])]
    return {"vms": sorted(str(one["id"]) for one in managed if one.get("id")), "problems": [str(error.get("code", "")) for error in errors]}


def _stop(members: list[dict[str, Any]], reason: str, kept: dict[str, Any], name: str, memory: JobMemory, token: str) -> None:
    """Resize to 0, unless the job was started again since this look began; storage that does not answer keeps no VM alive."""
    trouble: OSError | None = None
    try:
        memory.keep(kept | {"stopped": reason})
    except OSError as error:
        trouble = error
    asked = [member for member in members if member["size"] or not member["places"]]
    for member in asked:
        try:
            sizes.empty(member, lambda method, url: apis.call(method, url, token))
        except OSError as error:
            trouble = error
    if trouble:
        raise trouble
    # Its VMs go on for ten minutes of draining: that is looked at again, and not said again.
    if any(member["size"] or member["scaler"] for member in asked):
        apis.say("ERROR", "watchdog: group resized to 0", group=name, reason=reason, minutes=kept["minutes"], vms=len(kept["vms"]))
    memory.keep(kept | {"stopped": reason, "emptied": [member["name"] for member in members]})


def _template(group: dict[str, Any], token: str) -> dict[str, str]:
    """The metadata of the group's template."""
    path = group["versions"][0]["instanceTemplate"].split("/compute/v1/")[-1]
    items = apis.call("GET", f"{apis.COMPUTE}/{path}", token)["properties"]["metadata"]["items"]
    return {item["key"]: item["value"] for item in items}
