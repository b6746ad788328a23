"""Two servers of one group in simulated VMs, each with its own metadata server, gateway and network; one bucket, one control plane, stand-in models."""

from __future__ import annotations

import http.client
import json
import threading
import urllib.error
import urllib.parse
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.message import Message
from typing import Any

import pytest

from runners.spec import Spec
from runners.vm.metrics import KV_USE_METRIC, WAITING_METRIC
from tests.infra.regions import watchdog
from tests.vm.simulation import namespace, services
from tests.vm.simulation.machine import Machine
from tests.vm.simulation.world import World

Start = Callable[..., World]


class Stream(threading.Thread):
    """One long answer of one VM, in the background."""

    def __init__(self, world: World, machine: Machine, tokens: int) -> None:
        super().__init__(daemon=True)
        with namespace.entered(machine.network):
            self.connection = http.client.HTTPConnection("127.0.0.1", 8000, timeout=60)
            self.connection.connect()
        body = json.dumps({"model": "elson", "prompt": "1 + 1 =", "max_tokens": tokens, "stream": True})
        self.connection.request("POST", "/v1/completions", body, {"Authorization": f"Bearer {world.apis.secret}", "Content-Type": "application/json"})
        self.answer = self.connection.getresponse()
        self.pieces, self.is_whole = 0, False
        self.start()

    def run(self) -> None:
        try:
            for line in iter(self.answer.readline, b""):
                self.pieces += line.startswith(b"data: {")
                self.is_whole = self.is_whole or line.startswith(b"data: [DONE]")
        except (OSError, http.client.HTTPException):
            return


def health(world: World, machine: Machine) -> int:
    try:
        return world.request("GET", "/health", timeout_s=5, machine=machine)[0]
    except OSError:
        return 0


@pytest.fixture
def watchdog_sees(monkeypatch: pytest.MonkeyPatch) -> Callable[[World, int], tuple[int, str]]:
    """The real watchdog's look at a world in some minutes: how many VMs it remembers as there, and why it stopped them, or an empty text."""
    main = watchdog()
    monkeypatch.setenv("ELSON_PROJECT", "proj")
    monkeypatch.setenv("ELSON_SCRATCH", "scratch")
    monkeypatch.setattr(main.apis, "token", lambda: services.TOKEN)

    def look(world: World, minutes: int) -> tuple[int, str]:
        def call(method: str, url: str, token: str, body: bytes = b"") -> dict[str, Any]:
            address = urllib.parse.urlsplit(url)
            target = address.path + (f"?{address.query}" if address.query else "")
            status, _, answer = world.request(method, target, body, {"Authorization": f"Bearer {token}"}, host=address.netloc)
            if status >= 400:
                raise urllib.error.HTTPError(url, status, "", Message(), None)
            return dict(json.loads(answer)) if answer else {}

        now = datetime.now(UTC) + timedelta(minutes=minutes)
        monkeypatch.setattr(main.apis, "call", call)
        monkeypatch.setattr(main, "datetime", type("Clock", (main.datetime,), {"now": classmethod(lambda _cls, _zone=None: now)}))
        main.watch(None)
        memory = json.loads(world.object("gs://scratch/watchdog/elson-serve-group.json").read_text())
        return len(memory["present"]), memory.get("stopped", "")

    return look


def test_two_servers_of_a_group_go_each_alone_and_end_together(start: Start, spec: Spec, watchdog_sees: Callable[[World, int], tuple[int, str]]) -> None:
    world = start(spec, role="serve", job="serve-1", standin={"serve": [["serve 0.25"]]}, **{"elson-group": "elson-serve-group", "elson-replicas": "2"})
    world.wait(lambda: len(world.machines) == 2 and all(health(world, machine) == 200 for machine in world.machines), 90, "both to be ready")
    first, second = world.machines
    ids = [machine.metadata.get("instance/id") for machine in world.machines]
    world.wait(lambda: {(vm, metric) for vm in ids for metric in (WAITING_METRIC, KV_USE_METRIC)} == set(world.apis.points), 20, "the figures of both")
    job = world.job()
    assert {boot["instance"] for boot in job["boots"]} == {"vm-1", "vm-2"} and job["attempts"] == 2 and job["status"] == "ready"

    assert watchdog_sees(world, 0) == (2, "")

    # The platform takes one back. The load balancer hears it from /health; what is on its way ends well, and the other goes on.
    world.hold_capacity()
    streams = [Stream(world, machine, 24) for machine in (first, second)]
    taken = threading.Thread(target=world.preempt, args=(0, first))
    taken.start()
    world.wait(lambda: health(world, first) != 200, 10, "the load balancer to hear of it")
    for stream in streams:
        stream.join(40)
    taken.join(60)
    assert [stream.is_whole for stream in streams] == [True, True], [stream.pieces for stream in streams]
    assert health(world, second) == 200 and not first.is_on and not second.metadata.get("instance/guest-attributes/elson/preempted")
    assert world.apis.deleted == [] and world.apis.target_size == 2 and world.apis.scaler, "one of several ends nothing of the others"

    assert watchdog_sees(world, 5) == (1, ""), "the one that is left"

    # When the job is over, whichever hears of it ends all, though Compute refuses the size of a group that has an autoscaler.
    state = world.object("gs://scratch/jobs/serve-1/state.json")
    world.put("gs://scratch/jobs/serve-1/state.json", json.dumps({**json.loads(state.read_text()), "status": "failed"}).encode())
    second.run("systemctl", "start", "elson-deadline.service", check=False)  # what its timer does; the VM ends under it
    world.wait_until_ended(60)
    assert not world.apis.scaler and world.apis.deleted == [] and world.boots == 2
