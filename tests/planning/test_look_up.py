"""What the planner makes of a bucket: names that are taken, models that are none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runners.artifacts import layout, local_bucket, registry, storage
from runners.artifacts.record import RECORD, manifest_of
from runners.errors import UserError
from runners.planning import stacks
from runners.planning.parts import Plan
from runners.planning.training import ASSUMED_CORPUS
from runners.serving import compiled
from runners.spec import BucketSpec, ServeSpec, parse
from tests.infra.shapes import QWEN_14B
from tests.planning.plans import train_plan
from tests.planning.test_sharing_out import B70, ROOM

BUCKETS = BucketSpec(models="gs://models", scratch="gs://scratch")
IMAGES = dict.fromkeys(("train", "quantize", "serve", "gateway"), "x@sha256:" + "0" * 64)
#: Llama-3.3-70B's.
CONFIG_70B = {
    "hidden_size": 8192,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "intermediate_size": 28672,
    "vocab_size": 128256,
}
TRAINS = {"machine_type": "a3-highgpu-1g", "disk_gb": 300}


def publish(folder: Path, name: str, kind: Any, config: dict[str, Any] | None = None, parents: dict[str, str] | None = None, size: int = 0) -> registry.Entry:
    """A model of ``size`` bytes that are none, with its config.json."""
    folder = folder / name
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(name.encode() + bytes(size))
    (folder / RECORD).write_text("{}")
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    made_id = f"base-{manifest_of(folder).digest}" if kind == "base" else f"{kind}-{name}"
    return registry.publish(BUCKETS, folder, name=name, stage_id=made_id, kind=kind, format="awq" if kind == "qdora" else "bf16", parents=parents)


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A dataset, two bases, a training's models with their head."""
    folder = tmp_path_factory.mktemp("bucket")
    with local_bucket.running(folder, BUCKETS):
        (folder / "data").mkdir()
        (folder / "data" / "train.jsonl").write_text("".join(json.dumps({"question": "q" * 100, "answer": "a" * 500}) + "\n" for _ in range(1400)))
        registry.publish(BUCKETS, folder / "data", name="corpus", stage_id=manifest_of(folder / "data").dataset_id, kind="dataset")
        publish(folder, "base-14b", "base", QWEN_14B)
        publish(folder, "base-small", "base", {**QWEN_14B, "hidden_size": 1280, "num_hidden_layers": 12, "num_attention_heads": 10, "num_key_value_heads": 2})
        publish(folder, "base-70b", "base", CONFIG_70B)
        publish(folder, "base-bare", "base")
        publish(folder, "base-odd", "base", {"model_type": "odd"})
        publish(folder, "base-moe", "base", {**QWEN_14B, "num_experts": 128})
        publish(folder, "qdora-moe", "qdora", {**QWEN_14B, "num_experts": 128}, {"merged": "merged-b", "adapter": "dora-b"})
        publish(folder, "dora-a", "dora", parents={})
        publish(folder, "qdora-a", "qdora", QWEN_14B, {"merged": "merged-a", "adapter": "dora-dora-a"})
        publish(folder, "head-a", "eagle3", parents={"merged": "merged-a", "adapter": "dora-dora-a"})
        yield folder


def planned(spec: dict[str, Any]) -> Plan:
    values = {"buckets": BUCKETS.model_dump(), "environments": IMAGES, "dataset": {"name": "corpus"}, **spec}
    return stacks.plan_of("one", stacks.look_up(stacks.from_config("one", "", values, "one.yaml").spec))


def training(**spec: Any) -> Plan:
    return planned({"base_model": {"name": "base-14b"}, "machine": TRAINS, **spec})


@pytest.mark.parametrize("taken", [{"dora": "base-14b"}, {"head": "base-14b"}, {"merged": "corpus"}, {"qdora": "dora-a"}])
def test_a_name_that_is_anothers_is_refused_before_the_training_is_paid_for(taken: dict[str, str], bucket: Path) -> None:
    assert not training(head={}, merge={"publish": True}, names={"dora": "dd-v1", "head": "hh-v1"}).refusals
    with pytest.raises(UserError, match=f"the name {next(iter(taken.values()))} is taken by"):
        training(head={}, merge={"publish": True}, names=taken)


def test_a_stage_that_publishes_nothing_needs_no_free_name(bucket: Path) -> None:
    assert not training(names={"head": "base-14b", "merged": "corpus"}).refusals


def test_two_stages_under_one_name_are_refused() -> None:
    with pytest.raises(UserError, match="names has dd-v1 more than once"):
        parse({"names": {"dora": "dd-v1", "qdora": "qq-v1", "head": "dd-v1"}})


@pytest.mark.parametrize("part", [{"base_model": {"name": name}} for name in ("head-a", "dora-a", "qdora-a", "corpus")] + [{"dataset": {"name": "base-14b"}}])
def test_what_is_no_model_is_not_trained_on(part: dict[str, Any], bucket: Path) -> None:
    ((key, value),) = part.items()
    with pytest.raises(UserError, match=f"{key}.name is {value['name']}, of kind"):
        training(**part)


def test_a_gate_that_no_head_can_pass_is_refused() -> None:
    assert parse({"head": {"steps": 2, "min_tokens_a_step": 3.0}}).head
    with pytest.raises(UserError, match=r"a step yields at most steps \+ 1, 2 tokens"):
        parse({"head": {"steps": 1, "min_tokens_a_step": 3.0}})


def serving(**serve: Any) -> stacks.ResolvedStack:
    values = {"buckets": BUCKETS.model_dump(), "environments": IMAGES, "serve": serve, "machine": {"role": "serve", "machine_type": "g2-standard-8"}}
    return stacks.look_up(stacks.from_config("one", "", values, "one.yaml").spec)


def test_a_second_model_in_production_needs_the_proof_of_its_fp8_cache_too(bucket: Path) -> None:
    registry.promote(BUCKETS, "base-small")
    second = {"model": "production", "served_model_name": "small"}
    assert serving(model="qdora-a", second=second).spec.serve.second
    with pytest.raises(UserError, match="nothing shows what base-small loses by it"):
        serving(model="qdora-a", second=second, kv_cache_dtype="fp8")


def test_the_compiled_code_of_two_is_found_by_what_the_first_one_is_started_with(bucket: Path, tmp_path: Path) -> None:
    def both() -> ServeSpec:
        return serving(model="qdora-a", second={"model": "base-small", "served_model_name": "small"}).spec.serve

    alone = serving(model="qdora-a").spec
    first, other = both().models()
    assert (first.model_id, other.model) == ("qdora-qdora-a", "base-small") and 0 < other.gpu_memory_fraction < first.gpu_memory_fraction
    for number, (serve, found) in enumerate(((alone.serve, False), (first, True))):
        (folder := tmp_path / str(number)).mkdir()
        (folder / "cache.tar.gz").write_bytes(b"code")
        made_id = compiled.compiled_id(alone.model_copy(update={"serve": serve}))
        storage.upload(folder, layout.compiled(BUCKETS, made_id))
        assert bool(there := both().compiled) == found and (not there or there.id == made_id)


def test_a_base_model_is_planned_by_its_own_config_in_the_bucket(bucket: Path) -> None:
    plan = training(base_model={"name": "base-70b"})
    assert any("take 176 GB (weights 141.1" in one.found for one in plan.refusals)
    wide = {**TRAINS, "machine_type": "a3-highgpu-4g", "disk_gb": 600}
    large = training(base_model={"name": "base-70b"}, machine=wide)
    given = train_plan(shape=B70, corpus=large.corpus or ASSUMED_CORPUS, machine_type="a3-highgpu-4g", **ROOM)
    assert large.memory == given.memory and large.phases == given.phases and large.disk == given.disk
    assert not any("is assumed: 48 layers" in one.found for one in (*plan.warnings, *training().warnings))


def test_a_base_model_without_a_config_is_said_to_be_planned_as_another(bucket: Path) -> None:
    assert "the shape of base-bare is assumed: 48 layers of 5120" in training(base_model={"name": "base-bare"}).warnings[0].found


@pytest.mark.parametrize(
    "part, found",
    [
        ({"base_model": {"name": "base-odd"}}, "config.json cannot be planned: hidden_size is missing"),
        ({"base_model": {"name": "base-moe"}}, r"config.json is of a mixture of experts \(num_experts is 128\)"),
        ({"serve": {"model": "qdora-moe"}, "machine": {"role": "serve", "machine_type": "g2-standard-8"}}, "config.json is of a mixture of experts"),
    ],
)
def test_a_model_in_the_bucket_whose_config_cannot_be_planned_is_refused_by_its_address(part: dict[str, Any], found: str, bucket: Path) -> None:
    with pytest.raises(UserError, match=found) as error:
        planned({"machine": TRAINS, **part})
    assert error.value.found.startswith("gs://models/")


@pytest.mark.parametrize(
    "part, found",
    [
        ({"base_model": {"name": "base-moe"}}, "is of a mixture of experts"),
        ({"base_model": {"name": "head-a"}}, "base_model.name is head-a, of kind eagle3"),
        ({"serve": {"model": "qdora-moe"}, "machine": {"role": "serve", "machine_type": "g2-standard-8"}}, "is of a mixture of experts"),
        ({"base_model": {"name": "not-published-yet"}}, None),
    ],
)
def test_a_model_that_cannot_be_planned_is_not_planned_without_the_bucket(part: dict[str, Any], found: str | None, bucket: Path) -> None:
    """`elson plan` goes on without a bucket, and without a model that nobody published yet: not without one that cannot be trained."""
    values = {"buckets": BUCKETS.model_dump(), "environments": IMAGES, "dataset": {"name": "corpus"}, "machine": TRAINS, **part}
    stack = stacks.from_config("one", "", values, "one.yaml")
    if found is None:
        assert "the shape of not-published-yet is assumed" in stacks.planned(stack).warnings[0].found
        return
    with pytest.raises(UserError, match=found):
        stacks.planned(stack)
