"""Services on Cloud Run, as the watchdog sees them: which are ours, whether one has instances, and for how long without a pause. Pure.

The platform ends an instance some minutes after its last request, so a service that is used now and then needs no other stop. One that is asked for ever,
or whose ``min_instances`` are kept, has none: it is deleted when it has served for as long as a server's VM may live. `elson up` makes it again.
"""

from datetime import datetime, timedelta
from typing import Any

from judgement import minutes_since, number

#: How far back the platform is asked for instances: points come a minute apart, and up to four minutes late.
WINDOW = timedelta(minutes=10)
#: Of a service that does not say for how long it may serve: a day, as a server's VM.
DEFAULT_MINUTES = 1455
#: A Cloud Function, this one too, is a service with our prefix; it has not this label.
_ROLE = ("elson-role", "serve")


def ours(answer: dict[str, Any], prefix: str) -> list[dict[str, Any]]:
    """Of a page of services, those that serve: each with its name, id, region, bound, and whether instances are kept while nobody asks."""
    found = []
    for one in answer.get("services", []):
        *_, region, _, name = str(one["name"]).split("/")
        if not name.startswith(prefix) or one.get("labels", {}).get(_ROLE[0]) != _ROLE[1]:
            continue
        template = one.get("template", {})
        scalings = (template.get("scaling", {}), one.get("scaling", {}))
        values = {entry["name"]: entry.get("value", "") for container in template.get("containers", []) for entry in container.get("env", [])}
        found.append(
            {
                "name": str(one["name"]),
                "short": name,
                "id": str(one.get("uid") or one["name"]),
                "region": region,
                "minutes": number(values.get("ELSON_MAX_MINUTES"), DEFAULT_MINUTES),
                "is_kept": any(scaling.get(key, 0) for scaling in scalings for key in ("minInstanceCount", "manualInstanceCount")),
            }
        )
    return found


def instances_filter(service: dict[str, Any]) -> str:
    """What Cloud Monitoring is asked: the platform's own count, whatever the instances say."""
    of = f'resource.labels.service_name="{service["short"]}" AND resource.labels.location="{service["region"]}"'
    return f'resource.type="cloud_run_revision" AND metric.type="run.googleapis.com/container/instance_count" AND {of}'


def has_instances(answer: dict[str, Any]) -> bool:
    """Whether any point of the answer counts one."""
    return any(int(point.get("value", {}).get("int64Value", 0)) > 0 for series in answer.get("timeSeries", []) for point in series.get("points", []))


def judge(memory: dict[str, Any], service: dict[str, Any], is_serving: bool, now: datetime) -> tuple[dict[str, Any], str]:
    """(what to remember, why to delete the service or an empty text). ``memory`` holds since when it serves; a pause begins a new count."""
    if not is_serving:
        return {}, ""
    try:
        lasted = minutes_since(memory["since"], now)
    except (KeyError, TypeError, ValueError):
        return {"since": now.isoformat()}, ""
    if lasted <= service["minutes"]:
        return {"since": memory["since"]}, ""
    return {"since": memory["since"]}, f"it has served for {lasted:.0f} minutes without a pause, {service['minutes']} are allowed"
