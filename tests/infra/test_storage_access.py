"""What each account of the foundation may do with storage: the project's own code, acting as the account, before the emulator with the foundation's grants."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import PROJECT, Cloud, publish
from engine import Run
from shapes import QWEN_14B

from runners.artifacts import layout, registry, storage
from runners.errors import UserError
from runners.outside import digest
from runners.planning import stacks
from runners.serving import compiled, serve
from runners.vm import cloud as vm_cloud
from runners.vm import decide, facts, state, steps
from tests.storage_iam import Policy, acting_as, condition, needs

IMAGE = "us-docker.pkg.dev/p/elson/x@sha256:" + "a" * 64


@pytest.fixture(scope="session")
def policy(runs: Callable[[str, bool], Run]) -> Policy:
    return Policy.of(runs("foundation", False).resources)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Cloud], facts.Facts]:
    """A VM's agent without a VM: its files in a temporary folder, its storage at the emulator's address."""
    for module in (state, steps):
        monkeypatch.setattr(module, "RUN", tmp_path)
    monkeypatch.setattr(vm_cloud.Cloud, "token", lambda _: "a-token")
    monkeypatch.setattr(state, "guest_attribute", lambda *_: None)
    monkeypatch.setattr(steps, "_PATIENCE_S", 0)

    def made(role: str, cloud: Cloud) -> facts.Facts:
        values = cloud.values("train-h100" if role == "train" else "serve-l4")
        machine = {**values["machine"], "max_attempts": 3, "deadline_minutes": 120, "max_run_minutes": 150}
        spec = {"buckets": values["buckets"], "machine": machine, "serve": {"idle_minutes": 60}}
        uri = layout.spec(cloud.buckets, digest(spec))
        storage.write_json(uri, spec, generation=0)
        job = "qdora-1" if role == "train" else "serve-1"
        images = dict.fromkeys(("train", "quantize", "serve", "gateway"), IMAGE)
        return facts.Facts(PROJECT, "us-central1-a", "vm-1", "1", role, job, "elson-group", "us-central1", uri, images)

    return made


@pytest.mark.parametrize("role", ["train", "serve"])
def test_the_first_boot_of_a_job_works_though_there_is_no_state_yet(role: str, cloud: Cloud, policy: Policy, machine: Any, monkeypatch: Any) -> None:
    found = machine(role, cloud)
    with acting_as(f"elson-{role}", policy) as front:
        monkeypatch.setattr(vm_cloud, "_STORAGE", front.url)
        context, decision = steps._first_decision(found)
        assert (decision.action, decision.job.attempts) == ("work", 1)
        assert context.job().status == "starting", "the state is written, and read again"
        assert not front.refused


def test_a_vm_that_comes_while_cloud_run_is_at_work_on_its_job_ends_and_changes_nothing(cloud: Cloud, policy: Policy, machine: Any, monkeypatch: Any) -> None:
    """Its group waited for capacity, and nobody could know that it would come."""
    found = machine("train", cloud)
    uri = f"{layout.job(cloud.buckets, found.job_id)}/state.json"
    before = {**decide.Job(found.job_id, "train", status="running", stage="train", attempts=1, updated_at=state.now().isoformat()).to_json()}
    storage.write_json(uri, {**before, "machine": {"run_job": "elson-train-1"}}, generation=0)
    content = storage.read(uri)
    with acting_as("elson-train", policy) as front:
        monkeypatch.setattr(vm_cloud, "_STORAGE", front.url)
        assert steps._first_decision(found)[1].action == "stop"
    assert storage.read(uri) == content
    storage.update_json(uri, lambda old: {**(old or {}), "updated_at": "2026-03-01T00:00:00+00:00"})
    with acting_as("elson-train", policy) as front:
        monkeypatch.setattr(vm_cloud, "_STORAGE", front.url)
        assert steps._first_decision(found)[1].action == "work", "silent: it goes on where that one ended"


def test_a_server_reads_everything_it_may_find_missing(cloud: Cloud, policy: Policy) -> None:
    with acting_as("elson-serve", policy) as front:
        assert registry.read(cloud.buckets, "not-there") is None
        assert registry.to_serve(cloud.buckets, "production").name == "first-q4"
        assert storage.read_manifest(layout.model(cloud.buckets, "not-there")) is None
        assert not front.refused


def test_a_server_loads_its_model_while_it_arrives_and_leaves_what_it_compiled(cloud: Cloud, policy: Policy, tmp_path: Path) -> None:
    planned = stacks.look_up(cloud.spec("serve-l4")).spec
    code = tmp_path / "work/cache/vllm/torch_compile_cache/ab12"
    code.mkdir(parents=True)
    (code / "graph.py").write_text("compiled")
    with acting_as("elson-serve", policy) as front:
        folder, _, arrival = serve.begin_model(planned, tmp_path / "work")
        assert arrival is not None
        arrival.rest()
        assert storage.complete_here(folder, arrival.manifest)
        assert compiled.keep(planned, tmp_path / "work", None, "serve-1") is not None
        assert not front.refused
        with pytest.raises(UserError, match="no access"):
            compiled.publish(cloud.buckets, "serve-1")
    assert compiled.published(planned) is None
    compiled.publish(cloud.buckets, "serve-1")
    named = planned.model_copy(update={"serve": planned.serve.model_copy(update={"compiled": compiled.published(planned)})})
    with acting_as("elson-serve", policy) as front:
        assert compiled.fetch(named, tmp_path / "other", None) and not front.refused


def test_a_training_reads_writes_and_publishes(cloud: Cloud, policy: Policy, tmp_path: Path) -> None:
    with acting_as("elson-train", policy) as front:
        assert registry.complete(cloud.buckets, "a-model-v1", "dora-1") is None
        assert storage.listing(layout.checkpoints(cloud.buckets, "dora-1")) == []
        publish(cloud.buckets, tmp_path / "made", "a-model-v1", "dora", "dora-1")
        (tmp_path / "checkpoint").mkdir()
        (tmp_path / "checkpoint/adapter.bin").write_bytes(b"1" * 4096)
        storage.upload(tmp_path / "checkpoint", f"{layout.checkpoints(cloud.buckets, 'dora-1')}/step-1")
        storage.delete(layout.checkpoints(cloud.buckets, "dora-1"))
        assert not front.refused
    assert registry.usable(cloud.buckets, "a-model-v1").id == "dora-1"


@pytest.mark.parametrize(
    ("member", "uri"),
    [
        ("elson-train", "models/first-q4/weights.txt"),
        ("elson-train", "models/production.json"),
        ("elson-train", "models/datasets/data-0123456789abcdef/train.jsonl"),
        ("elson-train", "models/compiled/compiled-0123456789abcdef/manifest.json"),
        ("elson-train", "scratch/specs/0123456789abcdef.json"),
        ("elson-train", "scratch/jobs/serve-1/state.json"),
        ("elson-train", "scratch/functions/stop.zip"),
        ("elson-train", "scratch/builds/source.tgz"),
        ("elson-serve", "models/new-v1/weights.bin"),
        ("elson-serve", "models/compiled/compiled-0123456789abcdef/manifest.json"),
        ("elson-serve", "scratch/jobs/qdora-1/state.json"),
        ("elson-serve", "scratch/staging/qdora-1/x"),
        ("elson-build", "scratch/specs/0123456789abcdef.json"),
        ("elson-build", "models/production.json"),
        ("elson-stop", "models/production.json"),
        ("elson-serve", "models/registry/first-q4.json"),
        ("elson-serve", "models/production.json"),
        ("elson-serve", "scratch/specs/abc.json"),
        ("elson-serve", "scratch/checkpoints/x"),
        ("elson-stop", "scratch/jobs/job-1/state.json"),
        ("elson-build", "models/new.txt"),
        ("nobody", "models/new.txt"),
    ],
)
def test_who_may_not_write_where(member: str, uri: str, cloud: Cloud, policy: Policy) -> None:
    place = uri.replace("models", cloud.buckets.models, 1) if uri.startswith("models") else uri.replace("scratch", cloud.buckets.scratch, 1)
    before = storage.read(place)
    with acting_as(member, policy) as front:
        with pytest.raises(UserError, match="no access"):
            storage.write(place, "theirs", generation=before[1] if before else 0)
        assert front.refused
    assert storage.read(place) == before


def test_even_the_first_promotion_is_not_a_training_vms(cloud: Cloud, policy: Policy) -> None:
    """Creating needs no right to delete: so the right to create leaves the object out."""
    storage.delete_object(layout.production(cloud.buckets))
    with acting_as("elson-train", policy), pytest.raises(UserError, match="no access"):
        registry.promote(cloud.buckets, "first-q4")
    assert registry.production(cloud.buckets) is None


def test_a_thief_of_the_training_account_cannot_choose_what_is_served(cloud: Cloud, policy: Policy, tmp_path: Path) -> None:
    """He may publish his own model and change the registry: the plan and the server notice, and stop."""
    planned = stacks.look_up(cloud.spec("serve-l4")).spec
    with acting_as("elson-train", policy):
        evil = publish(cloud.buckets, tmp_path / "evil", "evil-v1", "qdora", "qdora-9")
        entry = layout.registry(cloud.buckets, "first-q4")
        storage.update_json(entry, lambda old: {**(old or {}), "manifest": evil.manifest})
    with pytest.raises(UserError, match="was promoted as"):
        stacks.look_up(cloud.spec("serve-l4"))
    with acting_as("elson-serve", policy), pytest.raises(UserError, match="the plan was made for"):
        serve.fetch_model(planned, None, tmp_path / "work")


def test_a_draft_is_the_one_that_was_planned(cloud: Cloud, policy: Policy, tmp_path: Path) -> None:
    sizes = {"hidden_size": 896, "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2, "intermediate_size": 4864}
    small = {"architectures": ["Qwen2ForCausalLM"], "vocab_size": QWEN_14B["vocab_size"], **sizes}
    draft = publish(cloud.buckets, tmp_path / "draft", "draft-v1", "merged", "merged-7", config=small)
    storage.update_json(layout.registry(cloud.buckets, "first-q4"), lambda old: {**(old or {}), "bytes": 9_000_000_000})  # a stand-in has a few
    spec = cloud.spec("serve-l4", serve={"speculation": {"method": "draft", "model": "draft-v1"}})
    looked_up = stacks.look_up(spec)
    planned = looked_up.spec
    assert planned.serve.speculation and planned.serve.speculation.model_bytes == draft.bytes
    assert planned.serve.speculation.token_cache_bytes == 12_288
    with acting_as("elson-serve", policy):
        assert serve.fetch_draft(planned, tmp_path / "work")
    other = publish(cloud.buckets, tmp_path / "other", "other-v1", "merged", "merged-8", config=small)
    storage.update_json(layout.registry(cloud.buckets, "draft-v1"), lambda old: {**(old or {}), "id": other.id, "manifest": other.manifest})
    with pytest.raises(UserError, match="the plan was made for merged-7"):
        serve.fetch_draft(planned, tmp_path / "again")
    # What the plan alone reads makes no other server: a job that runs is found again by a registry that knows no sizes.
    storage.update_json(layout.registry(cloud.buckets, "draft-v1"), lambda old: {**(old or {}), "id": draft.id, "manifest": draft.manifest, "bytes": 0})
    unsized = stacks.look_up(spec)
    assert unsized.spec.serve.speculation and unsized.spec.serve.speculation.model_bytes is None and unsized.job_id == looked_up.job_id
    assert stacks.look_up(cloud.spec("serve-l4", serve={"speculation": {"method": "ngram"}})).job_id != looked_up.job_id


@pytest.mark.parametrize("member", ["elson-train", "elson-serve", "elson-build", "elson-stop"])
def test_no_machine_may_touch_what_guards_the_models(member: str, runs: Callable[[str, bool], Run]) -> None:
    """No account deletes a bucket or changes rights, and only the server reads the key."""
    resources = runs("foundation", False).resources
    policy = Policy.of(resources)
    for bucket in (f"{PROJECT}-elson-models", f"{PROJECT}-elson-scratch"):
        for permission in ("storage.buckets.delete", "storage.buckets.update", "storage.buckets.setIamPolicy", "storage.objects.setIamPolicy"):
            assert not policy.allows(member, permission, bucket)
        assert not policy.allows(member, "storage.objects.delete", bucket, "first-q4/weights.txt")
    keys = [r.inputs["member"] for r in resources if r.type.endswith(":SecretIamMember")]
    assert [key.startswith(f"serviceAccount:{member}@") for key in keys] == [member == "elson-serve"]
    roles = {r.inputs["role"] for r in resources if r.type.endswith(":IAMMember") and r.inputs["member"].startswith(f"serviceAccount:{member}@")}
    assert not roles & {
        "roles/owner",
        "roles/editor",
        "roles/iam.serviceAccountUser",
        "roles/iam.serviceAccountTokenCreator",
        "roles/resourcemanager.projectIamAdmin",
    }


def test_what_is_not_there_is_forbidden_to_who_may_not_list(cloud: Cloud) -> None:
    """The platform's rule, which the stand-in exists for."""
    bucket = storage.split(cloud.buckets.scratch)[0]
    only_jobs = f'resource.name.startsWith("projects/_/buckets/{bucket}/objects/jobs/")'
    narrow = Policy().with_grant("serviceAccount:a@p", "roles/storage.objectUser", bucket, only_jobs)
    uri = f"{cloud.buckets.scratch}/jobs/j/state.json"
    with acting_as("serviceAccount:a@p", narrow):
        with pytest.raises(UserError, match="may not exist"):
            storage.read(uri)
        with pytest.raises(UserError, match=r"storage\.objects\.list"):
            storage.listing(f"{cloud.buckets.scratch}/jobs")
        storage.write(uri, "{}", generation=0)
        assert storage.read(uri) is not None
        with pytest.raises(UserError, match="pulumi up -s foundation"):
            storage.write("gs://no-such-bucket/x", "1", generation=0)
    with acting_as("serviceAccount:a@p", narrow.with_grant("serviceAccount:a@p", "roles/storage.objectViewer", bucket)):
        assert storage.read(f"{cloud.buckets.scratch}/jobs/other/state.json") is None


def test_a_grant_takes_effect_later(cloud: Cloud, policy: Policy) -> None:
    with acting_as("elson-train", policy) as front:
        front.granted_from = float("inf")
        with pytest.raises(UserError, match="no access"):
            storage.read(layout.registry(cloud.buckets, "first-q4"))
        front.granted_from = 0
        assert storage.read(layout.registry(cloud.buckets, "first-q4"))


@pytest.mark.parametrize(
    ("expression", "name", "expected"),
    [
        ('resource.name.startsWith("projects/_/buckets/b/objects/jobs/")', "jobs/x", True),
        ('resource.name.startsWith("projects/_/buckets/b/objects/jobs/")', None, False),
        ('resource.type == "storage.googleapis.com/Bucket" || resource.name.endsWith(".json")', "a.json", True),
        ('!(resource.type == "storage.googleapis.com/Object") && resource.service == "storage.googleapis.com"', None, True),
        ('resource.type != "storage.googleapis.com/Object"', "x", False),
    ],
)
def test_conditions_are_read_as_the_platform_reads_them(expression: str, name: str | None, expected: bool) -> None:
    assert condition(expression, "b", name) is expected


@pytest.mark.parametrize("expression", ['resource.size > "3"', 'request.path.startsWith("x")', "true", 'resource.name.contains("x")'])
def test_a_condition_the_platform_would_refuse_is_refused(expression: str) -> None:
    with pytest.raises((ValueError, SyntaxError)):
        condition(expression, "b", "x")


def test_an_unknown_call_is_not_let_through() -> None:
    assert needs("POST", "/batch/storage/v1", b"") is None
    assert needs("PUT", "/upload/storage/v1/b/b/o?upload_id=x", b"") == []
    body = b'--x\r\ncontent-type: application/json\r\n\r\n{"name": "a/b.json"}\r\n--x\r\n'
    (need,) = needs("POST", "/upload/storage/v1/b/b/o?uploadType=multipart", body) or []
    assert (need.permission, need.name, need.or_delete) == ("storage.objects.create", "a/b.json", True)
    source, target = needs("POST", "/storage/v1/b/b/o/a%2Fx/rewriteTo/b/c/o/d%2Fy", json.dumps({}).encode()) or []
    assert (source.bucket, source.name, target.bucket, target.name) == ("b", "a/x", "c", "d/y")
