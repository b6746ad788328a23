"""Resize every elson group of this project to 0, cancel every execution on Cloud Run and delete every service that serves there, when the budget's message
says that the month's money is used up.

Deployed as a Cloud Function that the budget's Pub/Sub topic calls. Google sends the cost several times a day; a message below the limit does nothing. Raising
makes Pub/Sub deliver the message again, so a group that could not be resized is tried again.
"""

import base64
import http.client
import json
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any

COMPUTE = os.environ.get("ELSON_COMPUTE_URL", "https://compute.googleapis.com/compute/v1")
RUN = os.environ.get("ELSON_RUN_URL", "https://run.googleapis.com")
METADATA = os.environ.get("ELSON_METADATA_URL", "http://metadata.google.internal/computeMetadata/v1")
PREFIX = "elson-"
#: Deleting an autoscaler takes seconds; what takes longer is tried at the next message.
_TRIES, _PAUSE_S = 10, 3.0


def stop(request: Any) -> str:
    """Handle one message: a POST of Pub/Sub whose JSON carries the budget's notification in base64."""
    notice = json.loads(base64.b64decode(request.get_json(force=True)["message"]["data"]))
    if not is_used_up(notice, float(os.environ.get("ELSON_STOP_FRACTION", "1.0"))):
        _say("INFO", "within the budget", cost=notice.get("costAmount"), budget=notice.get("budgetAmount"))
        return "within the budget"
    project, failed = os.environ["ELSON_PROJECT"], []
    token = _token()
    for scope, name, is_scaled in _groups(project, token):
        try:
            _empty(f"{COMPUTE}/projects/{project}/{scope}", name, scaled=is_scaled, token=token)
            _say("WARNING", "budget used up: group resized to 0", group=name, scope=scope, cost=notice["costAmount"], budget=notice["budgetAmount"])
        except (OSError, ValueError, http.client.HTTPException) as error:
            failed.append(name)
            _say("ERROR", "a group could not be resized", group=name, problem=str(error))
    for region in os.environ.get("ELSON_RUN_REGIONS", "").split():
        parent = f"projects/{project}/locations/{region}"
        failed += _end(_executions, parent, "POST", ":cancel", "budget used up: execution cancelled", token, notice)
        failed += _end(_services, parent, "DELETE", "", "budget used up: service deleted", token, notice)
    if failed:
        raise RuntimeError(f"not stopped: {', '.join(failed)}")
    return "stopped"


def is_used_up(notice: dict[str, Any], fraction: float) -> bool:
    """Whether the month's cost has reached the share of the budget that stops everything. A message without figures stops nothing."""
    cost, budget = notice.get("costAmount"), notice.get("budgetAmount")
    if cost is None or not budget:
        return False
    return bool(cost >= budget * fraction)


def groups(answer: dict[str, Any]) -> list[tuple[str, str, bool]]:
    """(``regions/R`` or ``zones/Z``, name, whether it has an autoscaler) of our groups that are not at 0 already, or that something may make larger."""
    found = []
    for scope, part in answer.get("items", {}).items():
        for group in part.get("instanceGroupManagers", []):
            is_scaled = bool(group.get("status", {}).get("autoscaler"))
            if group["name"].startswith(PREFIX) and (group.get("targetSize", 0) > 0 or is_scaled):
                found.append((scope, group["name"], is_scaled))
    return found


def _empty(place: str, name: str, *, scaled: bool, token: str) -> None:
    """Resize a group to 0. An autoscaler goes first: it is named as its group, and until it is gone the size cannot be set (412)."""
    if scaled:
        try:
            _call("DELETE", f"{place}/autoscalers/{name}", token)
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
    for left in range(_TRIES, -1, -1):
        try:
            _call("POST", f"{place}/instanceGroupManagers/{name}/resize?size=0", token)
        except urllib.error.HTTPError as error:
            if error.code != 412 or not left:
                raise
            time.sleep(_PAUSE_S)
        else:
            return


def _groups(project: str, token: str) -> list[tuple[str, str, bool]]:
    """Those of every page."""
    found, page = [], ""
    while True:
        query = "maxResults=500&returnPartialSuccess=true" + (f"&pageToken={urllib.parse.quote(page, safe='')}" if page else "")
        answer = _call("GET", f"{COMPUTE}/projects/{project}/aggregated/instanceGroupManagers?{query}", token)
        found += groups(answer)
        page = answer.get("nextPageToken", "")
        if not page:
            return found


def _end(listed: Callable[[str, str], list[str]], parent: str, method: str, verb: str, said: str, token: str, notice: dict[str, Any]) -> list[str]:
    """End what is listed in a region of Cloud Run; returns what could not be ended."""
    failed = []
    try:
        names = listed(parent, token)
    except (OSError, ValueError, http.client.HTTPException) as error:
        _say("ERROR", "Cloud Run could not be looked at", parent=parent, problem=str(error))
        return [parent]
    for name in names:
        try:
            _call(method, f"{RUN}/v2/{name}{verb}", token)
            _say("WARNING", said, name=name, cost=notice["costAmount"], budget=notice["budgetAmount"])
        except (OSError, ValueError, http.client.HTTPException) as error:
            failed.append(name)
            _say("ERROR", "could not be ended", name=name, problem=str(error))
    return failed


def _executions(parent: str, token: str) -> list[str]:
    """Names of our executions in a region that have not ended."""
    found = [one for one in _listed(f"{parent}/jobs/-", "executions", token) if one.get("job", "").rpartition("/")[2].startswith(PREFIX)]
    return [one["name"] for one in found if not one.get("completionTime")]


def _services(parent: str, token: str) -> list[str]:
    """Names of our services in a region that serve. A Cloud Function, this one too, is a service with our prefix; it has not this label."""
    found = [one for one in _listed(parent, "services", token) if one["name"].rpartition("/")[2].startswith(PREFIX)]
    return [one["name"] for one in found if one.get("labels", {}).get("elson-role") == "serve"]


def _listed(parent: str, kind: str, token: str) -> list[dict[str, Any]]:
    """What every page of a list holds."""
    found, page = [], ""
    while True:
        query = "pageSize=100" + (f"&pageToken={urllib.parse.quote(page, safe='')}" if page else "")
        answer = _call("GET", f"{RUN}/v2/{parent}/{kind}?{query}", token)
        found += answer.get(kind, [])
        page = answer.get("nextPageToken", "")
        if not page:
            return found


def _token() -> str:
    request = urllib.request.Request(f"{METADATA}/instance/service-accounts/default/token", headers={"Metadata-Flavor": "Google"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return str(json.load(answer)["access_token"])


def _call(method: str, url: str, token: str) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", "Content-Length": "0"}
    request = urllib.request.Request(url, method=method, headers=headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        parsed: dict[str, Any] = json.load(answer)
    return parsed


def _say(severity: str, message: str, **fields: Any) -> None:
    sys.stdout.write(json.dumps({"severity": severity, "message": message, **fields}) + "\n")
    sys.stdout.flush()
