"""What the tests of the stacks share."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from engine import Registered, Run

Runs = Callable[[str, bool], Run]
MACHINES = ("train-h100", "serve-l4", "serve-l4-spot")
ALL = ("foundation", *MACHINES)


def content(uploaded: Registered) -> Any:
    """What an object will hold."""
    return json.loads(json.loads(uploaded.inputs["content"]))
