"""A container's progress lines, published where `elson status` looks: guest attributes within seconds, the job's state twice a minute."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from functools import partial
from typing import Any

from runners import log
from runners.vm.cloud import CloudError, guest_attribute
from runners.vm.decide import OVER, Decision, Job
from runners.vm.state import Context

_ATTRIBUTE_S, _STATE_S = 3.0, 30.0


class Publisher:
    """Publishes the newest progress from a thread of its own: a slow bucket must not hold up the container's output."""

    def __init__(self, context: Context, stage: str) -> None:
        self._context, self._stage, self._newest = context, stage, dict[str, Any]()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._publish, daemon=True)

    def __enter__(self) -> Publisher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(timeout=30)

    def line(self, line: str) -> None:
        """Take note of a line."""
        if found := log.read_progress(line):
            self._newest = found

    def _publish(self) -> None:
        shown, written_s = dict[str, Any](), 0.0
        while not self._end.wait(_ATTRIBUTE_S):
            newest = self._newest
            if newest == shown:
                continue
            shown = newest
            guest_attribute("progress", json.dumps({"stage": self._stage, **newest}))
            if time.monotonic() - written_s > _STATE_S:
                written_s = time.monotonic()
                try:
                    self._context.settle(partial(_noted, newest))
                except CloudError as error:
                    log.warning("progress not written", problem=str(error)[:200])


def _noted(newest: dict[str, Any], job: Job) -> Decision:
    return Decision("work", job if job.status in OVER else replace(job, progress=newest))
