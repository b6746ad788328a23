"""A metadata server that is away at boot, in the simulated VM: for two minutes, and for good."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from runners.spec import Spec
from runners.vm import payload
from tests.vm.simulation.world import World

Start = Callable[..., World]


def test_two_minutes_without_metadata_at_boot_cost_two_minutes(start: Start, spec: Spec, cloud: World) -> None:
    cloud.on_new = lambda _: setattr(cloud.metadata, "slow_until", time.monotonic() + 120)
    world = start(spec, standin={})
    world.wait_until_ended(300)
    assert (world.job()["status"], world.job()["attempts"], world.boots) == ("done", 1, 1)
    assert world.apis.deleted == ["vm-1"] and world.metadata.refused > 10
    assert 120 < world.machines[0].seconds_on < 240


def test_without_metadata_for_good_each_vm_ends_itself_and_the_group_makes_another(start: Start, spec: Spec, cloud: World) -> None:
    """What ends the group then is outside of it: the row "metadata server away for good" in infra/README.md."""
    cloud.metadata.slow_until = math.inf
    script = payload.metadata()["startup-script"]
    assert "PATIENCE_S=600" in script
    world = start(spec, standin={}, **{"startup-script": script.replace("PATIENCE_S=600", "PATIENCE_S=40")})
    world.wait(lambda: world.boots == 2, 150, "a second VM")
    assert world.apis.target_size == 1 and world.apis.deleted == [], "nobody could reach the group"
    assert world.machines[0].seconds_on < 2 * 40, "one patience, and a tenth of it for the token"
