"""A test run that is killed in the middle leaves nothing that the next start does not remove."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.vm.simulation import golden, world

_ABANDONED = """
import sys, time
from tests.vm.simulation import world
cloud = world.World("abandoned")
cloud.open()
cloud.start_group({"elson-job-id": "job-1", "elson-role": "train", "elson-group": "g", "elson-region": "us-central1"})
cloud.wait(lambda: cloud.machines and cloud.machine.is_on and cloud.metadata.requests, 30, "a VM")
print("up", flush=True)
time.sleep(600)
"""


def test_a_killed_run_is_cleaned_up_by_the_next(simulation: dict[str, str]) -> None:
    world.remove_what_a_killed_run_left("abandoned")
    run = subprocess.Popen([sys.executable, "-c", _ABANDONED], cwd=golden.ROOT, stdout=subprocess.PIPE, text=True)
    assert run.stdout and run.stdout.readline().strip() == "up"
    run.send_signal(signal.SIGKILL)
    run.wait()
    network = f"{world.PREFIX}-abandoned"
    assert network in subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    world.remove_what_a_killed_run_left("abandoned")
    time.sleep(0.5)
    assert network not in subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    assert "worlds/abandoned" not in Path("/proc/mounts").read_text()
    commands = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert not [line for line in commands.splitlines() if "worlds/abandoned" in line]
