"""A job's log and state while a person waits: until training is done, or until the server answers. Reads only; leaving it changes nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from runners import outside
from runners.cloud import jobs
from runners.errors import Temporary, UserError
from runners.spec import BucketSpec
from runners.vm.decide import OVER

_EVERY_S = 10.0
#: A bucket that cannot be reached for so long ends the waiting, not the job.
_PATIENCE_S = 600.0

Say = Callable[[str], None]


def follow(buckets: BucketSpec, job_id: str, role: str, machine: dict[str, str], say: Say, every_s: float = _EVERY_S) -> dict[str, Any]:
    """Say what changes until the job is over or the server is ready; returns its last state. Raises UserError when it ended without success.

    Args:
        buckets: where the state and the logs are.
        job_id: the job.
        role: ``train`` or ``serve``.
        machine: project, region and group (or jobs), for what Compute (or Cloud Run) says before there is a state.
        say: takes one line.
        every_s: seconds between two looks.
    """
    seen, begun = _Seen(say), _status(_read(buckets, job_id))
    unreachable_s = 0.0
    while True:
        try:
            state = _read(buckets, job_id)
            lines = jobs.last_log(buckets, job_id, 10_000) if state else []
        except Temporary as error:
            unreachable_s += every_s
            if unreachable_s > _PATIENCE_S:
                raise
            seen.line(f"the bucket cannot be reached: {error.found}")
        else:
            unreachable_s = 0.0
            seen.log(lines)
            seen.state(state)
            # A failure that was there before is the last run's: the new VM has not reported yet.
            if _succeeded(role, state) or (_ended(role, state) and _status(state) != begun):
                time.sleep(every_s)  # a VM keeps its last lines after it wrote its last state
                seen.log(jobs.last_log(buckets, job_id, 10_000))
                return _outcome(role, state)
            if _waits(state):
                seen.waiting(jobs.machine(machine))
        time.sleep(every_s)


class _Seen:
    """What was said already."""

    def __init__(self, say: Say) -> None:
        self._say: Say = lambda text: say(outside.printable(text))
        self._state, self._last, self._waiting = "", "", ""

    def line(self, text: str) -> None:
        self._say(text)

    def log(self, lines: list[str]) -> None:
        new = lines
        if self._last in lines:
            new = lines[len(lines) - lines[::-1].index(self._last) :]
        for line in new:
            self._say(line)
        self._last = lines[-1] if lines else self._last

    def state(self, state: dict[str, Any]) -> None:
        if not state:
            return
        progress = state.get("progress") or {}
        done = f", {progress.get('message', '')} {progress.get('done', 0):g} of {progress.get('total', 0):g}" if progress else ""
        reason = f": {state['reason']}" if state.get("reason") else ""
        text = f"{state['status']}{reason} (stage {state.get('stage') or '-'}, attempt {state['attempts']} of {state.get('max_attempts', '?')}{done})"
        if text != self._state:
            self._state = text
            self._say(f"== {text}")

    def waiting(self, machine: dict[str, Any]) -> None:
        problems = [i.get("problem") or f"{i['name']} {i['status'] or 'is waited for'}" for i in machine.get("instances", [])]
        problems += [f"{one['name']} {one['phase']}{': ' + one['problem'] if one['problem'] else ''}" for one in machine.get("executions", [])[-1:]]
        text = machine.get("problem") or "; ".join(problems) or machine.get("note", "")
        if text and text != self._waiting:
            self._waiting = text
            self._say(f"== {'no task' if 'executions' in machine else 'no VM'} has reported yet: {text}")


def _read(buckets: BucketSpec, job_id: str) -> dict[str, Any]:
    return jobs.there(buckets, job_id) or {}


def _status(state: dict[str, Any]) -> tuple[str, str]:
    return state.get("status", ""), state.get("updated_at", "")


def _waits(state: dict[str, Any]) -> bool:
    return state.get("status", "queued") in ("queued", "preempted", "retrying", "idle")


def _succeeded(role: str, state: dict[str, Any]) -> bool:
    return state.get("status") == ("done" if role == "train" else "ready")


def _ended(role: str, state: dict[str, Any]) -> bool:
    ends = OVER if role == "train" else ("ready", "idle", *OVER)
    return state.get("status") in ends


def _outcome(role: str, state: dict[str, Any]) -> dict[str, Any]:
    if _succeeded(role, state):
        return state
    job = state["job_id"]
    raise UserError(
        f"{job} ended: {state['status']}, {state.get('reason', '')}",
        "a finished training" if role == "train" else "a server that answers",
        f"elson status {job} --log 200; correct it; elson retry {job}; then the same command again",
    )
