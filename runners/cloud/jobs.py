"""What VMs and executions of Cloud Run are doing, from the bucket and Google's APIs; nothing here logs into one.

A job's state and logs stand in the scratch bucket and outlive its machine. While there is a machine, its group says whether capacity is being
waited for, and its guest attributes say how far the work is; a job that may run in several places has a group in each. All of that is optional: a
finished job, or a user without rights on Compute, still gets the state.

A state is written by its VM and read with the user's rights, so what it says of its machine is held against what is known without it (``where``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from runners import outside
from runners.artifacts import layout, storage
from runners.cloud import executions
from runners.errors import UserError
from runners.identity import stage_id
from runners.spec import BucketSpec, Spec, parse
from runners.vm import decide

#: A VM that works writes its job's state once a minute; one that has not for so long is gone (the watchdog's measure, too).
_SILENT_MINUTES = 20
_TOO_LARGE = 1e15
_COMPUTE = "https://compute.googleapis.com/compute/v1"


def names(buckets: BucketSpec) -> list[str]:
    """Ids of every job that left a state."""
    found = storage.listing(layout.job(buckets, "").rstrip("/"))
    return sorted({stored.path.split("/")[0] for stored in found if stored.path.endswith("/state.json")})


def state(buckets: BucketSpec, job_id: str) -> dict[str, Any]:
    """A job's state. Raises UserError when there is none."""
    found = there(buckets, job_id)
    if found is None:
        known = ", ".join(names(buckets)) or "none"
        raise UserError(f"there is no job {job_id}", f"a job that a VM began ({known})", "`pulumi up` starts one; its VM writes the state when it boots")
    return found


def there(buckets: BucketSpec, job_id: str) -> dict[str, Any] | None:
    """A job's state, or None. Raises UserError for one that no VM of this job wrote."""
    uri = f"{layout.job(buckets, job_id)}/state.json"
    found = storage.read_json(uri)
    if found is None:
        return None
    try:
        value = _checked(found[0])
    except ValueError as error:
        raise UserError(f"{uri} is no job's state: {error}", "what a VM writes", f"elson retry {job_id}: the job begins again") from None
    _same(buckets, job_id, "job", value["job_id"], job_id)
    _same(buckets, job_id, "role", value["role"], role_of(job_id))
    return value


def every(buckets: BucketSpec) -> list[dict[str, Any]]:
    """The state of each job; one that cannot be read says so, and hides no other."""
    found = []
    for name in names(buckets):
        try:
            found.append(state(buckets, name))
        except UserError as error:
            found.append({"job_id": name, "role": role_of(name), "status": "unreadable", "attempts": 0, "reason": error.found})
    return found


def _checked(value: Any) -> dict[str, Any]:
    """A state whose every part has the type that a VM writes. Raises ValueError."""
    job = decide.Job.from_json(value)
    numbers = {"max_attempts": value.get("max_attempts", 0), "minutes_left": value.get("minutes_left") or 0, "retries": value.get("retries", 0)}
    numbers |= {key: job.progress.get(key, 0) for key in ("done", "total")}
    for key, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, int | float) or not -_TOO_LARGE < number < _TOO_LARGE:
            raise ValueError(f"{key} is {str(number)[:80]!r}")
    if not isinstance(value.get("machine", {}), dict) or not {"status", "attempts"} <= value.keys():
        raise ValueError("machine, status or attempts is missing")
    return dict(value)


def role_of(job_id: str) -> str:
    """``train`` or ``serve``."""
    return "serve" if job_id.startswith("serve-") else "train"


def group_name(job_id: str) -> str:
    """The group of a job's first place; that of place 2 ends in ``-2``."""
    return f"elson-{role_of(job_id)}-{job_id.rsplit('-', 1)[-1][:8]}"


def where(buckets: BucketSpec, job_id: str, state: dict[str, Any], project: str) -> dict[str, str]:
    """Project, region and group (on Cloud Run: the jobs) of a job's machine, as its state has them; empty where that is not known.

    Raises UserError when the state names anything but a group or job of this job, in this project, in the region of the spec that it was made with.

    Args:
        project: the user's; nothing is asked of another one.
    """
    if not state:
        return {}
    _same(buckets, job_id, "job", state.get("job_id"), job_id)
    _same(buckets, job_id, "role", state.get("role"), role_of(job_id))
    found = state.get("machine") or {}
    if not isinstance(found, dict):
        _same(buckets, job_id, "machine", found, "project, region and group")
    if not project or not {"group", "run_job"} & found.keys():
        return {}
    if "run_job" in found:
        known = executions.job_names(job_id)
        if found["run_job"] not in known:
            _same(buckets, job_id, "job of Cloud Run", found["run_job"], " or ".join(known))
        _same(buckets, job_id, "project", found.get("project"), project)
        _same(buckets, job_id, "region", found.get("region"), _region(buckets, job_id, state.get("spec_uri")))
        return {"project": project, "region": found["region"], "run_jobs": " ".join(known)}
    first = group_name(job_id)
    if not isinstance(found["group"], str) or not re.fullmatch(rf"{re.escape(first)}(-\d)?", found["group"]):
        _same(buckets, job_id, "group", found["group"], first)
    _same(buckets, job_id, "project", found.get("project"), project)
    _same(buckets, job_id, "region", found.get("region"), _region(buckets, job_id, state.get("spec_uri")))
    return {"project": project, "region": found["region"], "group": found["group"]}


def _region(buckets: BucketSpec, job_id: str, uri: Any) -> str:
    """Region of the spec that a machine of the job was made with."""
    spec = _spec(buckets, job_id, uri)
    return spec.machine.region if spec.machine else ""


def _spec(buckets: BucketSpec, job_id: str, uri: Any) -> Spec:
    folder, _, name = str(uri).rpartition("/")
    _same(buckets, job_id, "folder of specs", folder, layout.spec(buckets, "").rpartition("/")[0])
    found = storage.read_json(f"{folder}/{name}")
    if found is None:
        raise UserError(f"there is no spec at {uri}", f"the spec of the job {job_id}", "`pulumi up` uploads it again")
    outside.check_named_by_digest(str(uri), found[0])
    spec = parse(found[0], str(uri))
    role = spec.machine.role if spec.machine else "none"
    of_training = role_of(job_id) == "train"
    _same(buckets, job_id, "job's spec", stage_id(spec, "quantize") if role == "train" else role, job_id if of_training else "serve")
    return spec


def cost(buckets: BucketSpec, job_id: str, state: dict[str, Any]) -> dict[str, Any]:
    """Minutes that a job's machines have lived since it began, and about what they cost at the price of the newest one's spec; empty without a price.

    Raises UserError when the state names a spec that is not the job's.
    """
    if "spec_uri" not in state:
        return {}
    machine = _spec(buckets, job_id, state["spec_uri"]).machine
    if machine is None or machine.price is None:
        return {}
    seconds, price = decide.lived_s(decide.Job.from_json(state)), machine.price
    found = {"minutes": round(seconds / 60, 1), "usd": round(seconds / 3600 * price.usd_per_hour, 2)}
    return {**found, "usd_per_hour": price.usd_per_hour, "priced_at": str(price.priced_at)}


def models(buckets: BucketSpec, job_id: str, state: dict[str, Any]) -> dict[str, str]:
    """What a server's models are called, with the registry id of each; empty for a training. Raises UserError when the state names another job's spec."""
    if "spec_uri" not in state or role_of(job_id) != "serve":
        return {}
    return {one.served_model_name: one.model_id or one.model for one in _spec(buckets, job_id, state["spec_uri"]).serve.models()}


def _same(buckets: BucketSpec, job_id: str, what: str, found: Any, expected: str) -> None:
    if found != expected:
        uri = f"{layout.job(buckets, job_id)}/state.json"
        raise UserError(
            f"{uri} names another {what}: {str(found)[:100]!r}", expected, f"look who wrote it (its VM's account may); gcloud storage rm {uri} forgets it"
        )


def retry(buckets: BucketSpec, job_id: str, compute: Callable[[dict[str, str]], dict[str, Any]] | None = None, project: str = "") -> dict[str, Any]:
    """Let a job begin again that failed, or whose VM is gone without a word, or whose state cannot be read: no attempts, no minutes behind it.

    The watchdog forgets it too. What was published stays found. Returns the new state. Raises UserError when the job is done, a VM may be working on it, or
    the state names a machine that is not the job's.

    Args:
        compute: what the Compute API says of a job's group; ``machine`` by default.
        project: the user's; without it Compute is not asked.
    """
    uri = f"{layout.job(buckets, job_id)}/state.json"
    found = storage.read(uri)
    if found is None:
        state(buckets, job_id)  # raises, with the jobs there are
    content, generation = found or (b"", 0)
    try:
        before = _checked(json.loads(content))
        job = decide.Job.from_json(before)
    except (ValueError, RecursionError):
        before, job = {}, decide.Job(job_id, role_of(job_id), status="failed", reason="its state could not be read")
    place = where(buckets, job_id, before, project)
    if "run_jobs" in place and (compute or machine)(place).get("size"):
        # The platform's next try of this execution would work beside the one that is started now.
        raise UserError(f"an execution of {job_id} has not ended", "none", f"wait a minute, or cancel it: elson status {job_id} names it")
    if job.status not in ("failed", "deadline") and (job.status in ("done", "idle") or _may_be_working(before, (compute or machine)(place))):
        raise UserError(f"the job {job_id} is {job.status}", "a job that failed, passed its deadline, or lost its VM", f"elson status {job_id}")
    again = replace(decide.begin_again(job), status="queued", reason=f"started again after: {job.reason or job.status}")
    try:
        storage.write_json(uri, {**before, **again.to_json(), "retries": before.get("retries", 0) + 1}, generation=generation)
    except storage.Conflict:
        raise UserError(f"the job {job_id} is being written by a VM", "a job that nobody works on", f"elson status {job_id}") from None
    for memory in (group_name(job_id), f"run-{group_name(job_id)}"):
        storage.delete_object(layout.watchdog(buckets, memory))
    return state(buckets, job_id)


def _may_be_working(before: dict[str, Any], vm: dict[str, Any]) -> bool:
    """Whether a VM may be at work: its group has one to make or to run, or, where Compute cannot be asked, the state was written a moment ago."""
    if "size" in vm:
        return bool(vm["size"])
    try:
        return datetime.now(UTC) - datetime.fromisoformat(before["updated_at"]) < timedelta(minutes=_SILENT_MINUTES)
    except (KeyError, ValueError, TypeError):
        return True


def begin(buckets: BucketSpec, job_id: str, where: dict[str, str]) -> str:
    """After `pulumi up`: start a job that has no VM; returns why that did not work, or an empty text.

    A job that the watchdog stopped has nothing behind it then, also before the watchdog's next look. One that it did not stop keeps its bounds.
    """
    uri = layout.watchdog(buckets, group_name(job_id))
    memory = storage.read_json(uri)
    if memory and isinstance(memory[0], dict) and "stopped" in memory[0]:
        storage.delete_object(uri)
    return start(where)


def start(where: dict[str, str]) -> str:
    """Set a job's group, which is there with size 0, to 1 again; returns why that did not work, or an empty text.

    With several places it is the group of the first one, and none where one of them has a VM or waits for it. Pulumi's state says 1 all the time, so
    `pulumi up` alone would change nothing.
    """
    import google.auth.exceptions

    if not where:
        return "neither the state nor GOOGLE_CLOUD_PROJECT says where it is"
    if "run_jobs" in where:
        # By its token `pulumi up` knows which executions it has started: one of ours beside it would be a second training.
        return "`pulumi up` starts what is on Cloud Run"
    try:
        session = _session()
        groups = _groups(session, where)
        # An autoscaler asks for its least a minute after it was made, and nobody else may set the size of its group.
        if any(group["size"] or group["scaled"] for group in groups):
            return ""
        if not groups:
            return f"the group {where['group']} is gone"
        answer = session.post(f"{groups[0]['url']}/resize", params={"size": 1}, timeout=30)
    except (google.auth.exceptions.GoogleAuthError, OSError, KeyError) as error:
        return f"Compute cannot be asked: {str(error)[:200]}"
    return "" if answer.status_code == 200 else f"Compute answers {answer.status_code}: {answer.text[:200]}"


def last_log(buckets: BucketSpec, job_id: str, lines: int) -> list[str]:
    """The end of the newest log that a VM kept."""
    folder = f"{layout.job(buckets, job_id)}/logs"
    found = storage.listing(folder)
    if not found:
        return []
    known = state(buckets, job_id).get("boots", [])
    order = {f"{boot['instance']}-{boot['id'].replace('-', '')[:8]}.log": number for number, boot in enumerate(known)}
    newest = max(found, key=lambda stored: order.get(stored.path, -1))
    content = storage.read(f"{folder}/{newest.path}")
    return content[0].decode(errors="replace").splitlines()[-lines:] if content else []


def machine(where: dict[str, str]) -> dict[str, Any]:
    """What Compute says of a job's group and VM, in whichever of its places, or Cloud Run of its executions; ``{"problem": …}`` where that cannot be asked."""
    import google.auth.exceptions

    if not where:
        return {"problem": "neither the state nor GOOGLE_CLOUD_PROJECT says where the VM is"}
    try:
        session = _session()
        return executions.of(session, where) if "run_jobs" in where else _machine(session, where)
    except (google.auth.exceptions.GoogleAuthError, OSError, KeyError) as error:
        return {"problem": f"{'Cloud Run' if 'run_jobs' in where else 'Compute'} cannot be asked: {str(error)[:200]}"}


def cancel(where: dict[str, str]) -> list[str]:
    """Cancel what works on a training on Cloud Run; returns the executions' names. Raises OSError."""
    return executions.cancel(_session(), where)


def executions_left(where: dict[str, str]) -> list[str]:
    """Names of a training's executions that have not ended. Raises OSError."""
    return [one["name"] for one in executions.of(_session(), where)["executions"] if not one["ended"]]


def _session() -> Any:
    import google.auth
    from google.auth.transport.requests import AuthorizedSession

    credentials, _ = google.auth.default(scopes=["https://www.googleapis.com/auth/cloud-platform"])
    return AuthorizedSession(credentials)


def _groups(session: Any, where: dict[str, str]) -> list[dict[str, Any]]:
    """A job's groups, best place first: ``elson-train-ID``, then ``elson-train-ID-2`` and so on, each in the region of its place. Raises OSError."""
    project = f"{_COMPUTE}/projects/{where['project']}"
    kind, first = "instanceGroupManagers", re.sub(r"-\d$", "", where["group"])
    found = [
        {
            "name": group["name"],
            "region": scope.rpartition("/")[2],
            "size": group.get("targetSize", 0),
            "scaled": bool(group.get("status", {}).get("autoscaler")),
            "url": f"{project}/{scope}/{kind}/{group['name']}",
        }
        for listed in _pages(session, f"{project}/aggregated/{kind}", where["region"])
        for scope, part in listed.get("items", {}).items()
        for group in part.get(kind, [])
        if re.fullmatch(rf"{re.escape(first)}(-\d)?", group["name"])
    ]
    return sorted(found, key=lambda group: group["name"])


def _pages(session: Any, url: str, region: str) -> Iterator[dict[str, Any]]:
    """Every page of an aggregated list. Raises OSError where it, or the region, does not answer."""
    params: dict[str, Any] = {"maxResults": 500, "returnPartialSuccess": "true"}
    while True:
        answer = session.get(url, params=params, timeout=30)
        if answer.status_code != 200:
            raise OSError(f"it answers {answer.status_code}: {answer.text}")
        listed = answer.json()
        if any(there.endswith(f"regions/{region}") for there in listed.get("unreachables", [])):
            raise OSError(f"{region} does not answer")
        yield listed
        if not listed.get("nextPageToken"):
            return
        params["pageToken"] = listed["nextPageToken"]


def _machine(session: Any, where: dict[str, str]) -> dict[str, Any]:
    groups = _groups(session, where)
    if not groups:
        return {"group": where["group"], "size": 0, "note": "the group is gone"}
    asked = next((group for group in groups if group["size"]), None) or next((group for group in groups if group["name"] == where["group"]), groups[0])
    found: dict[str, Any] = {"group": asked["name"], "size": asked["size"], "instances": []}
    if len(groups) > 1:
        found["places"] = [{key: group[key] for key in ("name", "region", "size")} for group in groups]
    managed = session.post(f"{asked['url']}/listManagedInstances", timeout=30).json().get("managedInstances", [])
    for instance in managed:
        path = instance.get("instance", "").split("/compute/v1/")[-1]
        shown: dict[str, Any] = {"name": path.rsplit("/", 1)[-1], "status": instance.get("instanceStatus", ""), "action": instance.get("currentAction", "")}
        # A VM that cannot be had has no status, and its last attempt says why (ZONE_RESOURCE_POOL_EXHAUSTED, a quota, …).
        errors = instance.get("lastAttempt", {}).get("errors", {}).get("errors", [])
        if errors:
            shown["problem"] = "; ".join(f"{error.get('code')}: {error.get('message', '')}"[:200] for error in errors)
        if path.startswith("projects/"):
            shown["attributes"] = _attributes(session, path)
        found["instances"].append(shown)
    return found


def _attributes(session: Any, path: str) -> dict[str, Any]:
    answer = session.get(f"{_COMPUTE}/{path}/getGuestAttributes", params={"queryPath": "elson/"}, timeout=30)
    if answer.status_code != 200:
        return {}
    values = {}
    for item in answer.json().get("queryValue", {}).get("items", []):
        try:
            values[item["key"]] = json.loads(item["value"])
        except ValueError:
            values[item["key"]] = item["value"]
    return values
