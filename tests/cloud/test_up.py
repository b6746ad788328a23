"""`elson up` and `elson down`, with the program run for real: from an empty project to a trained model and a server, and back to nothing by the hour."""

from __future__ import annotations

import json
import re
import shlex
import time
from pathlib import Path
from typing import Any

import pytest

from runners.artifacts import layout, registry, storage
from runners.cloud import follow as following
from runners.cloud import jobs, take_down
from runners.planning import stacks
from tests.infra.shapes import QWEN_14B

from .conftest import BUCKETS, PROJECT, ROOT, Machine, publish, say, tracked


@pytest.fixture
def ready(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """After `elson init`, with a small base model in a folder in the place of the 30 GB one."""
    machine.ok("init", "--project", PROJECT, "--yes")
    base = machine.folder / "my-14b"
    base.mkdir()
    for name, text in (("config.json", json.dumps(QWEN_14B)), ("tokenizer.json", "{}"), ("tokenizer_config.json", "{}"), ("model.safetensors", "weights")):
        (base / name).write_text(text)
    stacks.remember("train-h100", {"elson:spec": {"base_model": {"source": str(base)}}})
    monkeypatch.setattr(following, "_EVERY_S", 0.2)
    monkeypatch.setattr(following.follow, "__defaults__", (1.0,))
    return machine


def training_vm(machine: Machine, folder: Path) -> Any:
    def life(group: dict[str, Any]) -> None:
        machine.asked.wait(300)
        job = stacks.look_up(stacks.load("train-h100").spec).job_id
        assert group["name"].rsplit("-", 1)[-1] in job
        say(job, "train", "starting", stage="train", log="line 1\nline 2")
        time.sleep(8)
        say(job, "train", "starting", stage="quantize", log="line 1\nline 2\nline 3", progress={"message": "awq", "done": 3, "total": 48})
        time.sleep(8)
        publish(folder / "q4", "elson-finance-trading-wealth-14b-q4-v2", "qdora", job)
        say(job, "train", "done", reason="quantize finished", log="line 1\nline 2\nline 3\nline 4")

    return life


@pytest.mark.timeout(1500)
def test_from_an_empty_project_to_a_trained_model_in_the_lines_of_the_readme(ready: Machine, tmp_path: Path) -> None:
    page = (ROOT / "infra" / "README.md").read_text()
    block = re.search(r"<!-- five lines -->\n```\n(.*?)```", page, re.DOTALL)
    assert block
    lines = [re.sub(r"\s+#.*$", "", line).strip() for line in block[1].splitlines()]
    assert len(lines) <= 5 and lines[0].startswith("make setup")
    assert "setup:" in (ROOT / "Makefile").read_text()
    ready.vm(training_vm(ready, tmp_path))
    before = tracked(ready)
    said = {}
    for line in lines:
        if line.startswith("elson "):
            words = shlex.split(line)[1:]
            said[words[0]] = ready.ok(*words, *([] if words[0] == "doctor" else ["--yes"]), *(["--project", PROJECT] if words[0] == "init" else [])).output
    up = said["up"]
    order = ["elson up foundation", "elson images build quantize train", "elson data build --publish", "elson base publish", "pulumi up -s train-h100"]
    steps = [line.strip() for line in up.splitlines() if line.startswith(("  elson ", "  pulumi up"))]
    assert [next((text for text in order if line.startswith(text)), "boot image") for line in steps] == [*order[:-1], "boot image", order[-1]]
    assert "about $" in up.lower() and "at most $" in up
    assert "== no VM has reported yet: ZONE_RESOURCE_POOL_EXHAUSTED" in up
    for line in ("line 1", "line 2", "line 3", "line 4"):
        assert up.count(f"\n{line}\n") == 1
    assert "awq 3 of 48" in up and "done. Next: elson models promote elson-finance-trading-wealth-14b-q4-v2" in up
    assert registry.usable(BUCKETS, "elson-finance-trading-wealth-14b-q4-v2").kind == "qdora"
    assert registry.usable(BUCKETS, "elson-corpus").kind == "dataset"
    # Again: nothing is built, nothing runs, and the group is gone.
    builds = len(ready.calls("builds", "submit"))
    again = ready.ok("up", "train-h100", "--yes").output
    assert "is there already: nothing ran" in again and len(ready.calls("builds", "submit")) == builds
    assert ready.google.made("deleted")
    state = ready.gcloud()
    assert state["vms"] == {} and state["boot_images"].keys() == {stacks.load("train-h100").spec.machine.image.rpartition("/")[2]}  # type: ignore[union-attr]
    # And `pulumi up -s train-h100` is the same program on the same state.
    assert ready.state("train-h100")["outputs"]["status"] == "complete"
    assert tracked(ready) == before


@pytest.mark.timeout(1500)
def test_servers_behind_a_load_balancer_go_up_and_everything_goes_down_again(ready: Machine, tmp_path: Path) -> None:
    ready.google.limit = 2.0  # a card for each server
    stacks.remember("foundation", {"elson:spec": {"foundation": {"proxies_cidr": "10.20.255.0/24"}}})
    stacks.remember("serve-l4", {"elson:spec": {"serve": {"replicas": {"min": 1, "max": 2}}}})
    ready.ok("up", "foundation", "--yes")
    publish(tmp_path / "q4", "a-q4", "qdora", "qdora-1")
    assert "elson models promote" in ready.fails("up", "serve-l4", "--yes")
    ready.ok("models", "promote", "a-q4", "--stack", "serve-l4", "--anyway")
    ready.vm(lambda group: say(stacks.look_up(stacks.load("serve-l4").spec).job_id, "serve", "ready"))
    served = json.loads(ready.ok("up", "serve-l4", "--yes", "--no-bake", "--json").stdout)
    assert served["outputs"]["status"] == "asked for" and served["state"]["status"] == "ready" and ready.google.keys == 1
    made = [resource["type"].rpartition(":")[2] for resource in ready.state("serve-l4")["resources"]]
    assert {"RegionAutoscaler", "RegionBackendService", "ForwardingRule"} <= set(made)
    refused = ready.fails("down", "foundation", "--yes")
    assert "serve-l4 stand on foundation" in refused
    down = ready.ok("down", "--all", "--yes")
    assert "still there: the models bucket" in down.output
    gone = [json.loads(line)["name"] for line in (ready.standin / "cloud.jsonl").read_text().splitlines() if '"deleted"' in line]
    assert gone == [served["outputs"]["group"]]
    assert ready.state("serve-l4")["resources"] == [] and all(resource["protect"] for resource in ready.state("foundation")["resources"])
    assert {resource["type"] for resource in ready.state("foundation")["resources"]} >= {"gcp:storage/bucket:Bucket"}
    assert "not there" in ready.ok("down", "serve-l4", "--yes").output


@pytest.mark.timeout(1500)
def test_down_on_cloud_run_ends_what_works_first_and_keeps_the_models(ready: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether deleting a job ends its execution is not known, so it is ended before."""
    monkeypatch.setenv("CLOUDSDK_API_ENDPOINT_OVERRIDES_RUN", f"http://127.0.0.1:{ready.google.server_address[1]}")
    monkeypatch.setattr(take_down, "_EVERY_S", 0.1)
    stacks.remember("train-run", {"elson:spec": {"base_model": {"source": str(ready.folder / "my-14b")}}})
    ready.ok("up", "train-run", "--yes", "--no-follow")
    publish(tmp_path / "q4", "a-q4", "qdora", "qdora-1")
    ready.ok("models", "promote", "a-q4", "--stack", "serve-l4-run", "--anyway")
    ready.ok("up", "serve-l4-run", "--yes", "--no-follow")
    jobs_made = [row["name"] for row in ready.google.made("Job")]
    assert len(jobs_made) == 2 and [row["name"] for row in ready.google.made("Service") if "name" in row] == ["elson-serve-l4-run"]
    ready.google.refuses_cancel = True
    said = ready.fails("down", "train-run", "--yes")
    assert "could not be cancelled" in said and "elson down train-run" in said and ready.state("train-run")["resources"], "nothing was destroyed"
    ready.google.refuses_cancel = False
    down = ready.ok("down", "--all", "--yes").output
    rows = [json.loads(line) for line in (ready.standin / "cloud.jsonl").read_text().splitlines()]
    order = [row["kind"] for row in rows if row["kind"] == "ended" or (row["kind"] == "deleted" and row["name"] in jobs_made)]
    assert order[0] == "ended" and order.count("deleted") == 2, order
    (ended,) = {row["name"] for row in rows if row["kind"] == "ended"}
    assert f"cancelled {ended.rpartition('/')[2]}" in down and "still there: the models bucket" in down
    assert ready.state("train-run")["resources"] == ready.state("serve-l4-run")["resources"] == []
    there = json.loads((ready.standin / "there.json").read_text())
    assert not [one for one in there if "/jobs/elson" in one or "/services/elson" in one], "neither jobs nor the service"
    assert registry.usable(BUCKETS, "a-q4").kind == "qdora", "the models stay"


@pytest.mark.timeout(1500)
def test_of_several_places_one_quota_is_enough_and_a_job_without_a_vm_is_asked_for(ready: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    ready.google.limits = {"PREEMPTIBLE_NVIDIA_H100_GPUS": 0.0}
    assert "quota PREEMPTIBLE_NVIDIA_H100_GPUS" in ready.fails("up", "train-h100", "--yes")
    stacks.remember("train-h100", {"elson:spec": {"machine": {"places": [{"machine_type": "a2-ultragpu-1g", "max_usd_per_hour": 3.0}]}}})
    asked: list[dict[str, str]] = []
    monkeypatch.setattr(jobs, "start", lambda where: asked.append(where) or "")
    done = ready.ok("up", "train-h100", "--yes", "--no-follow", "--no-bake", "--json")
    shown = json.loads(done.stdout)
    first = shown["outputs"]["group"]
    assert asked == [{"project": PROJECT, "region": "us-central1", "group": first}]
    assert [place.partition(",")[0] for place in shown["outputs"]["places"]] == [first, f"{first}-2"]
    assert "2. a2-ultragpu-1g, spot, us-central1: $" in done.stderr and shown["usd_at_most"] == shown["outputs"]["usd_at_most"]


@pytest.mark.timeout(1500)
def test_a_job_of_one_place_whose_group_is_at_0_starts_again_or_says_why_not(ready: Machine) -> None:
    def up(works: bool = True) -> str:
        words = ("up", "train-h100", "--yes", "--no-follow", "--no-bake")
        return ready.ok(*words).output if works else ready.fails(*words)

    up()
    outputs, google = ready.state("train-h100")["outputs"], ready.google
    job, group = outputs["job"], outputs["group"]
    of_vm = {"machine": {"project": PROJECT, "region": outputs["region"], "group": group}, "spec_uri": outputs["spec"]}
    say(job, "train", "running", **of_vm)
    google.resize(group, 0)  # the watchdog's stop
    up()
    assert google.size(group) == 1, "a job that is not over gets its VM again"
    say(job, "train", "failed", reason="merge refused to go on", **of_vm)
    google.resize(group, 0)  # the VM's own end
    said = up(works=False)
    assert f"{job} ended without a result, and its group stays at 0" in said and f"elson retry {job}" in said and google.size(group) == 0
    assert "its group gets a VM" in ready.ok("retry", job, "--stack", "train-h100").output and google.size(group) == 1
    up()
    assert google.size(group) == 1


def test_a_dry_run_prints_the_long_way_and_does_nothing(ready: Machine) -> None:
    done = ready.ok("up", "train-h100", "--dry-run", "--json")
    steps = [step[:2] for step in json.loads(done.stdout)["steps"]]
    assert steps == [["up", "foundation"], ["images", "build"], ["data", "build"], ["base", "publish"], ["images", "bake"]]
    assert ready.state("train-h100")["resources"] == [] and not ready.calls("builds")
    assert "foundation" in ready.ok("down", "--all", "--dry-run").output


@pytest.mark.parametrize(
    ("stack", "words"),
    [("train-h100", "quota PREEMPTIBLE_NVIDIA_H100_GPUS"), ("serve-l4", "quota NVIDIA_L4_GPUS"), ("train-h200", "there is no stack train-h200")],
)
def test_what_only_a_person_can_give_stops_it_before_anything_is_made(stack: str, words: str, ready: Machine) -> None:
    ready.google.limit = 0.0
    done = ready.elson("up", stack, "--yes")
    assert words in str(done.exception) and ready.state("foundation")["resources"] == []
    assert words not in done.output, "each thing once: in the error"


def test_without_a_login_or_init_the_fix_is_named(machine: Machine) -> None:
    said = machine.fails("up", "train-h100", "--yes")
    assert "nobody is logged in to Pulumi" in said and "elson init" in said


@pytest.mark.parametrize(
    ("refused", "words"),
    [
        ("Error 403: Quota 'NETWORKS' exceeded. Limit: 5.0 globally., quotaExceeded", "ask for the quota"),
        ("Error creating Budget: googleapi: Error 403: The caller does not have permission, billingbudgets.googleapis.com", "roles/billing.costsManager"),
        ("googleapi: Error 403: Compute Engine API has not been used in project 1 before or it is disabled.", "wait two minutes"),
    ],
)
def test_what_google_refuses_is_one_error_with_what_to_do(refused: str, words: str, ready: Machine) -> None:
    (ready.standin / "fail.json").write_text(json.dumps(refused))
    said = ready.fails("up", "foundation", "--yes")
    assert refused[:40] in said and words in said and said.endswith("then: elson up foundation")
    (ready.standin / "fail.json").unlink()
    (ready.standin / "foundation.lock").touch()
    locked = ready.fails("up", "foundation", "--yes")
    assert "another update of foundation is running, or one was cut off" in locked
    assert "wait for it; if there is none: pulumi cancel -s foundation, then: elson up foundation" in locked


def test_the_programs_own_refusal_comes_through_word_for_word(ready: Machine) -> None:
    stacks.remember("foundation", {"elson:spec": {"foundation": {"budget_usd": 1}}})
    with pytest.raises(AssertionError, match="foundation.budget_usd"):
        ready.ok("up", "foundation", "--yes")


# --- following ------------------------------------------------------------------------------------------------------------------------------


def test_a_job_that_fails_ends_the_waiting_with_its_reason(bucket: None) -> None:
    say("dora-1", "train", "failed", reason="the last run's")
    lines: list[str] = []

    def line(text: str) -> None:
        lines.append(text)
        if "the last run's" in text:  # an old end is not this one's
            say("dora-1", "train", "failed", reason="merge refused to go on", log="a\nb")

    with pytest.raises(Exception, match="merge refused to go on"):
        following.follow(BUCKETS, "dora-1", "train", {}, line, 0.05)
    assert lines[-1].startswith("== failed: merge refused")


@pytest.mark.parametrize(("role", "status"), [("serve", "idle"), ("serve", "failed"), ("train", "deadline")])
def test_whatever_ends_without_success_says_so(role: str, status: str, bucket: None) -> None:
    from runners.cloud import jobs

    begun, job = [], {"serve": "serve-1", "train": "qdora-1"}[role]

    def machine(_: Any) -> dict[str, Any]:
        begun.append(1)
        say(job, role, status, reason="because")
        return {"problem": "not asked"}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs, "machine", machine)
        with pytest.raises(Exception, match=f"{job} ended: {status}, because"):
            following.follow(BUCKETS, job, role, {}, lambda _: None, 0.05)
    assert begun


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    from runners.artifacts import local_bucket
    from runners.cloud import jobs

    monkeypatch.setattr(jobs, "machine", lambda _: {})
    with local_bucket.running(tmp_path, BUCKETS):
        yield


def test_the_state_of_a_job_is_where_follow_reads_it(bucket: None) -> None:
    say("dora-2", "train", "done")
    assert storage.read(f"{layout.job(BUCKETS, 'dora-2')}/state.json")
    assert following.follow(BUCKETS, "dora-2", "train", {}, lambda _: None, 0.05)["status"] == "done"
