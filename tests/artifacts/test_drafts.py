"""Heads in the registry: what a session publishes, and whose head a server takes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from runners import identity, stages
from runners.artifacts import drafts, local_bucket, registry
from runners.artifacts.record import RECORD, Gate
from runners.compression import head
from runners.errors import UserError
from runners.fields import HeadSpec, SpeculationSpec
from runners.pipeline import ADAPTERS
from runners.planning.machines import machine
from runners.planning.serving import ANSWERS, plan_serving
from runners.serving.compiled import compiled_id
from runners.spec import BaseModelSpec, BucketSpec, DatasetSpec, ModelNames, ServeSpec, Spec
from runners.training.shape import QWEN2_14B

EAGLE = SpeculationSpec(method="eagle3")


HEAD = {"architectures": ["LlamaForCausalLMEagle3"], "hidden_size": 128, "vocab_size": 1000}
MODEL = {"architectures": ["Qwen2ForCausalLM"], "hidden_size": 128, "vocab_size": 1000}


def publish(buckets: BucketSpec, folder: Path, name: str, kind: Any, parents: dict[str, str], config: Any = None, size: int | None = None) -> registry.Entry:
    """A model of 5,000 bytes or a head of 400 with the config.json that such ones have; an adapter has none."""
    folder.mkdir()
    (folder / "model.safetensors").write_text(name.ljust(size or (400 if kind == "eagle3" else 5000)))
    (folder / RECORD).write_text("{}")
    if kind not in ADAPTERS:
        (folder / "config.json").write_text(json.dumps(config or (HEAD if kind == "eagle3" else MODEL)))
    if kind == "base":
        return stages.publish_base(buckets, folder, name)
    return registry.publish(buckets, folder, name=name, stage_id=f"{kind}-{name}", kind=kind, format="bf16", parents=parents)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, registry.Entry]]:
    """Two trainings, each with its adapter, its merged and its quantized model; the first has a head. Made once: the buckets' files, to copy from."""
    folder, pair = tmp_path_factory.mktemp("trained"), BucketSpec(models="gs://models", scratch="gs://scratch")
    with local_bucket.running(folder, pair):
        found = {"base": publish(pair, folder / "base", "base", "base", {})}
        for one in ("a", "b"):
            adapter = {"adapter": f"dora-dora-{one}"}
            merged = {"merged": f"merged-merged-{one}", **adapter}
            for kind, parents in (("dora", {"base_model": found["base"].id}), ("merged", adapter), ("qdora", merged)):
                found[f"{kind}-{one}"] = publish(pair, folder / f"{kind}-{one}", f"{kind}-{one}", kind, parents)
        found["head-a"] = publish(pair, folder / "head-a", "head-a", "eagle3", {"merged": "merged-merged-a", "adapter": "dora-dora-a"})
    return folder / "bucket", found


@pytest.fixture
def models(trained: tuple[Path, dict[str, registry.Entry]], buckets: BucketSpec, tmp_path: Path) -> dict[str, registry.Entry]:
    """The trainings, copied into the test's own buckets."""
    shutil.copytree(trained[0], tmp_path / "bucket", dirs_exist_ok=True)
    return dict(trained[1])


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
    base = publish(buckets, tmp_path / "other", "other", "dora", {"base_model": models["base"].id})
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


def refused(buckets: BucketSpec, served: registry.Entry, method: Any, model: str) -> str:
    with pytest.raises(UserError) as error:
        drafts.draft_of(buckets, SpeculationSpec(method=method, model=model), served)
    return str(error.value)


def test_a_head_from_elsewhere_is_one_by_its_config(buckets: BucketSpec, models: dict[str, registry.Entry], tmp_path: Path) -> None:
    """Kind base says nothing: a whole model, a head of another width or vocabulary, and a folder without a config are refused; a head is taken."""
    for name, config in (
        ("own-way", HEAD),
        ("speculators", {"architectures": ["Eagle3Speculator"], "transformer_layer_config": {"hidden_size": 128, "vocab_size": 1000}}),
        ("other-width-of-its-own", HEAD | {"hidden_size": 64, "target_hidden_size": 128}),
    ):
        head = publish(buckets, tmp_path / name, name, "base", {}, config)
        for served in (models["qdora-a"], models["merged-b"], models["dora-a"]):
            assert drafts.draft_of(buckets, SpeculationSpec(method="eagle3", model=name), served) == head
    for name, config, says in (
        ("whole", MODEL, "architecture of whole is Qwen2ForCausalLM, and serve.speculation.method is eagle3"),
        ("llama", MODEL | {"architectures": ["LlamaForCausalLM"]}, "architecture of llama is LlamaForCausalLM"),
        ("nameless", {"hidden_size": 128, "vocab_size": 1000}, "architecture of nameless is none"),
        ("narrow", HEAD | {"hidden_size": 64}, "narrow has hidden_size 64: it cannot draft for"),
        ("words", HEAD | {"vocab_size": 900}, "words has vocab_size 900"),
        ("silent", {"architectures": HEAD["architectures"]}, "silent has vocab_size None, hidden_size None"),
        ("a-list", [1], "config.json is no mapping"),
    ):
        publish(buckets, tmp_path / name, name, "base", {}, config)
        for served in (models["qdora-a"], models["dora-a"]):
            assert says in refused(buckets, served, "eagle3", name)


def test_a_small_model_of_the_same_words_drafts(buckets: BucketSpec, models: dict[str, registry.Entry], tmp_path: Path) -> None:
    small = publish(buckets, tmp_path / "small", "small", "base", {}, MODEL | {"hidden_size": 32}, size=900)
    for kind in ("qdora", "merged", "dora"):
        assert drafts.draft_of(buckets, SpeculationSpec(method="draft", model="small"), models[f"{kind}-a"]) == small
    publish(buckets, tmp_path / "padded", "padded", "base", {}, MODEL | {"vocab_size": 1024}, size=900)
    assert "padded has vocab_size 1024" in refused(buckets, models["qdora-a"], "draft", "padded"), "vLLM refuses it when it starts"
    publish(buckets, tmp_path / "as-base", "as-base", "base", {}, HEAD, size=900)
    assert "architecture of as-base is LlamaForCausalLMEagle3" in refused(buckets, models["qdora-a"], "draft", "as-base")


def test_an_adapter_and_a_model_that_is_as_large_do_not_draft(buckets: BucketSpec, models: dict[str, registry.Entry], tmp_path: Path) -> None:
    publish(buckets, tmp_path / "large", "large", "base", {}, size=9000)
    for served in (models["qdora-a"], models["merged-a"], models["dora-a"]):
        for adapter in ("dora-a", "dora-b"):
            assert f"{adapter} is of kind dora" in refused(buckets, served, "draft", adapter)
        for model in ("base" if served.kind == "dora" else served.name, "merged-b", "base", "large"):
            said = refused(buckets, served, "draft", model)
            assert f"{model} has 0.000 GB" in said and "a smaller model" in said


def test_the_advice_names_a_head_where_there_is_one(buckets: BucketSpec, models: dict[str, registry.Entry], tmp_path: Path) -> None:
    other = publish(buckets, tmp_path / "head-c", "head-c", "eagle3", {"merged": "merged-merged-c"})
    assert "the model's own head head-a is taken" in refused(buckets, models["qdora-a"], "eagle3", other.name)
    said = refused(buckets, models["qdora-b"], "eagle3", other.name)
    assert "own head" not in said and "head: {}" in said, "b has none"


def test_the_plan_counts_with_the_size_of_what_drafts(buckets: BucketSpec, models: dict[str, registry.Entry]) -> None:
    pinned = drafts.with_model(ServeSpec(speculation=EAGLE), buckets, models["qdora-a"])
    assert pinned.speculation and pinned.speculation.model_bytes == models["head-a"].bytes > 400
    unsized = pinned.model_copy(update={"speculation": pinned.speculation.model_copy(update={"model_bytes": None})})
    assert compiled_id(Spec(serve=pinned)) == compiled_id(Spec(serve=unsized)), "nothing is compiled again for it"
    l4, gib = machine("g2-standard-8"), 2**30
    for method in ("draft", "eagle3"):
        made = {
            size: plan_serving(QWEN2_14B, "awq", l4, ServeSpec(speculation=SpeculationSpec(method=method, model="small", model_bytes=int(size * gib))), ANSWERS)
            for size in (1.0, 5.0)
        }
        assert made[5.0].weights_gib - made[1.0].weights_gib == pytest.approx(4.0)
        assert made[5.0].cache_tokens < made[1.0].cache_tokens and made[5.0].expected_ms > made[1.0].expected_ms
        # Four drafted tokens read it four times, beside 8.42 GB for a step.
        assert made[5.0].speculation_cost - made[1.0].speculation_cost == pytest.approx(4 * 4.0 * gib / 8.42e9, rel=0.01)


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
    capsys.readouterr()
    taken = spec.model_copy(update={"names": ModelNames(head="data-v1")})
    assert stages.head(taken, tmp_path, tmp_path / "merged") is None, "a name that was taken meanwhile"
    assert "no head is published" in (said := capsys.readouterr().err) and "data-v1 is taken" in said
    monkeypatch.setattr(head, "train_head", lambda *_: 1 / 0)
    assert stages.head(spec.model_copy(update={"head": HeadSpec(epochs=1)}), tmp_path, tmp_path / "merged") is None, "whatever fails"
    assert "ZeroDivisionError" in capsys.readouterr().err
