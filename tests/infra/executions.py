"""Executions of a training on Cloud Run as the watchdog, the budget's stop and `elson status` see them, in simulated time.

As strict as the platform: executions are listed by region, an unknown path is 404, a page has fewer executions than were asked for, a field that is 0 or
empty is left out, an execution that has ended cannot be cancelled, and a cancelled one takes a minute to end. A try ends at its time-out and is made
again, in a while and while capacity is there. Minutes are billed by what is at work, whatever anybody says.
"""

from __future__ import annotations

import urllib.error
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from email.message import Message
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.infra.regions import START, Platform

TRAIN, QUANTIZE = "elson-train-0b75369b", "elson-quantize-0b75369b"
REGION = "us-central1"
_PAGE = 2


@dataclass
class Execution:
    """One execution of one task."""

    job: str
    number: int
    created: float
    started: float | None = None
    ended: float | None = None
    tries: int = 0
    try_began: float | None = None
    next_try: float = 0.0
    cancel_at: float | None = None
    outcome: str = ""
    job_id: str = "job-1"

    @property
    def name(self) -> str:
        return f"projects/p/locations/{REGION}/jobs/{self.job}/executions/{self.job}-{self.number:05d}"

    def shown(self) -> dict[str, Any]:
        """The execution in the API's JSON, which leaves out what is 0 or empty."""
        values: dict[str, Any] = {
            "name": self.name,
            "uid": f"uid-{self.job}-{self.number}",
            "job": f"projects/p/locations/{REGION}/jobs/{self.job}",
            "createTime": stamp(self.created),
            "startTime": stamp(self.started),
            "completionTime": stamp(self.ended),
            "taskCount": 1,
            "runningCount": int(self.try_began is not None),
            "retriedCount": int(self.tries > 1),
            "succeededCount": int(self.outcome == "succeeded"),
            "failedCount": int(self.outcome == "failed"),
            "cancelledCount": int(self.outcome == "cancelled"),
            "conditions": [{"type": "Completed", "state": "CONDITION_FAILED", "message": "The configured time-out was reached."}]
            if self.outcome == "failed"
            else [],
            "template": {
                "timeout": "3600s",
                "maxRetries": 4,
                "containers": [{"env": [{"name": "ELSON_JOB", "value": self.job_id}, {"name": "ELSON_MAX_MINUTES", "value": "180"}, {"name": "EMPTY"}]}],
            },
        }
        return {key: value for key, value in values.items() if value}


@dataclass
class RunPlatform(Platform):
    """``capacity(0, minute)`` says "" or why a try has no machine yet; ``reports`` whether a try at work writes its job's state, ``timeout_minutes`` after how
    many a try is ended, by its time-out or because it is taken."""

    reports: bool = True
    waits_between_tries: float = 1.0
    timeout_minutes: float = 60.0
    most_tries: int = 5
    executions: list[Execution] = field(default_factory=list)
    refuses_cancel: bool = False
    trains_minutes: float = 20.0
    #: Of the job: a try that reports looks at it (runners/cloud_run/job.py).
    deadline_minutes: float = float("inf")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.groups.clear()
        self.begin(TRAIN)

    def begin(self, job: str, **changes: Any) -> Execution:
        made = Execution(job, len(self.executions), self.minute, next_try=self.minute, **changes)
        self.executions.append(made)
        return made

    @property
    def alive(self) -> list[Any]:
        return [one for one in self.executions if one.ended is None]

    def step(self) -> None:
        for one in self.alive:
            if one.cancel_at is not None and self.minute >= one.cancel_at:
                self._end(one, "cancelled")
            elif one.try_began is not None:
                self._work(one)
            elif self.minute >= one.next_try and not self.capacity(0, self.minute):
                one.started = self.minute if one.started is None else one.started
                one.tries, one.try_began = one.tries + 1, self.minute
        self.minute += 1

    def _work(self, one: Execution) -> None:
        assert one.try_began is not None
        self.billed += 1
        if self.reports:
            self.reported = self.minute
        if self.minute - one.try_began >= self.timeout_minutes:
            one.try_began, one.next_try = None, self.minute + self.waits_between_tries
            if one.tries >= self.most_tries:
                self._end(one, "failed")
            return
        if self.reports and self.billed >= self.deadline_minutes:
            self.status = "deadline"
            self._end(one, "failed")
            return
        self.worked += self.reports
        if self.worked >= (self.trains_minutes if one.job == TRAIN else self.needs_minutes):
            if one.job == TRAIN:
                self.begin(QUANTIZE)
            else:
                self.status = "done"
            self._end(one, "succeeded")

    def _end(self, one: Execution, outcome: str) -> None:
        one.ended, one.outcome, one.try_began = self.minute, outcome, None

    def call(self, method: str, url: str, token: str, body: bytes = b"") -> dict[str, Any]:
        if "run.googleapis.com" not in url:
            return super().call(method, url, token, body)
        assert token == "a-token"
        self.calls.append(f"{method} {url}")
        path, query = unquote(urlsplit(url).path), parse_qs(urlsplit(url).query)
        if self.is_away(path.split("/")[5], self.minute):
            raise urllib.error.HTTPError(url, 503, "region away", Message(), None)
        if method == "POST" and path.endswith(":cancel"):
            return self._cancel(url, path.removeprefix("/v2/").removesuffix(":cancel"))
        parent, _, last = path.removeprefix("/v2/").rpartition("/")
        if method == "GET" and last == "services" and set(query) <= {"pageSize", "pageToken"}:
            return {}
        *_, place, kind, job = parent.split("/")
        if method != "GET" or last != "executions" or kind != "jobs" or not set(query) <= {"pageSize", "pageToken"}:
            raise urllib.error.HTTPError(url, 404, "not found", Message(), None)
        found = [one.shown() for one in self.executions if place == REGION and job in ("-", one.job)]
        begin = int(query.get("pageToken", ["0"])[0])
        end = begin + min(_PAGE, int(query.get("pageSize", ["2"])[0]))
        # A page without executions has no such field.
        return ({"executions": found[begin:end]} if found[begin:end] else {}) | ({"nextPageToken": str(end)} if end < len(found) else {})

    def _cancel(self, url: str, name: str) -> dict[str, Any]:
        one = next((one for one in self.executions if one.name == name), None)
        if one is None:
            raise urllib.error.HTTPError(url, 404, "no such execution", Message(), None)
        if self.refuses_cancel:
            raise urllib.error.HTTPError(url, 403, "Permission 'run.executions.cancel' denied", Message(), None)
        if one.ended is not None:
            raise urllib.error.HTTPError(url, 400, "the execution has completed", Message(), None)
        one.cancel_at = self.minute + 1
        return {"name": "projects/p/locations/us-central1/operations/1"}


def stamp(minute: float | None) -> str:
    return "" if minute is None else (START + timedelta(minutes=minute)).isoformat().replace("+00:00", "Z")


def platform(capacity: Callable[[int, float], str] = lambda _place, _minute: "", **changes: Any) -> RunPlatform:
    """One training on Cloud Run that has just been asked for."""
    return RunPlatform([(REGION, 15)], capacity, **changes)
