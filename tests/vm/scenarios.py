"""What goes wrong with a job's VMs: each scenario is played against the stops."""

from __future__ import annotations

import json
from dataclasses import dataclass


@dataclass(frozen=True)
class Scenario:
    """What goes wrong. Times are minutes of the group's life, but for those of ``metadata_away_s``, which count from each VM's start."""

    name: str
    role: str = "train"
    guest: str = "works"  # or: hangs (nothing ever runs), no script, no python
    works_minutes: float = 30
    metadata_away_s: float = 0
    storage_away: tuple[float, float] = (0, 0)
    end_is_refused: bool = False
    states: tuple[tuple[float, str], ...] = ()
    taken_after_minutes: float = 0
    taken_once: bool = False
    capacity: tuple[float, float] = (0, 0)  # no VM is made between these
    gateway_dies_after_s: float = float("inf")
    timers_are_dead: bool = False
    clock_jump_hours: float = 0
    unused: bool = True


NEVER = (0.0, 10.0**6)
SHAPE = json.dumps({"job_id": "job-1", "role": "train", "attempts": "many"})
SCENARIOS = (
    Scenario("a training that finishes"),
    Scenario("a server that nobody uses", role="serve"),
    Scenario("a server in use for days", role="serve", unused=False),
    Scenario("no capacity for five hours", capacity=(0, 300)),
    Scenario("no capacity for five hours after a preemption", works_minutes=40, taken_after_minutes=30, taken_once=True, capacity=(20, 320)),
    Scenario("metadata server away for 75 s at boot", metadata_away_s=75),
    Scenario("metadata server away for two minutes at boot", metadata_away_s=120),
    Scenario("metadata server away for good", metadata_away_s=10**9),
    Scenario("the job's state is not JSON in the middle", states=((20, "{"),)),
    Scenario("the job's state has another shape at boot", states=((0, SHAPE),)),
    Scenario("deleteInstances and resize are refused", end_is_refused=True),
    Scenario("the gateway is dead, vLLM is fine", role="serve", gateway_dies_after_s=0),
    Scenario("the gateway dies two minutes after each start", role="serve", gateway_dies_after_s=120),
    Scenario("the guest hangs", guest="hangs"),
    Scenario("the guest agent runs no startup script", guest="no script", role="serve"),
    Scenario("our Python cannot start", guest="no python"),
    Scenario("the container hangs", works_minutes=10**6),
    Scenario("the container hangs and so do the agent's timers", works_minutes=10**6, timers_are_dead=True),
    Scenario("storage away from the start", storage_away=NEVER),
    Scenario("storage away in the middle of a container that hangs", works_minutes=10**6, storage_away=(20, 10**6)),
    Scenario("a spot VM is taken three minutes after each start", taken_after_minutes=3),
    Scenario("the clock jumps ten hours ahead", works_minutes=10**6, clock_jump_hours=10),
    Scenario("the clock jumps ten hours back", works_minutes=10**6, clock_jump_hours=-10),
)
