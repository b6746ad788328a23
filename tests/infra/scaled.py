"""A group of several servers with its autoscaler and its load balancer, as the stops and ``elson status`` see it, in simulated time.

As strict as the platform, and where that is not known, the dearer way is taken:

- While a group has an autoscaler nobody else sets its size (412), and deleting one takes a while. The autoscaler asks for its least whatever became of the
  VMs, for more by their figures at once, and for fewer only after ten minutes, one at a time
  (https://cloud.google.com/compute/docs/autoscaler/understanding-autoscaler-decisions).
- What the group did not do itself it repairs: a VM that switched itself off, was taken, or was deleted after its ``max_run_duration`` is made again under
  another id (https://cloud.google.com/compute/docs/instance-groups/about-repair).
- A VM that leaves by ``resize``, ``deleteInstances``, the autoscaler or an update is drained first: it gets no new request, and is billed, for the whole
  ``connection_draining_timeout_sec`` and up to 60 s more (https://cloud.google.com/load-balancing/docs/enabling-connection-draining).
- Then its power button is pressed, and the plug is pulled after 90 s (https://cloud.google.com/compute/docs/shutdownscript).

Money is counted here, by the VMs that exist.
"""

from __future__ import annotations

import json
import math
import urllib.error
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.message import Message
from typing import Any
from urllib.parse import parse_qs, urlsplit

from runners.fields import ReplicaSpec
from runners.planning import scaling
from runners.vm.cloud import Cloud, CloudError
from runners.vm.facts import Facts
from tests.infra.regions import START, page

NAME, REGION, JOB = "elson-serve-0b75369b", "us-central1", "serve-0b75369b00000000"
#: Draining, what the platform may add to it, and the guest's own end.
LEAVING_MINUTES = math.ceil((scaling.REQUEST_AT_MOST_S + 60 + 90) / 60)


@dataclass
class Vm:
    """One VM: ``on`` is what its guest does, ``leaves_at`` when the platform has it gone."""

    id: str
    born: float
    on: bool = True
    leaves_at: float | None = None


@dataclass
class ScaledGroup:
    """``wanted(minute)`` servers keep the load at its target; ``guest`` is what a VM does in each minute of its life."""

    wanted: Callable[[float], int]
    guest: Callable[[ScaledGroup, Vm], None]
    replicas: ReplicaSpec = field(default_factory=lambda: ReplicaSpec(min=1, max=3))
    bounds: tuple[int, int] = (1455, 195)
    max_run_minutes: float = 1440.0
    size: int = 0
    scaler: bool = True
    #: Resizes that are still refused once the autoscaler was told to go.
    going: int = 2
    refuses: set[str] = field(default_factory=set)
    minute: float = 0.0
    billed: float = 0.0
    made: int = 0
    vms: list[Vm] = field(default_factory=list)
    status: str = "ready"
    reported: float | None = None
    objects: dict[str, tuple[bytes, int]] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    _past: list[tuple[float, int]] = field(default_factory=list)
    _shrank_s: float = float("-inf")

    @property
    def now(self) -> datetime:
        return START + timedelta(minutes=self.minute)

    @property
    def cloud(self) -> Cloud:
        """What a VM's agent calls, in front of this group."""
        return _Agent(self)

    @property
    def facts(self) -> Facts:
        return Facts("p", f"{REGION}-a", "vm", "1", "serve", JOB, NAME, REGION, "gs://scratch/specs/a.json", {}, "", self.replicas.max)

    def step(self) -> None:
        """One minute."""
        if self.scaler:
            self._past.append((60 * self.minute, self.wanted(self.minute)))
            following = scaling.size(60 * self.minute, self._past, self._shrank_s, self.size, self.replicas)
            self._shrank_s = 60 * self.minute if following < self.size else self._shrank_s
            self.size = following
        for vm in self.vms:
            if self.minute - vm.born >= self.max_run_minutes:
                vm.on, vm.leaves_at = False, self.minute
        self.vms = [vm for vm in self.vms if vm.leaves_at is None or self.minute < vm.leaves_at]
        staying = [vm for vm in self.vms if vm.leaves_at is None]
        for vm in staying[self.size :]:
            vm.leaves_at = self.minute + LEAVING_MINUTES
        # Repaired: its place is taken by another VM.
        for vm in [vm for vm in staying[: self.size] if not vm.on]:
            self.vms.remove(vm)
        while sum(vm.leaves_at is None for vm in self.vms) < self.size:
            self.made += 1
            self.vms.append(Vm(str(100 + self.made), self.minute))
        self.billed += len(self.vms)
        for vm in list(self.vms):
            if vm.on:
                self.guest(self, vm)
        self.minute += 1

    def call(self, method: str, url: str, _token: str = "", _body: bytes = b"") -> dict[str, Any]:
        """What Compute answers. Raises HTTPError."""
        parts, query = [part for part in urlsplit(url).path.split("/") if part], parse_qs(urlsplit(url).query)
        self.said.append(f"{method} {parts[-1]}")
        if any(word in url for word in self.refuses):
            raise _error(url, 503)
        if "storage" in url:
            return self._storage(parts, query)
        if parts[-2:] == ["aggregated", "instances"]:
            return {"items": {}}
        if parts[-2:] == ["aggregated", "instanceGroupManagers"]:
            link = {"status": {"autoscaler": f"https://www.googleapis.com/compute/v1/projects/p/regions/{REGION}/autoscalers/{NAME}"}} if self.scaler else {}
            template = [{"instanceTemplate": f"https://www.googleapis.com/compute/v1/projects/p/regions/{REGION}/instanceTemplates/t"}]
            return page([(f"regions/{REGION}", {"name": NAME, "id": "7", "targetSize": self.size, "versions": template, **link})], query)
        if parts[-2] == "instanceTemplates":
            values = {"elson-job-id": JOB, "elson-max-minutes": str(self.bounds[0]), "elson-max-vms": str(self.bounds[1])}
            return {"properties": {"metadata": {"items": [{"key": key, "value": value} for key, value in values.items()]}}}
        if parts[-1] == "getGuestAttributes":
            return {"queryValue": {"items": [{"key": "serving", "value": json.dumps({"ready": True})}]}}
        assert NAME in parts and REGION in parts, url
        if parts[-1] == "listManagedInstances":
            return {"managedInstances": [self._managed(vm) for vm in self.vms]}
        if method == "DELETE" and parts[-2] == "autoscalers":
            if not self.scaler:
                raise _error(url, 404)
            self.scaler = False
            return {"status": "RUNNING"}
        assert parts[-1] == "resize", url
        if self.scaler or self.going:
            self.going -= not self.scaler
            raise _error(url, 412, "Resizing of autoscaled regional managed instance groups is not allowed.")
        self.size = int(query["size"][0])
        return {"status": "RUNNING"}

    def _managed(self, vm: Vm) -> dict[str, Any]:
        path = f"https://www.googleapis.com/compute/v1/projects/p/zones/{REGION}-a/instances/{NAME}-{vm.id}"
        action = "DELETING" if vm.leaves_at is not None else "NONE" if vm.on else "RECREATING"
        return {"id": vm.id, "instance": path, "instanceStatus": "RUNNING" if vm.on else "TERMINATED", "currentAction": action}

    def _storage(self, parts: list[str], query: dict[str, list[str]]) -> dict[str, Any]:
        if self.reported is None:
            raise _error("state.json", 404)
        return {"status": self.status} if "alt" in query else {"updated": (START + timedelta(minutes=self.reported)).isoformat()}

    def report(self, status: str = "ready") -> None:
        """What a VM that works does once a minute. A job that is over stays so."""
        self.reported = self.minute
        self.status = self.status if self.status in ("failed", "idle") else status


class _Agent(Cloud):
    def __init__(self, group: ScaledGroup) -> None:
        super().__init__()
        self.group = group

    def _authorized(self, method: str, url: str, body: bytes | None = None, kind: str = "", **_: Any) -> tuple[bytes, dict[str, str]]:
        try:
            return json.dumps(self.group.call(method, url)).encode(), {}
        except urllib.error.HTTPError as error:
            raise CloudError(error.code, str(error.reason)) from None


def _error(url: str, code: int, reason: str = "") -> urllib.error.HTTPError:
    return urllib.error.HTTPError(url, code, reason, Message(), None)
