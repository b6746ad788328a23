"""What ends a VM, and after how many billed minutes: a group, its VM and the five stops in simulated time, driven by the real code.

Real here: the agent's ``Context.settle`` and every decision of ``runners/vm/decide.py``, the dead man's switch as bash runs it out of ``startup.sh``,
the judgement of the watchdog function and of the budget's function. Modelled: a boot takes a minute, preparing and pulling 8, a model 4 to be ready;
a group makes another VM within a minute after one is gone, **also after its maximum run time** (whether Google's does is not known, so the worse is
assumed); the budget's figures are six hours old.

The scenarios are in scenarios.py; the table in infra/README.md is written by stops_table.py.
"""

from __future__ import annotations

import heapq
import importlib.util
import itertools
import json
import re
import subprocess
import tempfile
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from infra.plan import plan_bounds
from runners.fields import ReplicaSpec
from runners.planning import stacks
from runners.vm import decide, state
from runners.vm.cloud import CloudError
from runners.vm.decide import Activity, Boot, Decision, Job
from runners.vm.state import Context
from tests.infra.agent import START, Bucket, facts
from tests.infra.regions import watchdog
from tests.vm.scenarios import Scenario

ROOT = Path(__file__).resolve().parents[2]
STOPS = ("the VM itself", "dead man's switch", "platform", "watchdog", "budget")
HORIZON_S = 70 * 3600
USD_PER_HOUR = {"train": 4.03, "serve": 0.87}
BUDGET_USD, BUDGET_LAG_S = 50.0, 6 * 3600
Steps = Generator[float, None, None]
_AWAY = CloudError(0, "no answer")


def _main(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"{name}_function", ROOT / f"infra/functions/{name}/main.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


WATCHDOG, BUDGET = watchdog(), _main("stop")


@dataclass
class Vm:
    number: int
    born_s: float
    on: bool = True
    boots: int = 1
    boot_s: float = 0.0
    working: bool = False
    interrupted: bool = False
    #: One for each start; a test holds many worlds, so their pipes are closed when the VM is gone.
    switches: list[subprocess.Popen[str]] = field(default_factory=list)


@dataclass
class World:
    """One group of one VM under some of the stops; ``run`` plays it to its end."""

    scenario: Scenario
    stops: tuple[str, ...] = STOPS
    now_s: float = 0.0
    size: int = 1
    ended_by: str = ""
    billed_s: float = 0.0
    vms: list[Vm] = field(default_factory=list)
    bucket: Bucket = field(default_factory=Bucket)
    _events: list[tuple[float, int, Steps, Vm | None]] = field(default_factory=list)
    _count: Any = field(default_factory=itertools.count)
    _spent: list[tuple[float, float]] = field(default_factory=list)

    def run(self) -> World:
        """Play until the group is empty, or for 70 hours."""
        role = self.scenario.role
        self.machine = stacks.load("train-h100" if role == "train" else "serve-l4").spec.machine
        assert self.machine
        self.bounds = plan_bounds(self.machine, ReplicaSpec())
        spec = {"buckets": {"models": "gs://models", "scratch": "gs://scratch"}, "machine": self.machine.model_dump(), "serve": {"idle_minutes": 60}}
        self.bucket.clock = lambda: self.now_s
        with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
            patch.setattr(state, "RUN", Path(folder))
            patch.setattr(state, "guest_attribute", lambda *_: None)
            patch.setattr(state, "alive_s", lambda: self.now_s - self.vm.boot_s)
            patch.setattr(state, "boot_id", lambda: f"vm-{self.vm.number}-{self.vm.boots}")
            jump = timedelta(hours=self.scenario.clock_jump_hours)
            patch.setattr(state, "now", lambda: START + timedelta(seconds=self.now_s) + (jump if self.now_s > 1200 else timedelta()))
            patch.setattr(state.log, "event", lambda *_, **__: None)
            self.context = Context(facts(role), spec)
            self.context.cloud = self.bucket
            self._start(self._group())
            for name, steps in (("watchdog", self._watchdog()), ("budget", self._budget())):
                if name in self.stops:
                    self._start(steps)
            for minute, content in self.scenario.states:
                self._start(self._write(60 * minute, content))
            while self._events and self.now_s < HORIZON_S and not (self.size == 0 and not self._is_on):
                self.now_s, _, steps, vm = heapq.heappop(self._events)
                away = self.scenario.storage_away
                self.bucket.problem = _AWAY if away[0] <= self.now_s / 60 < away[1] else None
                if vm is None or vm.on:
                    self._resume(steps, vm)
            if self._is_on:
                self._off(self.vm)
        return self

    @property
    def _pulse_s(self) -> float:
        # Half a minute on a VM. Where nothing in it can end it, the state only has to be written often enough.
        return 60 if "the VM itself" in self.stops else 600

    @property
    def vm(self) -> Vm:
        return self.vms[-1]

    @property
    def minutes(self) -> int | None:
        """Billed minutes, or None when it never ended."""
        return round(self.billed_s / 60) if self.ended_by else None

    @property
    def job(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.bucket.objects[self.context.state_uri][0])
        return found

    @property
    def _is_on(self) -> bool:
        return bool(self.vms) and self.vm.on

    def _start(self, steps: Steps, vm: Vm | None = None, after_s: float = 0) -> None:
        heapq.heappush(self._events, (self.now_s + after_s, next(self._count), steps, vm))

    def _resume(self, steps: Steps, vm: Vm | None) -> None:
        try:
            pause_s = next(steps)
        except StopIteration:
            return
        self._start(steps, vm, pause_s)

    def _off(self, vm: Vm) -> None:
        if vm.on:
            vm.on = False
            self.billed_s += self.now_s - vm.born_s
            for switch in vm.switches:
                switch.kill()
                with switch:
                    pass

    def _empty(self, by: str) -> Steps:
        """The group's size becomes 0; its VM is gone a minute later."""
        if self.size:
            self.size, self.ended_by = 0, by
        yield 60
        if self.vms:
            self._off(self.vm)

    def _write(self, at_s: float, content: str) -> Steps:
        yield at_s
        uri = self.context.state_uri
        self.bucket.objects[uri] = (content.encode(), self.bucket.objects.get(uri, (b"", 0))[1] + 1)

    # The platform.

    def _group(self) -> Steps:
        while True:
            begin, end = (60 * minute for minute in self.scenario.capacity)
            if self.size and not self._is_on and not begin <= self.now_s < end:
                vm = Vm(len(self.vms) + 1, self.now_s, boot_s=self.now_s)
                self.vms.append(vm)
                self._start(self._guest(vm), vm)
                if "platform" in self.stops and self.machine:
                    self._start(self._taken(vm, 60 * self.machine.max_run_minutes), vm)
                if self.scenario.taken_after_minutes and not (self.scenario.taken_once and vm.number > 1):
                    self._start(self._taken(vm, 60 * self.scenario.taken_after_minutes), vm)
            yield 60

    def _taken(self, vm: Vm, after_s: float) -> Steps:
        yield after_s
        self._off(vm)

    def _watchdog(self) -> Steps:
        memory: dict[str, Any] = {}
        uri = self.context.state_uri
        while True:
            yield 300
            now = START + timedelta(seconds=self.now_s)
            known: dict[str, Any] | None = {}
            if self.bucket.problem:
                known = None
            elif uri in self.bucket.objects:
                written = START + timedelta(seconds=self.bucket.written_at_s.get(uri, 0))
                known = {"updated": written.isoformat(), "status": _status(self.bucket.objects[uri][0])}
            vms = [str(self.vm.number)] if self._is_on else []
            memory, reason = WATCHDOG.judge(memory, vms, (self.bounds.minutes, self.bounds.vms), known, now)
            if reason:
                self._start(self._empty("watchdog"))

    def _budget(self) -> Steps:
        while True:
            yield 1800
            billed_s = self.billed_s + (self.now_s - self.vm.born_s if self._is_on else 0)
            self._spent.append((self.now_s, billed_s / 3600 * USD_PER_HOUR[self.scenario.role]))
            cost = max((usd for at_s, usd in self._spent if at_s <= self.now_s - BUDGET_LAG_S), default=0.0)
            if BUDGET.is_used_up({"costAmount": cost, "budgetAmount": BUDGET_USD}, 1.0):
                self._start(self._empty("budget"))

    # The VM.

    def _metadata_is_away(self, vm: Vm) -> bool:
        return 60 <= self.now_s - vm.boot_s < 60 + self.scenario.metadata_away_s

    def _end(self, vm: Vm) -> Steps:
        """The agent's end: its group, else off after a minute of refusals."""
        if "the VM itself" not in self.stops:
            vm.working = False
            return
        if self.scenario.end_is_refused:
            yield 50
            self._off(vm)
            return
        yield from self._empty("the VM itself")

    def _settle(self, decision_of: Callable[[Job], Decision]) -> Decision:
        return self.context.settle(decision_of)

    def _guest(self, vm: Vm) -> Steps:
        yield 60
        if self.scenario.guest in ("hangs", "no script"):
            return
        if "dead man's switch" in self.stops:
            self._start(self._dead_man(vm), vm)
        while self._metadata_is_away(vm):
            yield 4
            if self.now_s - vm.boot_s > 60 + PATIENCE_S + END_PATIENCE_S:
                if "the VM itself" in self.stops:
                    self._off(vm)  # the script gives up, asks for a token to empty the group, and gets none either
                return
        if self.scenario.guest == "no python":
            return
        vm.working = True
        yield from self._boot(vm)

    def _boot(self, vm: Vm) -> Steps:
        begin_s, decision = self.now_s, None
        while decision is None:
            try:
                boot = Boot(state.boot_id(), f"vm-{vm.number}", "zone", state.now().isoformat())
                decision = self._settle(lambda job: decide.at_boot(job, boot, self.context.limits, state.now()))  # noqa: B023 - called at once, in this turn of the loop
            except CloudError:
                if self.now_s - begin_s > 600:
                    break
                yield 15
        if decision is None or decision.action == "stop":
            yield from self._end(vm)
            return
        if not self.scenario.timers_are_dead:
            self._start(self._timer(vm, vm.boots), vm, 10)
        yield 480
        yield from self._train(vm) if self.scenario.role == "train" else self._serve(vm, decision.job)

    def _timer(self, vm: Vm, boot: int) -> Steps:
        last = self._local()
        while vm.boots == boot:
            try:
                decision = self._settle(lambda job: decide.at_deadline(job, self.context.limits, state.now()))
                last = decision.job
            except CloudError:
                decision = decide.at_deadline(decide.live(last, state.boot_id(), state.alive_s()), self.context.limits, state.now())
            if decision.action == "stop":
                yield from self._end(vm)
                return
            yield self._pulse_s

    def _local(self) -> Job:
        return Job.from_json(json.loads((state.RUN / "job.json").read_text()))

    def _train(self, vm: Vm) -> Steps:
        yield 60 * self.scenario.works_minutes
        for stage in ("train", "merge", "quantize"):
            decision = self._settle(lambda job, stage=stage: decide.after_stage(job, stage, 0, "", self.context.limits, state.now()))  # type: ignore[misc]
            if decision.action == "stop":
                yield from self._end(vm)
                return

    def _serve(self, vm: Vm, job: Job) -> Steps:
        yield 240
        ready_s, boot = self.now_s, vm.boots
        # The gateway's unit is given up by systemd after ten restarts of 15 s.
        gone_s = ready_s + self.scenario.gateway_dies_after_s
        activity = Activity(0, 0, ready_s - job.idle_s)
        while vm.boots == boot:
            if self.now_s >= gone_s + 150:
                decision = self._settle(lambda job: decide.after_unit_failure(job, "elson-gateway", "", self.context.limits, state.now()))
                if decision.action == "stop":
                    yield from self._end(vm)
                    return
                vm.boots, vm.boot_s = vm.boots + 1, self.now_s
                self._start(self._guest_again(vm), vm, 60)
                return
            activity = decide.observe(activity, 0 if self.scenario.unused else self.now_s, 0, 0, self.now_s)
            idle_s = decide.idle_for_s(activity, self.now_s)
            if self.now_s < gone_s:
                self._settle(lambda job: Decision("leave", decide.when_ready(job, self.now_s - ready_s, idle_s, state.now())))  # noqa: B023 - it is called in this very turn
            if idle_s >= 3600:
                self._settle(lambda job: decide.when_idle(job, 60, state.now()))
                yield from self._end(vm)
                return
            yield self._pulse_s

    def _guest_again(self, vm: Vm) -> Steps:
        yield from self._boot(vm)

    def _dead_man(self, vm: Vm) -> Steps:
        """The switch of the real startup script, in bash: ``sleep``, ``curl`` and ``systemctl`` ask this model."""
        switch = subprocess.Popen(["bash", "-c", SWITCH], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, bufsize=1)
        vm.switches.append(switch)
        assert switch.stdin and switch.stdout
        for line in switch.stdout:
            program, _, rest = line.strip().partition(" ")
            answer = "ok"
            if program == "sleep":
                yield float(rest)
            elif program == "curl":
                away = self._metadata_is_away(vm)
                if "compute.googleapis.com" in rest:
                    answer = "failed" if self.scenario.end_is_refused else "ok"
                    if answer == "ok":
                        self._start(self._empty("dead man's switch"))
                elif away or "elson-replicas" in rest:  # a group of one has no such value
                    answer = "failed"
                elif "token" in rest:
                    answer = 'ok{"access_token": "a-token", "expires_in": 3599}'
                else:
                    answer = f"ok{self.bounds.minutes}" if "elson-max-minutes" in rest else "okvalue"
            elif "poweroff" in rest:
                self._off(vm)
                return
            elif vm.working:
                answer = "okelson-train.service loaded active running"
            switch.stdin.write(answer + "\n")


def _status(content: bytes) -> Any:
    try:
        found = json.loads(content)
    except ValueError:
        return ""
    return found.get("status") if isinstance(found, dict) else ""


STARTUP = (ROOT / "infra/startup/startup.sh").read_text()


def _patience() -> tuple[int, int]:
    """Seconds that the startup script waits for a value of metadata, and for those that end the VM's group."""
    first = int(re.findall(r"PATIENCE_S=(\d+)", STARTUP)[0])
    give_up = STARTUP[STARTUP.index("give_up() {") : STARTUP.index("trap 'give_up")]
    part = re.search(r"PATIENCE_S=\$\(\(PATIENCE_S / (\d+)\)\)", give_up)
    return first, first // int(part[1]) if part else first


PATIENCE_S, END_PATIENCE_S = _patience()


def _switch() -> str:
    """The functions of the startup script, with programs that ask over the pipes instead of doing."""
    text = STARTUP
    functions = text[text.index("metadata() {") : text.index("systemd-run ")]
    ask = (
        'exec 3<&0 4>&1 0</dev/null\nask() {\n\tlocal answer\n\tprintf "%s\\n" "${*//$\'\\n\'/ }" >&4\n\tIFS= read -r answer <&3 || exit 1\n'
        '\t[[ $answer == ok* ]] || return 22\n\tprintf "%s" "${answer#ok}"\n}\nsleep() { ask sleep "$@" >/dev/null; }\ncurl() { ask curl "$@"; }\n'
        'systemctl() { ask systemctl "$@"; }\n'
    )
    return f"{ask}SERVER=http://metadata PATIENCE_S=60\n{functions}\ndead_man"


SWITCH = _switch()
