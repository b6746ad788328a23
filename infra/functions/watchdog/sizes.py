"""How a group is resized to 0: an autoscaler of several servers has to go first, since Compute refuses to set the size of a group that has one (412)."""

import time
from collections.abc import Callable
from typing import Any

#: Deleting an autoscaler takes seconds; what takes longer is tried at the next look.
TRIES, PAUSE_S = 10, 3.0


def empty(member: dict[str, Any], call: Callable[[str, str], Any]) -> None:
    """Resize to 0. Raises OSError when the group does not let itself be resized.

    Args:
        member: ``url`` of the group, and ``scaler``, the URL of its autoscaler or nothing.
        call: (method, URL) -> answer; raises OSError with the status as ``code``.
    """
    if member["scaler"]:
        try:
            call("DELETE", member["scaler"])
        except OSError as error:
            if getattr(error, "code", 0) != 404:
                raise
    for left in range(TRIES, -1, -1):
        try:
            call("POST", f"{member['url']}/resize?size=0")
        except OSError as error:
            if getattr(error, "code", 0) != 412 or not left:
                raise
            time.sleep(PAUSE_S)
        else:
            return
