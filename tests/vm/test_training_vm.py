"""The life of a training VM: real systemd, guest agent, dockerd and registry; stand-in containers."""

from __future__ import annotations

from collections.abc import Callable

from runners.spec import Spec
from tests.vm.simulation.world import World

Start = Callable[..., World]


def test_success_ends_in_deletion(start: Start, spec: Spec) -> None:
    world = start(spec, standin={"train": [["progress 1 3", "sleep 4", "progress 3 3", "exit 0"]]})
    world.wait_until_ended(60)
    job = world.job()
    assert (job["status"], job["attempts"], job["stage"]) == ("done", 1, "quantize")
    assert world.apis.deleted == ["vm-1"] and world.boots == 1
    assert world.apis.unauthorized == 0
    text = world.logs()
    for said in ("train run 0", "merge run 0", "quantize run 0", "this VM is being deleted"):
        assert said in text
