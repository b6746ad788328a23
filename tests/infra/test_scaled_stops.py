"""What stops a group of several servers, each stop alone, against a group whose autoscaler makes again whatever goes: none comes back once it was stopped.

Real here: the watchdog function, the budget's function, the agent's way to empty its group, ``elson status`` and ``elson up``'s start. ``scaled.py`` is the
platform.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from runners.cloud import jobs
from runners.fields import ReplicaSpec
from runners.planning import stacks
from runners.vm.cloud import CloudError
from tests.infra import test_stop_function
from tests.infra.regions import watchdog
from tests.infra.scaled import JOB, LEAVING_MINUTES, NAME, REGION, ScaledGroup, Vm
from tests.infra.test_watchdog import looks, stamp
from tests.vm.test_jobs import Session

function, compute = test_stop_function.function, test_stop_function.compute
DAY = 24 * 60
USED_UP = {"costAmount": 60.0, "budgetAmount": 50.0}


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Callable[[ScaledGroup], ModuleType]:
    """The real watchdog over a group's APIs and clock, with a memory that lasts."""

    def over(group: ScaledGroup) -> ModuleType:
        main = watchdog()
        memory: dict[str, Any] = {}

        class Memory:
            def __init__(self, *_: Any) -> None: ...

            def read(self, _ids: Any) -> dict[str, Any]:
                return dict(memory)

            def keep(self, found: dict[str, Any]) -> None:
                memory.clear()
                memory.update(found)

            def forget(self) -> None:
                memory.clear()

        monkeypatch.setattr(main, "JobMemory", Memory)
        monkeypatch.setattr(main.apis, "call", group.call)
        monkeypatch.setattr(main.apis, "token", lambda: "a-token")
        monkeypatch.setattr(main.apis, "say", lambda *_, **__: None)
        monkeypatch.setattr(main.sizes, "PAUSE_S", 0)
        monkeypatch.setattr(main, "datetime", type("Clock", (main.datetime,), {"now": classmethod(lambda _cls, _zone=None: group.now)}))
        monkeypatch.setenv("ELSON_PROJECT", "p")
        monkeypatch.setenv("ELSON_SCRATCH", "scratch")
        return main

    return over


def play(group: ScaledGroup, minutes: int, main: ModuleType | None = None) -> ScaledGroup:
    for _ in range(minutes):
        group.step()
        if main and group.minute % 5 == 0:
            try:
                main.watch(None)
            except RuntimeError:
                continue  # said in its log; the next look comes
    return group


def is_gone_for_good(group: ScaledGroup, main: ModuleType | None = None) -> bool:
    """Everything is gone when the last VM has been drained, and a day later too."""
    play(group, LEAVING_MINUTES + 1, main)
    made, billed = group.made, group.billed
    play(group, DAY, main)
    return not group.vms and not group.scaler and group.size == 0 and (group.made, group.billed) == (made, billed)


def busy(group: ScaledGroup, _vm: Vm) -> None:
    group.report()


def hangs(_group: ScaledGroup, _vm: Vm) -> None:
    return


def switches_off(group: ScaledGroup, vm: Vm) -> None:
    """Nothing of ours works, and the dead man's switch ends the VM alone: its group makes another."""
    vm.on = group.minute - vm.born < 15


def boots_and_dies(group: ScaledGroup, vm: Vm) -> None:
    group.report("starting")
    vm.on = group.minute - vm.born < 3


def is_over(group: ScaledGroup, vm: Vm) -> None:
    """Its job has failed, and its account may end nothing: it switches itself off."""
    group.report("failed")
    group.status = "failed"
    vm.on = group.minute - vm.born < 2


def at_most(_minute: float) -> int:
    return 9


def test_an_autoscaler_makes_again_what_goes_and_nobody_else_sets_its_size() -> None:
    """The platform's own test: without a stop the group is there for ever."""
    group = play(ScaledGroup(at_most, switches_off), DAY)
    assert group.made > 3 * DAY / 20 and len(group.vms) == 3
    group.vms.clear()
    group.step()
    assert len(group.vms) == 3
    with pytest.raises(CloudError, match="412"):
        group.cloud._authorized("POST", f"https://compute/projects/p/regions/{REGION}/instanceGroupManagers/{NAME}/resize?size=0")
    quiet = play(ScaledGroup(lambda minute: 3 if minute < 5 else 1, busy), 60)
    assert quiet.size == 1 and len(quiet.vms) == 1
    assert quiet.billed > 60 + 2 * (5 + 10 + LEAVING_MINUTES), "a server that leaves is billed while it is drained"


@pytest.mark.parametrize(
    ("guest", "within_minutes"),
    [(busy, 1465), (hangs, 25), (switches_off, 25), (boots_and_dies, 325), (is_over, 25)],
    ids=["in use for ever", "hangs", "switches off", "boots and dies", "its job is over"],
)
def test_the_watchdog_alone_ends_it(guest: Any, within_minutes: int, watched: Callable[[ScaledGroup], ModuleType]) -> None:
    group = ScaledGroup(at_most, guest)
    main = watched(group)
    while group.scaler and group.minute < 3 * DAY:
        play(group, 1, main)
    assert group.minute <= within_minutes + 10, "one look later"
    assert is_gone_for_good(group, main)
    assert group.billed <= 3 * (within_minutes + 10 + LEAVING_MINUTES)


def test_a_stop_is_said_once_though_its_vms_are_drained_for_minutes(watched: Callable[[ScaledGroup], ModuleType], monkeypatch: pytest.MonkeyPatch) -> None:
    group = ScaledGroup(at_most, hangs)
    main = watched(group)
    said: list[str] = []
    monkeypatch.setattr(main.apis, "say", lambda _severity, message, **_: said.append(message))
    while group.scaler:
        play(group, 1, main)
    assert is_gone_for_good(group, main) and said == ["watchdog: group resized to 0"]
    # Started again by hand, it is stopped again, and that is said, too.
    group.size, group.scaler, group.minute = 1, True, group.minute + 1
    while group.scaler:
        play(group, 1, main)
    play(group, LEAVING_MINUTES + 1, main)
    assert said == ["watchdog: group resized to 0"] * 2


def test_vms_that_end_one_after_the_other_without_a_word_are_one_silence() -> None:
    minute, reason = looks(lambda minute: [str(minute // 15)], 500, lambda _: {})
    assert (minute, reason) == (25, "its job has not reported for 25 minutes")
    spoke = lambda minute: {"updated": stamp(min(minute, 42)), "status": "running"}  # noqa: E731 - short
    assert looks(lambda minute: [str(minute // 15)], 500, spoke)[0] == 70, "what the last word broke begins again"
    assert looks(lambda minute: ["1"] if minute < 15 else [] if minute < 900 else ["2"], 905, lambda _: {}) == (-1, ""), "without a VM nobody is silent"


def test_a_job_that_is_over_is_stopped_though_a_vm_goes_on_writing_it() -> None:
    assert looks(lambda _: ["1"], 500, lambda minute: {"updated": stamp(minute), "status": "running" if minute < 30 else "failed"})[0] == 50


@pytest.mark.parametrize("what", ["autoscalers", "resize"])
def test_a_stop_that_compute_does_not_answer_is_tried_at_the_next_look(what: str, watched: Callable[[ScaledGroup], ModuleType]) -> None:
    group = ScaledGroup(at_most, hangs, refuses={f"/{what}"})
    main = watched(group)
    play(group, 120, main)
    assert len(group.vms) == 3 and group.size == 3
    group.refuses.clear()
    play(group, 5, main)
    assert is_gone_for_good(group, main)


def test_an_autoscaler_that_takes_minutes_to_go_delays_the_stop_and_no_more(watched: Callable[[ScaledGroup], ModuleType]) -> None:
    group = ScaledGroup(at_most, hangs, going=25)
    main = watched(group)
    play(group, 45, main)
    assert is_gone_for_good(group, main)


def test_the_budget_alone_ends_it(function: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    group = play(ScaledGroup(at_most, busy), 30)
    monkeypatch.setattr(function, "_call", lambda method, url, token: group.call(method, url))
    monkeypatch.setattr(function, "_token", lambda: "a-token")
    monkeypatch.setattr(function, "_PAUSE_S", 0)
    function.stop(test_stop_function.message(**USED_UP))
    assert is_gone_for_good(group)
    function.stop(test_stop_function.message(**USED_UP))
    assert group.said[-1] == "GET instanceGroupManagers", "the next message finds nothing to stop"


def test_a_server_alone_ends_it_when_its_group_is_idle() -> None:
    """The first one that finds the group idle; the others are billed while they are drained."""

    def idles(group: ScaledGroup, vm: Vm) -> None:
        group.report()
        if group.minute - vm.born < 60 or group.status == "idle":
            return
        group.status = "idle"
        for _ in range(16):
            try:
                group.cloud.empty_group(group.facts)
            except CloudError as error:
                assert error.code == 412  # its autoscaler is still going: state.end asks again
            else:
                return

    group = play(ScaledGroup(lambda _minute: 1, idles, ReplicaSpec(min=2, max=3)), 65)
    assert group.size == 0 and not group.scaler and len(group.vms) == 2
    assert is_gone_for_good(group) and group.billed <= 2 * (62 + LEAVING_MINUTES)


def test_the_bounds_of_the_stack_are_those_of_this_group() -> None:
    from infra.plan import plan_bounds

    machine = stacks.load("serve-l4").spec.machine
    assert machine
    bounds = plan_bounds(machine, ReplicaSpec(min=1, max=3))
    assert (bounds.minutes, bounds.vms) == ScaledGroup(at_most, busy).bounds and machine.max_run_minutes == ScaledGroup.max_run_minutes


def test_status_shows_every_server_and_up_asks_for_none_beside_the_autoscaler(monkeypatch: pytest.MonkeyPatch) -> None:
    group = ScaledGroup(at_most, busy)
    session: Any = SimpleNamespace(platform=group)
    monkeypatch.setattr(jobs, "_session", lambda: Session(session.platform))
    where = {"project": "p", "region": REGION, "group": NAME}
    # Right after it was made: the autoscaler has not asked for its least yet, and the size is its own to say.
    assert group.size == 0 and jobs.start(where) == ""
    play(group, 30)
    group.wanted = lambda _minute: 1
    play(group, 13)
    shown = jobs.machine(where)
    assert shown["size"] == 2 and sorted(vm["action"] for vm in shown["instances"]) == ["DELETING", "NONE", "NONE"]
    assert all(vm["attributes"] == {"serving": {"ready": True}} for vm in shown["instances"])
    # Stopped, and begun again before `pulumi up`: one server, which no autoscaler keeps.
    for _ in range(4):
        try:
            group.cloud.empty_group(group.facts)
        except CloudError:
            continue
    play(group, LEAVING_MINUTES + 1)
    assert jobs.machine(where)["instances"] == [] and jobs.start(where) == "" and group.size == 1
    assert JOB.rsplit("-", 1)[-1][:8] in NAME
