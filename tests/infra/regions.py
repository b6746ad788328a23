"""Groups of several regions as the watchdog sees them, in simulated time: capacity by place and minute, VMs that are taken, regions that do not answer.

As strict as the platform: an unknown group, template or object is 404, a region that is away answers 503 and is missing from the aggregated list, a page
of that list may have fewer groups than were asked for, and a group makes a VM only while its size is 1. Money is counted here, by what is alive, and not
by what anybody says.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import urllib.error
import zlib
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.message import Message
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

FOLDER = Path(__file__).resolve().parents[2] / "infra/functions/watchdog"
START = datetime(2026, 3, 1, tzinfo=UTC)


def watchdog() -> ModuleType:
    """The function as the cloud imports it: its folder is on the path."""
    if str(FOLDER) not in sys.path:
        sys.path.insert(0, str(FOLDER))
    spec = importlib.util.spec_from_file_location("watchdog_function", FOLDER / "main.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


#: Groups on a page of an aggregated list, however many were asked for.
PAGE = 2


def page(groups: list[tuple[str, dict[str, Any]]], query: dict[str, list[str]]) -> dict[str, Any]:
    """One page of an aggregated list of (scope, group); every scope is on every page, those without a group there with a warning."""
    begin = int(query.get("pageToken", ["0"])[0] or 0)
    end = begin + min(PAGE, int(query["maxResults"][0]))
    items: dict[str, Any] = {scope: {"warning": {"code": "NO_RESULTS_ON_PAGE"}} for scope, _ in groups} | {"regions/us-west8": {"warning": {}}}
    for scope, group in groups[begin:end]:
        items[scope] = {"instanceGroupManagers": [*items[scope].get("instanceGroupManagers", []), group]}
    return {"items": items} | ({"nextPageToken": str(end)} if end < len(groups) else {})


@dataclass
class Group:
    name: str
    region: str
    size: int
    vm: str = ""
    born: float = 0.0
    problem: str = ""


@dataclass
class Platform:
    """``capacity(place, minute)`` says "" or an error code, ``lives(place, minute)`` after how many minutes a VM is taken."""

    places: list[tuple[str, int]]
    capacity: Callable[[int, float], str]
    lives: Callable[[int, float], float] = lambda _place, _minute: float("inf")
    is_away: Callable[[str, float], bool] = lambda _region, _minute: False
    needs_minutes: float = 40.0
    bounds: tuple[int, int] = (150, 7)
    minute: float = 0.0
    worked: float = 0.0
    billed: float = 0.0
    unseen: float = 0.0
    made: int = 0
    most_at_once: int = 0
    reported: float | None = None
    status: str = "running"
    objects: MutableMapping[str, str] = field(default_factory=dict)
    refuses_resize: set[str] = field(default_factory=set)
    calls: list[str] = field(default_factory=list)
    said: list[dict[str, Any]] = field(default_factory=list)
    order: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        names = ["elson-train-0b75369b", *(f"elson-train-0b75369b-{rank}" for rank in range(2, len(self.places) + 1))]
        self.groups = {name: Group(name, region, int(rank == 0)) for rank, (name, (region, _)) in enumerate(zip(names, self.places, strict=True))}
        asked = [
            {"group": group.name, "region": group.region, "patience": patience} for group, (_, patience) in zip(self.groups.values(), self.places, strict=True)
        ]
        values = {"elson-job-id": "job-1", "elson-max-minutes": str(self.bounds[0]), "elson-max-vms": str(self.bounds[1])}
        self.metadata = values | ({"elson-places": json.dumps(asked)} if len(asked) > 1 else {})

    @property
    def now(self) -> datetime:
        return START + timedelta(minutes=self.minute)

    @property
    def alive(self) -> list[Group]:
        return [group for group in self.groups.values() if group.vm]

    def step(self) -> None:
        """One minute: VMs are made, work, report, are taken, and end the job through their group."""
        for rank, group in enumerate(self.groups.values()):
            away = self.is_away(group.region, self.minute)
            if group.vm and (group.size == 0 or self.minute - group.born >= self.lives(rank, group.born)):
                group.vm = ""
            elif group.size and not group.vm and not away:
                group.problem = self.capacity(rank, self.minute)
                if not group.problem:
                    self.made += 1
                    group.vm, group.born = str(100 + self.made), self.minute
                    self.order.append(group.name)
        self.most_at_once = max(self.most_at_once, len(self.alive))
        self.billed += len(self.alive)
        self.unseen += sum(self.is_away(group.region, self.minute) for group in self.alive)
        if self.alive:
            self.worked, self.reported = self.worked + 1, self.minute
            if self.worked >= self.needs_minutes:
                self.status = "done"
                for group in self.alive:
                    group.size = 0
        self.minute += 1

    def call(self, method: str, url: str, token: str, body: bytes = b"") -> dict[str, Any]:
        """What the function's ``apis.call`` answers."""
        parts = [unquote(part) for part in urlsplit(url).path.split("/") if part]
        query = parse_qs(urlsplit(url).query)
        self.calls.append(f"{method} {url}")
        if "storage" in url:
            return self._storage(method, parts, query, body)
        if parts[-2:] == ["aggregated", "instanceGroupManagers"]:
            listed = [
                (
                    f"regions/{group.region}",
                    {
                        "name": group.name,
                        "id": group.name,
                        "targetSize": group.size,
                        "versions": [{"instanceTemplate": f"projects/p/regions/{group.region}/instanceTemplates/t"}],
                    },
                )
                for group in self.groups.values()
                if not self.is_away(group.region, self.minute)
            ]
            away = sorted({f"projects/p/regions/{group.region}" for group in self.groups.values() if self.is_away(group.region, self.minute)})
            return {**page(listed, query), "unreachables": away}
        if parts[-2:] == ["aggregated", "instances"]:
            return {"items": {"zones/us-central1-a": {"warning": {"code": "NO_RESULTS_ON_PAGE"}}}}
        region = parts[parts.index("regions") + 1]
        if self.is_away(region, self.minute):
            raise urllib.error.HTTPError(url, 503, "region away", Message(), None)
        if parts[-2] == "instanceTemplates":
            return {"properties": {"metadata": {"items": [{"key": key, "value": value} for key, value in self.metadata.items()]}}}
        group = self.groups.get(parts[parts.index("instanceGroupManagers") + 1])
        if group is None or group.region != region:
            raise urllib.error.HTTPError(url, 404, "no such group", Message(), None)
        if parts[-1] == "listManagedInstances":
            if group.vm:
                return {"managedInstances": [{"id": group.vm, "instanceStatus": "RUNNING", "currentAction": "NONE"}]}
            waiting = {"currentAction": "CREATING", "lastAttempt": {"errors": {"errors": [{"code": group.problem, "message": "…"}]}} if group.problem else {}}
            return {"managedInstances": [waiting] if group.size else []}
        assert parts[-1] == "resize", url
        if group.name in self.refuses_resize:
            raise urllib.error.HTTPError(url, 503, "busy", Message(), None)
        group.size, group.problem = int(query["size"][0]), ""
        return {}

    def _storage(self, method: str, parts: list[str], query: dict[str, list[str]], body: bytes) -> dict[str, Any]:
        name = query["name"][0] if "name" in query else parts[-1]
        if name == "jobs/job-1/state.json":
            if self.reported is None:
                raise urllib.error.HTTPError("", 404, "", Message(), None)
            if "alt" in query:
                return {"status": self.status}
            return {"updated": (START + timedelta(minutes=self.reported)).isoformat()}
        generation = str(zlib.crc32(self.objects[name].encode())) if name in self.objects else "0"
        if name not in self.objects and method != "POST":
            raise urllib.error.HTTPError("", 404, "", Message(), None)
        if query.get("ifGenerationMatch", [generation]) != [generation]:
            raise urllib.error.HTTPError("", 412, "conditionNotMet", Message(), None)
        if method == "POST":
            self.objects[name] = body.decode()
            return {"generation": str(zlib.crc32(body))}
        if method == "DELETE":
            del self.objects[name]
            return {}
        if "alt" not in query:
            return {"generation": generation}
        found: dict[str, Any] = json.loads(self.objects[name])
        return found

    def watched(self, monkeypatch: Any) -> ModuleType:
        """The real function, which sees this platform and its time."""
        function, platform = watchdog(), self
        clock = type("Clock", (datetime,), {"now": classmethod(lambda _cls, _zone=None: platform.now)})
        monkeypatch.setattr(function.apis, "call", self.call)
        monkeypatch.setattr(function.apis, "token", lambda: "a-token")
        monkeypatch.setattr(function, "datetime", clock)
        monkeypatch.setattr(
            function.apis, "say", lambda severity, message, **more: self.said.append({"severity": severity, "message": message, "minute": self.minute, **more})
        )
        monkeypatch.setenv("ELSON_PROJECT", "p")
        monkeypatch.setenv("ELSON_SCRATCH", "scratch")
        return function

    def play(self, minutes: int, monkeypatch: Any, *, stops_when_done: bool = True) -> Platform:
        """Let time pass, with a look of the real function every five minutes."""
        function = self.watched(monkeypatch)
        for _ in range(minutes):
            self.step()
            if self.minute % 5 == 0:
                try:
                    function.watch(None)
                except RuntimeError as error:
                    self.said.append({"severity": "ERROR", "message": str(error), "minute": self.minute})
            assert sum(group.size for group in self.groups.values() if not self.is_away(group.region, self.minute)) <= 1, "two places are asked"
            if self.status == "done" and stops_when_done and not self.alive:
                break
        return self
