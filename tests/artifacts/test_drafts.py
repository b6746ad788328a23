"""Heads in the registry: what a session publishes, and whose head a server takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runners import identity, stages
from runners.artifacts import drafts, registry
from runners.artifacts.record import RECORD, Gate
from runners.compression import head
from runners.errors import UserError
from runners.fields import HeadSpec
from runners.spec import BaseModelSpec, BucketSpec, DatasetSpec, ServeSpec, Spec, SpeculationSpec

EAGLE = SpeculationSpec(method="eagle3")


def publish(buckets: BucketSpec, folder: Path, name: str, kind: Any, parents: dict[str, str]) -> registry.Entry:
    folder.mkdir()
    (folder / "model.safetensors").write_text(name)
    (folder / RECORD).write_text("{}")
    return registry.publish(buckets, folder, name=name, stage_id=f"{kind}-{name}", kind=kind, format="bf16", parents=parents)


@pytest.fixture
def models(buckets: BucketSpec, tmp_path: Path) -> dict[str, registry.Entry]:
    """Two trainings, each with its adapter, its merged and its quantized model; the first has a head."""
    found = {}
    for one in ("a", "b"):
        adapter = {"adapter": f"dora-dora-{one}"}
        merged = {"merged": f"merged-merged-{one}", **adapter}
        for kind, parents in (("dora", {}), ("merged", adapter), ("qdora", merged)):
            found[f"{kind}-{one}"] = publish(buckets, tmp_path / f"{kind}-{one}", f"{kind}-{one}", kind, parents)
    found["head-a"] = publish(buckets, tmp_path / "head-a", "head-a", "eagle3", {"merged": "merged-merged-a", "adapter": "dora-dora-a"})
    return found


@pytest.mark.parametrize("kind", ["qdora", "merged", "dora"])
def test_a_model_in_each_of_its_forms_has_the_head_that_was_trained_on_it(kind: str, buckets: BucketSpec, models: dict[str, registry.Entry]) -> None:
    for speculation in (EAGLE, SpeculationSpec(method="eagle3", model="head-a")):
        pinned = drafts.with_model(ServeSpec(speculation=speculation), buckets, models[f"{kind}-a"]).speculation
        assert pinned and (pinned.model, pinned.model_id, pinned.model_manifest) == ("head-a", "eagle3-head-a", models["head-a"].manifest)


@pytest.mark.parametrize("kind", ["qdora", "merged", "dora"])
def test_the_head_of_another_model_is_refused(kind: str, buckets: BucketSpec, models: dict[str, registry.Entry]) -> None:
    with pytest.raises(UserError, match="head-a is the head of merged-merged-a"):
        drafts.draft_of(buckets, SpeculationSpec(method="eagle3", model="head-a"), models[f"{kind}-b"])
    with pytest.raises(UserError, match="no EAGLE-3 head of"):
        drafts.draft_of(buckets, EAGLE, models[f"{kind}-b"])


def test_a_head_without_lineage_belongs_to_nothing(buckets: BucketSpec, models: dict[str, registry.Entry], tmp_path: Path) -> None:
    publish(buckets, tmp_path / "stray", "stray", "eagle3", {})
    base = publish(buckets, tmp_path / "other", "other", "dora", {})
    for served in (models["qdora-a"], base):
        with pytest.raises(UserError, match="stray is the head of None"):
            drafts.draft_of(buckets, SpeculationSpec(method="eagle3", model="stray"), served)


def test_the_newest_head_is_taken_and_one_that_may_not_be_used_is_not(buckets: BucketSpec, models: dict[str, registry.Entry], tmp_path: Path) -> None:
    newer = publish(buckets, tmp_path / "newer", "newer", "eagle3", models["head-a"].parents)
    assert drafts.draft_of(buckets, EAGLE, models["qdora-a"]) == newer
    registry.deprecate(buckets, "newer", reason="slow")
    assert drafts.draft_of(buckets, EAGLE, models["qdora-a"]) == models["head-a"]


def test_heads_and_models_are_not_taken_for_each_other(buckets: BucketSpec, models: dict[str, registry.Entry]) -> None:
    with pytest.raises(UserError, match="of kind eagle3, and serve.speculation.method is draft"):
        drafts.draft_of(buckets, SpeculationSpec(method="draft", model="head-a"), models["qdora-a"])
    with pytest.raises(UserError, match="of kind merged, and serve.speculation.method is eagle3"):
        drafts.draft_of(buckets, SpeculationSpec(method="eagle3", model="merged-a"), models["qdora-a"])
    for use in (registry.to_serve, registry.promote):
        with pytest.raises(UserError, match="head-a is an EAGLE-3 head"):
            use(buckets, "head-a")


def test_a_stage_publishes_a_head_that_passed_and_leaves_out_one_that_did_not(
    buckets: BucketSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The training itself is a stand-in here (tests/torch/test_head.py has it): it writes files, or misses a gate."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.jsonl").write_text("{}\n")
    dataset = stages.publish_dataset(buckets, tmp_path / "data", "data-v1")
    missed = [Gate(name="tokens a step on held-out questions", value=1.01, bound=1.3, rule="at least")]

    def train_head(_spec: Spec, _merged: Path, _dataset: Path, work: Path) -> head.HeadResult:
        if missed:
            error = UserError("head did not pass 1 of 4 gates", "every gate within its bound", "raise head.epochs")
            error.gates = tuple(missed)  # type: ignore[attr-defined]
            raise error
        (work / "head").mkdir()
        (work / "head" / "model.safetensors").write_text("weights")
        return head.HeadResult(work / "head", (), {"tokens_a_step": 2.0}, ())

    monkeypatch.setattr(head, "train_head", train_head)
    inputs: Any = {"base_model": BaseModelSpec(id="base-1"), "dataset": DatasetSpec(name="data-v1", id=dataset.id)}
    spec = identity.with_code(Spec(buckets=buckets, head=HeadSpec(), **inputs))
    assert stages.head(spec, tmp_path, tmp_path / "merged") is None, "the model goes on without it"
    said = capsys.readouterr().err
    assert "no head is published" in said and "1.01" in said and [one.kind for one in registry.entries(buckets)] == ["dataset"]
    missed.clear()
    entry = stages.head(spec, tmp_path, tmp_path / "merged")
    assert entry and entry.kind == "eagle3" and entry.id == stages.stage_id(spec, "head") and entry.status == "ready"
    assert entry.parents == {
        "base_model": "base-1",
        "adapter": stages.stage_id(spec, "train"),
        "merged": stages.stage_id(spec, "merge"),
        "dataset": dataset.id,
    }
    assert json.loads((tmp_path / "head" / RECORD).read_text())["stage"] == "head"
    assert stages.head(spec, tmp_path, tmp_path / "merged") == entry, "done already"
    assert stages.head(spec.model_copy(update={"head": None}), tmp_path, tmp_path / "merged") is None
