"""What the planner makes of a bucket: names that are taken, models that are none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runners.artifacts import local_bucket, registry
from runners.artifacts.record import RECORD, manifest_of
from runners.errors import UserError
from runners.planning import stacks
from runners.planning.parts import Plan
from runners.spec import BucketSpec, parse
from tests.infra.shapes import QWEN_14B

BUCKETS = BucketSpec(models="gs://models", scratch="gs://scratch")
IMAGES = dict.fromkeys(("train", "quantize", "serve", "gateway"), "x@sha256:" + "0" * 64)
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
