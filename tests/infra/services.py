"""A service of Cloud Run as the watchdog and the budget's stop see it, in simulated time.

As strict as the platform: services are listed by region, a page has fewer than were asked for, a Cloud Function is a service too (and bears the project's
prefix), an unknown name is 404, a field that is 0 or empty is left out. A request starts an instance, which stays for a while after the last one; what is
kept by ``min_instances`` stays for ever. A deleted service is gone a minute later, with its instances. The number of instances is a metric: a point a
minute, three minutes late, none where there is no instance.
"""

from __future__ import annotations

import re
import urllib.error
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.message import Message
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from runners.planning.cloud_run import TAIL_MINUTES
from tests.infra.regions import START, Platform

SERVICE, REGION = "elson-serve-l4-run", "us-east4"
FUNCTIONS = ("elson-stop", "elson-watchdog")
_PAGE, _LAG_MINUTES = 2, 3
_FILTER = 'resource.type="cloud_run_revision" AND metric.type="run.googleapis.com/container/instance_count"'


@dataclass
class ServicePlatform(Platform):
    """``asked(minute)``: whether requests arrive in that minute. Billed are instances, whatever they do."""

    asked: Callable[[float], bool] = lambda _minute: False
    min_instances: int = 0
    is_there: bool = True
    deleted_at: float | None = None
    refuses_delete: bool = False
    metrics_are_away: bool = False
    last_asked: float = float("-inf")
    instances: int = 0
    points: list[tuple[float, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.groups.clear()

    @property
    def alive(self) -> list[Any]:
        return [None] * self.instances

    def step(self) -> None:
        if self.deleted_at is not None and self.minute > self.deleted_at:
            self.is_there = False
        if self.asked(self.minute):
            self.last_asked = self.minute
        warm = self.minute - self.last_asked < TAIL_MINUTES
        self.instances = max(self.min_instances, int(warm)) if self.is_there else 0
        self.billed += self.instances
        if self.instances:
            self.points.append((self.minute, self.instances))
        self.minute += 1

    def shown(self) -> list[dict[str, Any]]:
        """Every service of the project, in the API's JSON."""

        def made(name: str, region: str, labels: dict[str, str], **more: Any) -> dict[str, Any]:
            return {"name": f"projects/p/locations/{region}/services/{name}", "uid": f"uid-{name}", "labels": labels, "ingress": "INGRESS_TRAFFIC_ALL", **more}

        managed = {"goog-managed-by": "cloudfunctions"}
        others = [made(name, "us-central1", managed, template={"containers": [{}]}) for name in FUNCTIONS]
        others += [made("somebody-elses", REGION, {"elson-role": "serve"}), made("elson-notes", REGION, {})]
        scaling = {"minInstanceCount": self.min_instances} if self.min_instances else {}
        containers = [{"name": "gateway", "env": [{"name": "ELSON_SITE", "value": ":8000"}]}, {"env": [{"name": "ELSON_MAX_MINUTES", "value": "1455"}]}]
        ours = made(SERVICE, REGION, {"elson-role": "serve"}, template={"containers": containers, "scaling": {"maxInstanceCount": 1, **scaling}})
        return [*others, *([ours] if self.is_there else [])]

    def call(self, method: str, url: str, token: str, body: bytes = b"") -> dict[str, Any]:
        path, query = unquote(urlsplit(url).path), parse_qs(urlsplit(url).query)
        if "monitoring.googleapis.com" in url:
            self.calls.append(f"{method} {url}")
            return self._series(url, path, query)
        if "run.googleapis.com" not in url:
            return super().call(method, url, token, body)
        self.calls.append(f"{method} {url}")
        if method == "DELETE":
            return self._delete(url, path.removeprefix("/v2/"))
        parent, _, kind = path.removeprefix("/v2/").rpartition("/")
        place = parent.split("/")[3]
        if method == "GET" and kind == "executions":
            return {}
        if method != "GET" or kind != "services" or not set(query) <= {"pageSize", "pageToken"}:
            raise urllib.error.HTTPError(url, 404, "not found", Message(), None)
        found = [one for one in self.shown() if one["name"].split("/")[3] == place]
        begin = int(query.get("pageToken", ["0"])[0])
        end = begin + min(_PAGE, int(query.get("pageSize", ["2"])[0]))
        return ({"services": found[begin:end]} if found[begin:end] else {}) | ({"nextPageToken": str(end)} if end < len(found) else {})

    def _delete(self, url: str, name: str) -> dict[str, Any]:
        if name not in [one["name"] for one in self.shown()]:
            raise urllib.error.HTTPError(url, 404, "no such service", Message(), None)
        assert name.endswith(f"/{SERVICE}"), f"{name} is not ours, or is the stop itself"
        if self.refuses_delete:
            raise urllib.error.HTTPError(url, 403, "Permission 'run.services.delete' denied", Message(), None)
        self.deleted_at = self.minute
        return {"name": "projects/p/locations/us-east4/operations/1"}

    def _series(self, url: str, path: str, query: dict[str, list[str]]) -> dict[str, Any]:
        if self.metrics_are_away:
            raise urllib.error.HTTPError(url, 503, "away", Message(), None)
        wanted = re.fullmatch(
            rf'{re.escape(_FILTER)} AND resource\.labels\.service_name="([^"]+)" AND resource\.labels\.location="([^"]+)"', query["filter"][0]
        )
        if path != "/v3/projects/p/timeSeries" or not wanted or query["view"] != ["FULL"]:
            raise urllib.error.HTTPError(url, 400, "invalid argument", Message(), None)
        begin, end = ((datetime.fromisoformat(query[f"interval.{part}Time"][0]) - START).total_seconds() / 60 for part in ("start", "end"))
        if begin > end:
            raise urllib.error.HTTPError(url, 400, "the interval ends before it begins", Message(), None)
        if wanted.groups() != (SERVICE, REGION):
            return {"unit": "1"}
        seen = [(at, count) for at, count in self.points if begin < at <= min(end, self.minute - _LAG_MINUTES)]
        points = [{"interval": {"endTime": (START + timedelta(minutes=at)).isoformat()}, "value": {"int64Value": str(count)}} for at, count in reversed(seen)]
        # Newest first; a state that no instance is in has points of 0.
        idle = [{**point, "value": {"int64Value": "0"}} for point in points]
        series = [{"metric": {"labels": {"state": state}}, "points": some} for state, some in (("active", idle), ("idle", points)) if some]
        return {"timeSeries": series, "unit": "1"} if series else {"unit": "1"}


def platform(**changes: Any) -> ServicePlatform:
    """One service that has just been made."""
    return ServicePlatform([(REGION, 15)], lambda _place, _minute: "", **changes)
