"""Base models that are not the default: their shape is read or said to be assumed, and what a refusal advises is not refused in turn."""

from __future__ import annotations

import re
from typing import Any

import pytest

from runners.errors import UserError
from runners.fields import HeadSpec, SecondModelSpec
from runners.planning import session, stacks, training
from runners.planning.machines import MACHINES
from runners.planning.parts import Plan
from runners.planning.training import ASSUMED_CORPUS, CorpusSize
from runners.spec import TrainSpec
from runners.training.shape import QWEN2_14B, Shape
from tests.infra.shapes import QWEN_14B
from tests.planning.plans import refused, serve_plan, train_plan
from tests.planning.test_sharing_out import B32, B70

ROOM = {"disk_gb": 600, "deadline_minutes": 6000, "max_run_minutes": 6000}


def offline(stack: str, **changes: Any) -> Plan:
    found = stacks.load(stack)
    return stacks.planned(stacks.Stack(stack, "", found.spec.model_copy(update=changes)), offline=True)


def test_a_model_whose_shape_nobody_read_is_named_with_the_shape_it_was_given() -> None:
    spec = stacks.load("train-h100").spec
    plan = offline("train-h100", base_model=spec.base_model.model_copy(update={"name": "llama-70b"}))
    text = str(plan.warnings[0])
    assert "the shape of llama-70b is assumed: 48 layers of 5120, 14.8 billion parameters, as elson-finance-trading-14b-final has" in text
    served = stacks.load("serve-l4").spec
    assert "the shape of llama-8b-q4 is assumed" in str(offline("serve-l4", serve=served.serve.model_copy(update={"model": "llama-8b-q4"})).warnings[0])
    second = SecondModelSpec(model="qwen-0.5b", served_model_name="small")
    two = [one.found for one in offline("serve-l4", serve=served.serve.model_copy(update={"second": second})).warnings if "is assumed: " in one.found]
    assert len(two) == 1 and two[0].startswith("the shape of qwen-0.5b is assumed: 48 layers")


@pytest.mark.parametrize("stack", ["train-h100", "serve-l4"])
def test_the_default_models_shape_is_its_own(stack: str) -> None:
    assert not any("is assumed: 48 layers" in notice.found for notice in offline(stack).warnings)


def test_a_config_is_read() -> None:
    assert Shape.of_config({**QWEN_14B, "num_local_experts": None, "num_experts": 1}) == QWEN2_14B
    assert Shape.of_config({key: value for key, value in QWEN_14B.items() if key != "num_key_value_heads"}).kv_heads == 40


@pytest.mark.parametrize(
    "config, found",
    [
        ([QWEN_14B], "x/config.json holds a list"),
        ("text", "x/config.json holds a str"),
        ({}, "cannot be planned: hidden_size is missing, num_hidden_layers is missing"),
        ({**QWEN_14B, "hidden_size": "5120"}, "cannot be planned: hidden_size is '5120'"),
        ({**QWEN_14B, "num_hidden_layers": True}, "cannot be planned: num_hidden_layers is True"),
        ({**QWEN_14B, "vocab_size": 0}, "cannot be planned: vocab_size is 0"),
        ({**QWEN_14B, "num_attention_heads": 40.0}, "cannot be planned: num_attention_heads is 40.0"),
        ({**QWEN_14B, "head_dim": "128"}, "cannot be planned: head_dim is '128'"),
        ({"text_config": QWEN_14B}, "hidden_size is missing"),
        ({**QWEN_14B, "num_local_experts": 8}, r"is of a mixture of experts \(num_local_experts is 8\)"),
        ({**QWEN_14B, "num_experts": 128, "num_experts_per_tok": 8}, r"is of a mixture of experts \(num_experts is 128\)"),
        ({**QWEN_14B, "n_routed_experts": 256}, r"is of a mixture of experts \(n_routed_experts is 256\)"),
    ],
)
def test_what_is_no_dense_decoder_is_refused(config: Any, found: str) -> None:
    with pytest.raises(UserError, match=found) as error:
        Shape.of_config(config, "x/config.json")
    assert "the config of a dense decoder" in error.value.expected


def test_the_advised_micro_batch_fits_as_the_spec_wants_it_computed() -> None:
    for checkpointing in (False, True, None):
        train = {"micro_batch_tokens": 131072, "gradient_checkpointing": checkpointing}
        found = re.search(r"train.micro_batch_tokens: (\d+) or smaller", refused(train_plan(train=train)))
        assert found and not train_plan(train={**train, "micro_batch_tokens": int(found[1])}).refusals
    largest = [training.largest_micro_batch(QWEN2_14B, TrainSpec(gradient_checkpointing=on), MACHINES["a3-highgpu-1g"]) for on in (True, False)]
    assert largest[0] > largest[1] > 0


def test_where_only_checkpointing_is_missing_it_is_advised() -> None:
    train = {"gradient_checkpointing": False, "max_tokens": 16384}
    text = refused(train_plan(train=train))
    assert "train.gradient_checkpointing: true" in text
    assert not train_plan(train={**train, "gradient_checkpointing": True}).refusals


@pytest.mark.parametrize("shape", [QWEN2_14B, B32, B70], ids=["14B", "32B", "70B"])
@pytest.mark.parametrize("corpus", [ASSUMED_CORPUS, CorpusSize(40_993, 200, "another corpus")], ids=["1,399 pairs", "40,993 pairs"])
def test_an_advised_machine_is_not_refused_in_turn(shape: Shape, corpus: CorpusSize) -> None:
    advised: set[str] = set()
    for name, host in MACHINES.items():
        for notice in train_plan(shape=shape, corpus=corpus, machine_type=name, provisioning_model=host.provisioning[0], **ROOM).refusals:
            advised |= {word for word in re.findall(r"[\w-]+", notice.fix) if word in MACHINES}
    for name in advised:
        assert not refusals_on(name, shape=shape, corpus=corpus), name
    assert advised


def refusals_on(name: str, **wanted: Any) -> list[str]:
    """Of a plan for an advised machine. Cloud Run's own bounds have their own refusals; the merged model goes to its second task through the bucket."""
    host = MACHINES[name]
    where = {"region": host.regions[0], "max_run_minutes": 60} if host.is_run else {}
    plan = train_plan(**wanted, machine_type=name, provisioning_model=host.provisioning[0], **{**ROOM, **where})
    return [str(notice) for notice in plan.refusals if "merge.publish" not in notice.found]


@pytest.mark.parametrize(
    "shape, machine, needed, advised",
    [
        (QWEN2_14B, "a2-highgpu-1g", 42, {"a2-ultragpu-1g", "a3-highgpu-1g", "g4-standard-48", "run-rtx6000-20"}),
        (B32, "a3-highgpu-2g", 82, {"g4-standard-48"}),
        (B70, "a3-highgpu-4g", 166, set()),
        (B70, "a3-highgpu-8g", 166, set()),
    ],
    ids=["14B", "32B", "70B", "70B on eight cards"],
)
def test_a_head_that_no_card_of_the_machine_can_train_is_refused(shape: Shape, machine: str, needed: int, advised: set[str]) -> None:
    """Its training holds the whole model in bf16 and 16 bytes of each of its own parameters (645 M, 1.2 B) on one card, however many share out the training."""
    notices = [one for one in train_plan(shape=shape, machine_type=machine, head=HeadSpec(), **ROOM).refusals if "EAGLE-3 head" in one.found]
    assert [one.found.split(":")[0] for one in notices] == [f"training the EAGLE-3 head takes {needed} GB"]
    assert notices[0].fix.startswith("leave head out") and {word for word in re.findall(r"[\w-]+", notices[0].fix) if word in MACHINES} == advised
    for name in advised:
        assert not refusals_on(name, shape=shape, head=HeadSpec()), name
    if machine == "a3-highgpu-4g":
        assert not train_plan(shape=shape, machine_type=machine, **ROOM).refusals


def test_a_refusal_has_the_figure_that_decides() -> None:
    assert "less than machine.deadline_minutes, 10" in refused(train_plan(deadline_minutes=10))
    text = refused(train_plan(machine_type="a3-highgpu-8g"))
    assert re.search(r"10 minutes saved, or no dollar more: it saves \d\.\d minutes for \$\d\.\d\d more", text)
    assert re.search(r"serve.max_model_tokens 4096, 0.75 GiB of cache a card; there are 0.00", refused(serve_plan(format="bf16")))


def test_main_memory_that_awq_does_not_fit_into_is_refused() -> None:
    text = refused(train_plan(shape=B70, machine_type="a2-highgpu-1g", **ROOM))
    assert "AWQ takes 164 GB of main memory (merged model, loaded 141, program 8 and a tenth free)" in text
    assert "at most the 91 GB of a2-highgpu-1g" in text


@pytest.mark.parametrize("shape, machine", [(QWEN2_14B, "a3-highgpu-1g"), (B32, "a3-highgpu-2g"), (B70, "a3-highgpu-4g")], ids=["14B", "32B", "70B"])
def test_the_way_from_merge_to_awq_over_the_disk_is_a_small_share(shape: Shape, machine: str) -> None:
    """The second program's start, and its reading of the merged model: TRAINING.md rests on it."""
    plan = train_plan(shape=shape, machine_type=machine, image_is_baked=True, **ROOM)
    start = next(phase.expected_s for phase in plan.phases if phase.name == "quantize: program")
    assert (start + session.LOAD_GB_S.takes(2 * shape.parameters / 1e9).expected) / plan.expected_s < 0.05
