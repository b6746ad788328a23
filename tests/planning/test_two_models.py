"""Two models on one card: what each gets of it, which pairs fit, and what a spec may say of them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runners.errors import UserError
from runners.planning import serving, tables
from runners.planning.machines import MACHINES
from runners.planning.parts import Plan
from runners.planning.plan import make_plan
from runners.planning.serving import ModelToServe
from runners.spec import ServeSpec, parse
from runners.training.shape import QWEN2_14B, Shape
from tests.planning.plans import PRICES, refused, serve_plan

SMALL = Shape(hidden=896, layers=24, heads=14, kv_heads=2, head_size=64, intermediate=4864, vocabulary=151936, tied=True)
SECOND = {"model": "small", "served_model_name": "small"}


def plan(second: ModelToServe, /, machine: str = "g2-standard-8", first: Any = "awq", **serve: Any) -> Plan:
    model = "RUN" if machine.startswith("run") else "STANDARD"
    host = {"role": "serve", "machine_type": machine, "provisioning_model": model, "disk_gb": 200, "max_run_minutes": 1440}
    host |= {"region": "us-east4"} if model == "RUN" else {}
    spec = parse({"serve": {"second": SECOND, **serve}, "machine": host})
    return make_plan("serve-l4", spec, PRICES, format=first, second=second)


def test_a_quantized_and_a_small_model_share_an_l4() -> None:
    found = plan(ModelToServe(SMALL, "bf16"))
    alone = serve_plan()
    assert not found.refusals and found.serving and found.second and alone.serving
    one, two = found.spec.serve.models()
    assert one.gpu_memory_fraction + two.gpu_memory_fraction == pytest.approx(0.92)
    assert found.serving.weights_gib == alone.serving.weights_gib and 4096 <= found.serving.cache_tokens < alone.serving.cache_tokens
    assert found.second.cache_tokens == pytest.approx(found.serving.cache_tokens, rel=0.05), "as many of the longest requests each, by thousandths of the card"
    assert dict(found.disk)["second model"] == pytest.approx(1.0, abs=0.2)
    assert [phase.name for phase in found.phases][-2:] == ["second model", "first completion"] and found.expected_s > alone.expected_s
    assert any("two models share one card" in one.found for one in found.warnings)
    said = "\n".join([*tables.brief(found), *tables.summary(found)])
    assert "second   small: bf16 weights 0.9 GiB" in said and "weights of elson" in said
    assert {row[0].split(":")[0] for row in tables.sections(found)[0][2]} == {"elson", "small"} and tables.as_json(found)["second"]["format"] == "bf16"
    assert tables.as_json(alone)["second"] is None and not any(line.startswith("second") for line in tables.brief(alone))


def test_two_of_14b_in_4_bits_are_refused_on_an_l4_with_the_machines_that_hold_them() -> None:
    said = refused(plan(ModelToServe(QWEN2_14B, "awq")))
    assert "elson and small do not fit 1 x NVIDIA L4 together" in said or "do not fit 1 x" in said
    assert "room for one longest request of each: 4,096 and 4,096 tokens" in said and "machine.machine_type: " in said
    able = said.split("machine.machine_type: ")[1].split("; or")[0].split(" or ")
    for name in able:
        bought = MACHINES[name].provisioning[0]
        host = {"role": "serve", "machine_type": name, "provisioning_model": bought, "disk_gb": 200, "max_run_minutes": 1440}
        found = make_plan("x", parse({"serve": {"second": SECOND}, "machine": host}), PRICES, second=ModelToServe(QWEN2_14B, "awq"))
        assert found.second and found.serving and min(found.serving.cache_tokens, found.second.cache_tokens) >= 4096
    fp8 = refused(plan(ModelToServe(QWEN2_14B, "bf16"), kv_cache_dtype="fp8")).split("machine.machine_type: ")[1].split("; or")[0].split(" or ")
    assert all(MACHINES[name].accelerator.has_fp8_cache for name in fp8), "what is advised is not refused in turn"
    assert "smaller models (4 bits), or a stack for each model" in refused(plan(ModelToServe(Shape(8192, 80, 64, 8, 128, 29568, 152064), "bf16")))


def test_a_cache_that_is_small_for_its_models_sequences_is_said_of_that_model() -> None:
    found = plan(ModelToServe(SMALL, "bf16"), max_sequences=4, second={**SECOND, "max_sequences": 500}).warnings
    (small,) = [one for one in found if "usual requests" in one.found]
    assert "500 usual requests" in small.found and small.expected == "room for serve.second.max_sequences" and "serve.second.max_sequences: " in small.fix


@pytest.mark.parametrize("manifest", [None, "0123456789abcdef"])
def test_a_boot_image_with_weights_holds_the_firsts_and_the_seconds_come_from_the_bucket(manifest: str | None) -> None:
    def phases(**machine: Any) -> dict[str, Any]:
        host = {"role": "serve", "machine_type": "g2-standard-8", "provisioning_model": "STANDARD", "image_is_baked": True, **machine}
        second = {**SECOND, "model_manifest": manifest and "f" * 16}
        spec = parse({"serve": {"second": second, "model_manifest": manifest}, "machine": host})
        found = make_plan("serve-l4", spec, PRICES, second=ModelToServe(QWEN2_14B, "awq"))
        return {phase.name: phase for phase in found.phases}

    baked, plain = phases(baked_model="0123456789abcdef"), phases()
    assert "quoted for 200 GB" in baked["weights"].source and "network" in plain["weights"].source
    assert baked["second model"] == plain["second model"]
    # The first's image, program and weights are read already or not; the second starts in the same container.
    assert plain["second model"].expected_s > sum(plain[name].expected_s for name in ("program", "weights", "compile", "graphs", "warm up")) - 0.1
    assert plain["second model"].expected_s < sum(one.expected_s for one in plain.values()) - plain["second model"].expected_s


def test_cloud_run_holds_both_in_its_memory_or_says_that_it_does_not() -> None:
    small = plan(ModelToServe(SMALL, "bf16"), "run-l4-8")
    assert dict(small.disk)["two of vLLM and the gateway"] == 14 and not [one for one in small.refusals if "memory" in one.found]
    large = plan(ModelToServe(QWEN2_14B, "awq"), "run-l4-8")
    assert "which is its disk too" in refused(large)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(sorted(MACHINES)),
    st.sampled_from([SMALL, QWEN2_14B]),
    st.sampled_from([SMALL, QWEN2_14B]),
    st.sampled_from(["awq", "bf16"]),
    st.sampled_from(["awq", "bf16"]),
    st.sampled_from([1024, 4096, 16384]),
    st.sampled_from([None, 512, 8192]),
    st.sampled_from([0.92, 0.9215, 0.5004, 1.0]),
)
def test_two_that_fit_a_card_in_any_way_fit_by_the_planners_share(
    name: str, first: Shape, second: Shape, one_format: Any, two_format: Any, tokens: int, other_tokens: int | None, fraction: float
) -> None:
    host, models = MACHINES[name], (ModelToServe(first, one_format), ModelToServe(second, two_format))
    spec = ServeSpec.model_validate({"max_model_tokens": tokens, "gpu_memory_fraction": fraction, "second": {**SECOND, "max_model_tokens": other_tokens}})

    def fits(share: float) -> bool:
        assert spec.second
        tried = spec.model_copy(update={"second": spec.second.model_copy(update={"gpu_memory_fraction": share})})
        plans = (serving.plan_serving(its.shape, its.format, host, one, serving.ANSWERS) for its, one in zip(models, tried.models(), strict=True))
        return all(found.cache_tokens >= one.max_model_tokens for found, one in zip(plans, tried.models(), strict=True))

    shared = serving.with_share(spec, models, host)
    assert shared.second and 0 < shared.second.gpu_memory_fraction <= spec.gpu_memory_fraction
    assert sum(one.gpu_memory_fraction for one in shared.models()) == pytest.approx(fraction, abs=1e-8), "together no more than one alone"
    # A share is rounded to a thousandth of the card: what fits by less than that may be refused.
    assert fits(shared.second.gpu_memory_fraction) or not any(fits(share / 50) and fits(share / 50 + 0.004) for share in range(1, 46))
    assert serving.with_share(shared, models, host) == shared, "a plan of a planned spec changes nothing"


@pytest.mark.parametrize(
    ("serve", "said"),
    [
        ({"model": "small", "second": SECOND}, "model and second.model are both small"),
        ({"served_model_name": "small", "second": SECOND}, "served_model_name is small for both models"),
        ({"second": {"model": "small"}}, "serve.second.served_model_name"),
        ({"second": {**SECOND, "port": 1}}, "serve.second.port"),
        ({"second": SECOND, "replicas": {"max": 2}}, "several servers have one model"),
    ],
)
def test_a_spec_of_two_models_that_cannot_be_is_refused(serve: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        parse({"serve": serve, "machine": {"role": "serve", "machine_type": "g2-standard-8"}})


def test_a_second_model_is_for_a_stack_that_serves() -> None:
    for machine in (None, {"role": "train", "machine_type": "a3-highgpu-1g"}):
        with pytest.raises(UserError, match="serve.second is for one server"):
            parse({"serve": {"second": SECOND}, "machine": machine})


def test_each_model_has_its_own_settings_and_drafts_are_the_firsts() -> None:
    spec = ServeSpec.model_validate({"speculation": {}, "max_sequences": 8, "second": {**SECOND, "max_model_tokens": 512, "gpu_memory_fraction": 0.3}})
    one, two = spec.models()
    assert (one.model, one.max_model_tokens, one.gpu_memory_fraction, one.second) == ("production", 4096, 0.62, None) and one.speculation
    assert (two.model, two.served_model_name, two.max_model_tokens, two.max_sequences) == ("small", "small", 512, 8)
    assert (two.gpu_memory_fraction, two.speculation, two.second) == (0.3, None, None)
    assert ServeSpec().models() == (ServeSpec(),)
