"""A server's compiled code: kept with its job, published by a person, taken only as planned; the real vLLM's side is tests/benchmarks/serving_start.py."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from runners import environments
from runners.artifacts import layout, local_bucket, storage
from runners.artifacts.record import RECORD
from runners.cloud_run.driver import Driver
from runners.commands.cli import cli
from runners.errors import UserError
from runners.fields import CompiledSpec, SecondModelSpec
from runners.serving import compiled, serve
from runners.spec import BucketSpec, EnvironmentDigests, MachineSpec, ServeSpec, Spec

BUCKETS = BucketSpec(models="gs://models", scratch="gs://scratch")
JOB, CARD = "serve-0123456789abcdef", Driver((13, 0), 1, 8.9)
SERVE = ServeSpec(model_id="qdora-1", model_manifest="0123456789abcdef")
SPEC = Spec(
    buckets=BUCKETS,
    serve=SERVE,
    environments=EnvironmentDigests(serve="image@sha256:1"),
    machine=MachineSpec(role="serve", machine_type="run-l4-8", provisioning_model="RUN"),
)


def changed(**changes: object) -> Spec:
    return SPEC.model_copy(update={"serve": SERVE.model_copy(update=changes)})


@pytest.fixture
def home(tmp_path: Path):
    with local_bucket.running(tmp_path / "home", BUCKETS):
        yield tmp_path / "home"


@pytest.fixture
def kept(home: Path, tmp_path: Path) -> Path:
    """The work folder of a server that compiled and left its code."""
    work = tmp_path / "first"
    code = work / "cache" / "vllm" / "torch_compile_cache" / "ab12" / "rank_0_0"
    code.mkdir(parents=True)
    (code / "graph.py").write_text("compiled")
    for part, file in (("modelinfos", "class.json"), ("startup_plan", "startup_plan_cd34.json"), ("assets", "private.json")):
        (work / "cache" / "vllm" / part).mkdir()
        (work / "cache" / "vllm" / part / file).write_text("{}")
    assert compiled.keep(SPEC, work, CARD, JOB) is not None
    return work


def planned() -> Spec:
    there = compiled.published(SPEC)
    assert there is not None
    return changed(compiled=there)


def test_code_is_kept_published_with_its_lineage_and_used_on_another_machine(kept: Path, tmp_path: Path) -> None:
    assert compiled.published(SPEC) is None, "what a server left is not published"
    assert compiled.keep(SPEC, kept, CARD, JOB) is None, "once is enough"
    made = compiled.publish(BUCKETS, JOB)
    assert made == compiled.published(SPEC) == compiled.publish(BUCKETS, JOB)
    record = storage.read_json(f"{layout.compiled(BUCKETS, made.id)}/{RECORD}")
    assert record and record[0]["id"] == compiled.compiled_id(SPEC)
    assert record[0]["parents"] == {"model": "qdora-1", "image": "image@sha256:1", "server": JOB}
    other = tmp_path / "second"
    assert compiled.fetch(planned(), other, CARD)
    assert (other / "cache/vllm/torch_compile_cache/ab12/rank_0_0/graph.py").read_text() == "compiled"
    assert (other / "cache/vllm/modelinfos/class.json").exists() and (other / "cache/vllm/startup_plan/startup_plan_cd34.json").exists()
    assert not list(other.rglob("private.json"))
    assert compiled.compiled_id(planned()) == made.id, "the id does not depend on what is published"


@pytest.mark.parametrize(
    "change",
    [
        {"model_manifest": "f" * 16},
        {"max_sequences": 8},
        {"kv_cache_dtype": "fp8"},
        {"max_model_tokens": 2048},
        {"eager": False},
        {"gpu_memory_fraction": 0.5},  # vLLM's plan of the memory is published too, and its hash does not know the share of the card
    ],
)
def test_another_model_or_setting_has_another_id(change: dict) -> None:
    assert compiled.compiled_id(changed(**change)) != compiled.compiled_id(SPEC)


def test_of_two_models_the_code_is_the_firsts_with_its_share_of_the_card() -> None:
    two = changed(second=SecondModelSpec(model="small", served_model_name="small", gpu_memory_fraction=0.3))
    first, _ = two.serve.models()
    assert compiled.compiled_id(two) == compiled.compiled_id(two.model_copy(update={"serve": first})) != compiled.compiled_id(SPEC)


def test_another_image_or_card_has_another_id_and_the_idle_time_has_not() -> None:
    ours = compiled.compiled_id(SPEC)
    assert compiled.compiled_id(SPEC.model_copy(update={"environments": EnvironmentDigests(serve="image@sha256:2")})) != ours
    assert compiled.compiled_id(SPEC.model_copy(update={"machine": MachineSpec(role="serve", machine_type="g2-standard-8")})) != ours
    assert compiled.compiled_id(changed(idle_minutes=99)) == ours


@pytest.mark.parametrize("card", [None, Driver((13, 0), 1, 12.0), Driver((12, 2), 1, 8.9)])
def test_code_of_another_card_or_driver_is_stale_and_left_alone(kept: Path, tmp_path: Path, card: Driver | None) -> None:
    compiled.publish(BUCKETS, JOB)
    assert not compiled.fetch(planned(), tmp_path / "second", card)
    assert not (tmp_path / "second" / "cache").exists()


def test_code_of_other_packages_is_stale(kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled.publish(BUCKETS, JOB)
    monkeypatch.setattr(compiled, "packages", lambda: {"vllm": "0.33.0"})
    assert not compiled.fetch(planned(), tmp_path / "second", CARD)


def test_code_planned_for_another_model_is_stale(kept: Path, tmp_path: Path) -> None:
    there = compiled.publish(BUCKETS, JOB)
    assert not compiled.fetch(changed(compiled=there, max_sequences=8), tmp_path / "second", CARD)


def test_code_that_was_exchanged_is_refused(kept: Path, tmp_path: Path) -> None:
    there = compiled.publish(BUCKETS, JOB)
    wrong = CompiledSpec(id=there.id, manifest="f" * 16)
    with pytest.raises(UserError, match="has the digest"):
        compiled.fetch(changed(compiled=wrong), tmp_path / "second", CARD)
    # The manifest keeps its SHA-256, on which its digest depends, and has the CRC32C of other bytes.
    folder = layout.compiled(BUCKETS, there.id)
    evil = tmp_path / "evil"
    evil.write_bytes(b"evil")
    for path, change in (("cache.tar.gz", lambda _: b"evil"), ("manifest.json", _with_checksum_of(evil))):
        found = storage.read(f"{folder}/{path}")
        assert found
        storage.write(f"{folder}/{path}", change(found[0]), generation=found[1])
    with pytest.raises(UserError, match="arrived damaged"):
        compiled.fetch(planned(), tmp_path / "third", CARD)
    assert not (tmp_path / "third" / "cache").exists()


@pytest.mark.parametrize(("name", "kind"), [("../out", tarfile.REGTYPE), ("/out", tarfile.REGTYPE), ("in", tarfile.SYMTYPE), ("in", tarfile.FIFOTYPE)])
def test_an_archive_that_leaves_the_cache_is_refused(name: str, kind: bytes, tmp_path: Path) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, "/etc"
    with tarfile.open(tmp_path / "code.tar.gz", "w:gz") as archive:
        archive.addfile(member)
    with tarfile.open(tmp_path / "code.tar.gz") as archive, pytest.raises(UserError, match="has the member"):
        compiled._unpack(archive, tmp_path / "cache")
    assert [file.name for file in tmp_path.rglob("*")] == ["code.tar.gz"]


def test_links_in_the_cache_travel_as_files(kept: Path, tmp_path: Path) -> None:
    code = kept / "cache/vllm/torch_compile_cache/ab12/rank_0_0"
    (code / "linked.py").symlink_to("graph.py")
    (code / "second.py").hardlink_to(code / "graph.py")
    assert compiled.keep(SPEC, kept, CARD, "serve-links")
    compiled.publish(BUCKETS, "serve-links")
    assert compiled.fetch(planned(), tmp_path / "other", CARD)
    found = tmp_path / "other/cache/vllm/torch_compile_cache/ab12/rank_0_0"
    assert [(found / name).read_text() for name in ("graph.py", "linked.py", "second.py")] == ["compiled"] * 3


def _with_checksum_of(file: Path):
    from runners.artifacts.record import crc32c_of

    def change(body: bytes) -> bytes:
        manifest = json.loads(body)
        manifest["files"]["cache.tar.gz"] |= {"crc32c": crc32c_of(file), "size": file.stat().st_size}
        return json.dumps(manifest).encode()

    return change


def test_other_code_under_a_published_id_is_refused(kept: Path, tmp_path: Path) -> None:
    compiled.publish(BUCKETS, JOB)
    (kept / "cache/vllm/torch_compile_cache/ab12/rank_0_0/graph.py").write_text("other")
    assert compiled.keep(SPEC, kept, CARD, "serve-other")
    with pytest.raises(UserError, match="published already"):
        compiled.publish(BUCKETS, "serve-other")


def test_a_server_that_compiled_nothing_keeps_nothing(home: Path, tmp_path: Path) -> None:
    (tmp_path / "cache" / "vllm" / "torch_compile_cache").mkdir(parents=True)
    assert compiled.keep(SPEC, tmp_path, CARD, JOB) is None
    with pytest.raises(UserError, match="kept no compiled code"):
        compiled.publish(BUCKETS, JOB)


def test_vllm_keeps_its_findings_where_they_are_looked_for() -> None:
    """Each part, in the sources of the locked vLLM; triton's folder is a variable of the environment."""
    root = environments.path("serve")
    if not root.exists():
        pytest.skip("no serve environment")
    package = next(root.glob("lib/python*/site-packages/vllm"))
    files = {
        "vllm/torch_compile_cache": ("compilation/backends.py", 'envs.VLLM_CACHE_ROOT, "torch_compile_cache"'),
        "vllm/modelinfos": ("model_executor/models/registry.py", 'Path(envs.VLLM_CACHE_ROOT) / "modelinfos"'),
        "vllm/startup_plan": ("v1/worker/startup_plan.py", 'envs.VLLM_CACHE_ROOT, "startup_plan"'),
    }
    assert {*files, "triton"} == set(compiled._PARTS)
    for file, words in files.values():
        assert words in (package / file).read_text(), file
    # The plan is made only when asked for, and settings that it changes must not change the name of the compiled code.
    assert "maybe_save_startup_plan(self" in (package / "v1/worker/gpu_worker.py").read_text()
    assert serve.vllm_environment("k", device="cuda", work=Path("/w"))["VLLM_ENABLE_STARTUP_PLAN"] == "1"
    ignored = (package / "config/cache.py").read_text().split("ignored_factors = {")[1].split("}")[0]
    assert '"kv_cache_memory_bytes"' in ignored
    assert '"VLLM_ENABLE_STARTUP_PLAN"' in (package / "envs.py").read_text().split("ignored_factors: set[str] = {")[1].split("}")[0]


def test_the_command_says_what_it_is_for() -> None:
    done = CliRunner().invoke(cli, ["models", "compiled", "--help"])
    assert done.exit_code == 0 and "every later start" in " ".join(done.output.split())
