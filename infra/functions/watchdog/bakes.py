"""VMs of `elson images bake` whose command was killed after it had stopped them: the platform's end of a VM holds only while it runs, and a disk is billed.

Found by their label, in every zone, and deleted an hour and a half after they were made.
"""

import urllib.parse
from collections.abc import Callable
from datetime import datetime
from typing import Any

#: A bake has an hour; its image takes a few minutes more.
OVERDUE_MINUTES = 90
LABEL = "elson-bake"


def overdue(answer: dict[str, Any], now: datetime) -> list[str]:
    """``zones/Z/instances/NAME`` of a page's VMs that are overdue."""
    return [
        f"{scope}/instances/{vm['name']}"
        for scope, part in answer.get("items", {}).items()
        for vm in part.get("instances", [])
        if LABEL in vm.get("labels", {}) and (now - datetime.fromisoformat(vm["creationTimestamp"])).total_seconds() > 60 * OVERDUE_MINUTES
    ]


def delete_overdue(url: str, call: Callable[[str, str], dict[str, Any]], say: Callable[..., None], now: datetime) -> list[str]:
    """Delete what is overdue; returns what could not be looked at or deleted.

    Args:
        url: the project's, of Compute.
        call: (method, address) -> the answer. Raises OSError and ValueError.
        say: (severity, message, fields).
        now: the time.
    """
    failed: list[str] = []
    page = ""
    asked = f"filter={urllib.parse.quote(f'labels.{LABEL}=true')}&maxResults=500&returnPartialSuccess=true"
    while True:
        try:
            answer = call("GET", f"{url}/aggregated/instances?{asked}" + (f"&pageToken={urllib.parse.quote(page, safe='')}" if page else ""))
            late = overdue(answer, now)
        except (OSError, ValueError, KeyError, TypeError) as error:
            say("ERROR", "the VMs of bakes could not be looked at", problem=repr(error)[:500])
            return [*failed, "VMs of bakes"]
        for name in late:
            try:
                call("DELETE", f"{url}/{name}")
                say("ERROR", "watchdog: the VM of a bake was deleted", vm=name, reason=f"older than {OVERDUE_MINUTES} minutes")
            except (OSError, ValueError) as error:
                failed.append(name)
                say("ERROR", "the VM of a bake could not be deleted", vm=name, problem=repr(error)[:500])
        page = answer.get("nextPageToken", "")
        if not page:
            return failed
