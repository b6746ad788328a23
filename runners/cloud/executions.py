"""What Cloud Run says of a training's executions: whether one waits, works or has ended, and why. The counterpart of a group and its VM in ``jobs.py``."""

from __future__ import annotations

import os
from typing import Any

_RUN = "https://run.googleapis.com"
#: The jobs of a training, in their order.
KINDS = ("train", "quantize")
#: Executions of a job that are shown: the newest.
_SHOWN = 3


def job_names(job_id: str) -> list[str]:
    """The jobs of Cloud Run that a training has."""
    return [f"elson-{kind}-{job_id.rsplit('-', 1)[-1][:8]}" for kind in KINDS]


def of(session: Any, where: dict[str, str]) -> dict[str, Any]:
    """Executions of a training's jobs, oldest first, and how many of them have not ended (``size``). Raises OSError."""
    found: list[dict[str, Any]] = []
    for job in where["run_jobs"].split():
        newest = sorted(_listed(session, f"projects/{where['project']}/locations/{where['region']}/jobs/{job}"), key=lambda one: one["created"])
        found += newest[-_SHOWN:]
    return {"executions": found, "size": sum(not one["ended"] for one in found)}


def cancel(session: Any, where: dict[str, str]) -> list[str]:
    """Cancel the executions of a training's jobs that have not ended; returns their names. One that ends meanwhile is no error. Raises OSError."""
    names = [one["name"] for one in of(session, where)["executions"] if not one["ended"]]
    for name in names:
        job = next(job for job in where["run_jobs"].split() if name.startswith(f"{job}-"))
        path = f"projects/{where['project']}/locations/{where['region']}/jobs/{job}/executions/{name}"
        answer = session.post(f"{_url()}/v2/{path}:cancel", json={}, timeout=30)
        if answer.status_code not in (200, 400, 404):
            raise OSError(f"Cloud Run answers {answer.status_code}: {answer.text[:200]}")
    return names


def _url() -> str:
    return os.environ.get("CLOUDSDK_API_ENDPOINT_OVERRIDES_RUN", _RUN).rstrip("/")


def _listed(session: Any, job: str) -> list[dict[str, Any]]:
    url, params = f"{_url()}/v2/{job}/executions", {"pageSize": "100"}
    found: list[dict[str, Any]] = []
    while True:
        answer = session.get(url, params=params, timeout=30)
        if answer.status_code == 404:
            return []  # the job is gone, or not made yet
        if answer.status_code != 200:
            raise OSError(f"Cloud Run answers {answer.status_code}: {answer.text[:200]}")
        listed = answer.json()
        found += [_shown(one) for one in listed.get("executions", [])]
        if not listed.get("nextPageToken"):
            return found
        params["pageToken"] = listed["nextPageToken"]


def _shown(one: dict[str, Any]) -> dict[str, Any]:
    failed = [str(said.get("message", "")) for said in one.get("conditions", []) if said.get("state") == "CONDITION_FAILED"]
    return {
        "name": str(one["name"]).rpartition("/")[2],
        "phase": _phase(one),
        "created": one.get("createTime", ""),
        "started": one.get("startTime", ""),
        "ended": one.get("completionTime", ""),
        "tried_again": bool(one.get("retriedCount")),
        "problem": "; ".join(dict.fromkeys(failed))[:300],
    }


def _phase(one: dict[str, Any]) -> str:
    if one.get("completionTime"):
        ends = {"succeededCount": "succeeded", "cancelledCount": "cancelled", "failedCount": "failed"}
        return next((word for count, word in ends.items() if one.get(count)), "ended")
    if one.get("runningCount"):
        return "running"
    return "between two tries" if one.get("startTime") else "waiting for a card"
