"""The tasks of trainings on Cloud Run, as the watchdog sees them: executions that have not ended, by the training they belong to.

A try's time-out and the number of tries are the platform's bounds (``timeout``, ``maxRetries``): ten hours for the two jobs of a training, four times what
its plan allows. So the watchdog judges executions as it judges VMs, by minutes at work and by silence, and cancels them. Pure.
"""

import re
from typing import Any

#: A training is two jobs, whose names end alike.
_TRAINING = re.compile(r"elson-(?:train|quantize)-([0-9a-f]{8})")


def unfinished(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """Of a page of executions, ours that have not ended: each with its family, id, job id and bound. ``at_work``: a try runs, and is billed."""
    found = []
    for one in answer.get("executions", []):
        training = _TRAINING.fullmatch(str(one.get("job", "")).rpartition("/")[2])
        if not training or one.get("completionTime"):
            continue
        containers = one.get("template", {}).get("containers") or [{}]
        values = {entry["name"]: entry.get("value", "") for entry in containers[0].get("env", [])}
        found.append(
            {
                "name": str(one["name"]),
                "id": str(one.get("uid") or one["name"]),
                "family": f"run-elson-train-{training[1]}",
                "job_id": values.get("ELSON_JOB", ""),
                "minutes": values.get("ELSON_MAX_MINUTES", ""),
                "at_work": int(one.get("runningCount", 0)) > 0,
            }
        )
    return found


def families(found: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Training -> its executions that have not ended."""
    trainings: dict[str, list[dict[str, Any]]] = {}
    for one in found:
        trainings.setdefault(one["family"], []).append(one)
    return trainings


def remembered(memory: dict[str, Any]) -> dict[str, Any]:
    """A memory without the executions that were not at work at the last look: between two tries, which is free, nobody reports."""
    present, seen = memory.get("present", []), memory.get("vms", {})
    return {**memory, "vms": {one: since for one, since in seen.items() if one in present}}
