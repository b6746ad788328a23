"""The life of a training VM: real systemd, guest agent, dockerd and registry; stand-in containers."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

from runners.spec import Spec
from tests.vm.simulation import golden
from tests.vm.simulation.machine import Machine
from tests.vm.simulation.world import World

Start = Callable[..., World]


def saw(world: World, text: str) -> Callable[[], bool]:
    """Whether the newest VM's journal has a text."""

    def look() -> bool:
        return bool(world.machines) and text in world.machine.journal()

    return look


def test_success_ends_in_deletion(start: Start, spec: Spec) -> None:
    world = start(spec, standin={"train": [["progress 1 3", "sleep 12", "progress 3 3", "exit 0"]]})
    progress = world.wait(lambda: world.guest_attribute("progress"), 40, "progress in the guest attributes")
    assert progress["stage"] == "train" and progress["total"] == 3
    world.wait(saw(world, "image is here ahead of its stage"), 20, "the second image while the training runs")
    assert world.job()["stage"] == "train"
    assert "elson-pull@quantize" not in world.machine.journal(), "the first image does not share the line with it"
    journal = world.machine.run("journalctl", "--no-pager").stdout
    assert "elson: end a VM that does nothing" in journal and "ignoring line" not in journal, "systemd reads every unit that we make"
    shown = status(world)
    assert (shown["status"], shown["vm"]["size"], shown["vm"]["instances"][0]["name"]) == ("running", 1, "vm-1")
    assert shown["vm"]["instances"][0]["attributes"]["progress"]["total"] == 3
    world.wait_until_ended(40)
    job = world.job()
    assert (job["status"], job["attempts"], job["stage"]) == ("done", 1, "quantize")
    assert world.apis.deleted == ["vm-1"] and world.boots == 1
    assert world.apis.unauthorized == 0
    for said in ("train run 0", "merge run 0", "quantize run 0", "this VM is being deleted"):
        assert said in world.logs(), said
    forwarded = [entry for entry in world.apis.log_entries if entry.get("jsonPayload", {}).get("message") == "train run 0"]
    assert [entry["labels"]["job"] for entry in forwarded] == [job["job_id"]], "Cloud Logging got the container's line once, labelled"


def status(world: World) -> dict[str, Any]:
    """What `elson status` prints, run where Google's names resolve to the simulation."""
    job = str(world.job()["job_id"])
    program = [sys.executable, "-m", "runners", "status", job, "--json", "--models-bucket", "gs://models", "--scratch-bucket", "gs://scratch"]
    environment = {"REQUESTS_CA_BUNDLE": "/etc/ssl/certs/ca-certificates.crt", "PYTHONDONTWRITEBYTECODE": "1", "GOOGLE_CLOUD_PROJECT": "proj"}
    done = world.machine.run("env", "-C", str(golden.ROOT), *program, environment=environment, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_a_crash_is_tried_again_and_a_refusal_ends_the_job(start: Start, spec: Spec) -> None:
    world = start(spec, standin={"train": [["exit 139"], ["exit 1"]]})
    world.wait_until_ended(60)
    job = world.job()
    assert (job["status"], job["attempts"]) == ("failed", 2)
    assert "exit code 1" in job["reason"] and len(job["boots"]) == 1
    assert "train ended with exit code 139" in world.logs()
    assert world.apis.deleted == ["vm-1"]


def test_preemption_saves_and_the_next_vm_goes_on(start: Start, spec: Spec) -> None:
    world = start(spec, standin={"train": [["progress 1 2", "sleep 300"], ["exit 0"]]})
    # The stand-in counts its runs on the work disk, which a new VM does not have: the second VM is given the counter.
    world.on_new = lambda machine: give_second_run(machine) if world.boots > 1 else None
    world.wait(saw(world, "train run 0"), 40, "the training to run")
    world.preempt(notice_s=8)
    first = world.logs()
    assert "this VM is being preempted" in first and "stopping: checkpoint written" in first
    world.wait_until_ended(60)
    job = world.job()
    assert (job["status"], job["attempts"]) == ("done", 2)
    assert [boot["instance"] for boot in job["boots"]] == ["vm-1", "vm-2"] and job["boots"][0]["zone"] != job["boots"][1]["zone"]
    assert world.apis.deleted == ["vm-2"], "a preempted VM is the platform's to take; only the finished one deletes itself"


def give_second_run(machine: Machine) -> None:
    work = machine.folder / "upper/var/lib/elson/work"
    machine.make_disk()
    work.mkdir(parents=True)
    (work / "train.runs").write_text("1")
    (work / "train.runs").chmod(0o666)


def test_a_reboot_in_the_middle_is_a_second_boot_that_goes_on(start: Start, spec: Spec) -> None:
    world = start(spec, standin={"train": [["exit 0"]], "merge": [["sleep 300"], ["exit 0"]]})
    world.wait(saw(world, "merge run 0"), 40, "the merge to run")
    world.machine.run("systemctl", "reboot", check=False)
    world.wait_until_ended(60)
    job = world.job()
    assert (job["status"], job["attempts"]) == ("done", 2)
    assert [boot["instance"] for boot in job["boots"]] == ["vm-1", "vm-1"]
    assert "train run 1" not in world.logs(), "the disk is the same, so the finished stage is not run again"
    assert "merge run 1" in world.logs()


def test_the_deadline_stops_a_running_job(start: Start, spec: Spec) -> None:
    short = spec.model_copy(update={"machine": spec.machine.model_copy(update={"deadline_minutes": 5})})
    world = start(short, standin={"train": [["sleep 300"]]}, state={"attempts": 1, "earlier_s": 5 * 60.0 - 30})
    world.wait(saw(world, "train run 0"), 40, "the training to run")
    world.wait_until_ended(100)  # the timer looks twice a minute; one look may fail
    job = world.job()
    assert job["status"] == "deadline" and "5 minutes, 5 are allowed" in job["reason"]
    assert "stopping: checkpoint written" in world.logs(), "the container had time to save"
    assert world.apis.deleted == ["vm-1"]


def test_everything_that_is_slow_or_down_at_boot_is_waited_for(start: Start, spec: Spec, cloud: World) -> None:
    """Metadata server, driver and registry come up late; Docker does not come back from the first restart."""
    cloud.metadata.slow_until = time.monotonic() + 12
    cloud.registry.kill()
    cloud.on_new = late_driver_and_docker
    world = start(spec, standin={})
    world.wait(saw(world, "image not pulled"), 60, "a failed pull")
    world.start_registry()
    world.wait_until_ended(60)
    assert (world.job()["status"], world.job()["attempts"]) == ("done", 1)
    assert "nvidia-smi failed (1 of 30)" in world.logs() and "restart_docker failed (1 of 6)" in world.logs()
    assert world.metadata.refused > 0, "our script met the slow server"


def late_driver_and_docker(machine: Machine) -> None:
    machine.make_disk()
    (machine.folder / "upper/etc/simulation/driver-late").write_text("1")
    counted = "n=$$(cat /etc/simulation/docker-starts || echo 0); echo $$((n + 1)) >/etc/simulation/docker-starts; [ $$n != 1 ]"
    (machine.folder / "upper/etc/systemd/system/docker.service.d/20-late.conf").write_text(f"[Service]\nExecStartPre=/bin/sh -c '{counted}'\n")


def test_a_job_that_is_over_stops_at_once_even_without_the_right_to_delete(start: Start, spec: Spec, cloud: World) -> None:
    cloud.apis.forbidden = {"deleteInstances"}
    world = start(spec, standin={}, state={"status": "done", "attempts": 1})
    world.wait_until_ended(30)
    assert world.job()["attempts"] == 1 and world.boots == 1
    assert world.apis.deleted == [] and any("resize?size=0" in call for call in world.apis.calls)
    assert not world.object(f"gs://scratch/jobs/{world.job()['job_id']}/logs").exists() or "docker pull" not in world.logs()


def test_a_vm_that_cannot_learn_what_it_is_for_ends(start: Start, spec: Spec) -> None:
    world = start(spec, standin={}, **{"elson-spec-uri": "gs://scratch/specs/missing.json"})
    world.wait_until_ended(30)
    assert world.apis.deleted == ["vm-1"]
    assert "not there" in world.guest_attribute("state")["reason"]


def test_a_startup_script_that_fails_empties_the_group(start: Start, spec: Spec) -> None:
    world = start(spec, standin={}, **{"elson-units": "not JSON"})
    world.wait_until_ended(30)
    assert world.apis.target_size == 0 and "startup script" in world.guest_attribute("state")["reason"]


def test_a_vm_that_vanishes_is_made_again_and_attempts_are_bounded(start: Start, spec: Spec) -> None:
    """No notice, no shutdown: as when a host dies. The third boot is one too many."""
    twice = spec.model_copy(update={"machine": spec.machine.model_copy(update={"max_attempts": 2})})
    world = start(twice, standin={"train": [["sleep 300"]]})
    for boots in (1, 2):
        world.wait(lambda boots=boots: world.job().get("attempts") == boots and world.job()["status"] == "running", 60, f"boot {boots} to work")
        world.machine.pull_the_plug()
    world.wait_until_ended(60)
    job = world.job()
    assert (job["status"], job["attempts"], world.boots) == ("failed", 2, 3)
    assert "attempts used up (2 of 2)" in job["reason"]
    assert json.dumps(job).count("vm-3") == 0, "the third never worked"
