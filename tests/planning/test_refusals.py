"""The plan's refusals, with their numbers and ways out."""

from __future__ import annotations

from typing import Any

import pytest

from runners.errors import UserError
from runners.planning import scaling, starting
from runners.planning.plan import make_plan
from runners.planning.training import CorpusSize
from runners.spec import MachineSpec, Spec, parse
from runners.training.shape import GIB
from runners.vm.routes import REQUESTS_A_SEQUENCE
from tests.planning.plans import PRICES, refused, serve_plan, train_plan


def test_bf16_weights_on_one_l4() -> None:
    text = refused(serve_plan(format="bf16"))
    assert "27.5 GiB of bf16 weights" in text
    assert "8.8 GiB too few for the cache on 1 x L4 24 GB" in text
    assert "serve the 4-bit model (qdora)" in text
    assert "g2-standard-24 with serve.tensor_parallel: 2" in text


def test_bf16_weights_fit_two_l4() -> None:
    plan = serve_plan("g2-standard-24", "bf16", {"tensor_parallel": 2})
    assert not plan.refusals
    assert plan.serving is not None
    assert plan.serving.cache_tokens > 4096


def test_whole_logits_of_16_by_2048_on_80_gb() -> None:
    text = refused(train_plan(train={"micro_batch_tokens": 16 * 2048}, whole_logits=True))
    assert "32768 tokens a micro-batch take 121 GB" in text
    assert "whole logits 49.8" in text
    assert "at most 77 GB on one H100 80 GB" in text
    assert "train.micro_batch_tokens: 8192 or smaller, or the chunked loss" in text
    assert not train_plan(train={"micro_batch_tokens": 16 * 2048}).refusals


def test_six_optimizer_steps() -> None:
    text = refused(train_plan(corpus=CorpusSize(128, 2048, "950 pairs packed into 128 rows"), train={"epochs": 3}))
    assert "are 6 optimizer steps" in text
    assert "at least 20" in text
    assert "train.batch_examples: 19 or smaller" in text


def test_a_disk_of_100_gb() -> None:
    text = refused(train_plan(disk_gb=100))
    assert "a disk of 100 GB fills up" in text
    assert "base model 30" in text
    assert "merged model 30" in text
    assert "machine.disk_gb: 160" in text
    assert not train_plan(disk_gb=160).refusals


def test_an_h100_on_demand() -> None:
    assert "a3-highgpu-1g is not sold as STANDARD" in refused(train_plan(provisioning_model="STANDARD"))
    assert not train_plan(provisioning_model="FLEX_START").refusals


def test_a_deadline_before_the_end_and_a_platform_limit_before_the_deadline() -> None:
    assert "takes about 18 minutes" in refused(train_plan(deadline_minutes=10))
    assert "machine.max_run_minutes 60 is below deadline_minutes 120" in refused(train_plan(max_run_minutes=60))


def test_a_region_without_the_machine() -> None:
    assert "no zone of us-east1" in refused(make_plan("x", Spec(machine=MachineSpec(machine_type="a3-highgpu-1g", region="us-east1")), PRICES))
    assert "zone europe-west4-a is not in us-central1" in refused(train_plan(zones=("europe-west4-a",)))


def test_training_on_an_l4_and_on_a_t4() -> None:
    assert "a machine with a larger card (a2-ultragpu-1g, a3-highgpu-1g, g4-standard-48, run-rtx6000-20)" in refused(train_plan(machine_type="g2-standard-8"))
    assert "T4 16 GB has no bf16 (capability 7.5)" in refused(train_plan(machine_type="n1-standard-8-1xt4"))


@pytest.mark.parametrize("cards", [1, 2])
def test_the_t4_serves_awq_in_fp16_only(cards: int) -> None:
    name = f"n1-standard-8-{cards}xt4"
    plan = serve_plan(name, serve={"tensor_parallel": cards})
    assert not plan.refusals
    assert plan.serving is not None
    assert plan.serving.dtype == "float16"
    assert any("without Marlin" in notice.found for notice in plan.warnings)
    assert "has no bf16 (capability 7.5)" in refused(serve_plan(name, serve={"tensor_parallel": cards, "dtype": "bfloat16"}))
    assert "has no fp8 cache" in refused(serve_plan(name, serve={"tensor_parallel": cards, "kv_cache_dtype": "fp8"}))
    assert "of bf16 weights" in refused(serve_plan(name, "bf16", {"tensor_parallel": cards}))


def test_cards_that_would_idle() -> None:
    assert "has 2 x L4 24 GB" in refused(serve_plan("g2-standard-24"))


def test_a_certificate_needs_an_open_port() -> None:
    assert "port 443 is closed" in refused(serve_plan(serve={"domain": "api.example.org"}))
    assert not serve_plan(serve={"domain": "api.example.org", "open_to_the_internet": True}).refusals
    assert any("without TLS" in notice.found for notice in serve_plan(serve={"allowed_cidrs": ("198.51.100.0/24",)}).warnings)


def test_unknown_machine() -> None:
    with pytest.raises(UserError, match="g2-standard-8"):
        train_plan(machine_type="g2-standard-9")


def test_a_start_is_given_up_by_the_server_before_its_group_makes_another_vm() -> None:
    said = refused(serve_plan(serve={"ready_timeout_s": 2551}))
    assert "serve.ready_timeout_s is 2551" in said and "at most 2550" in said
    plan = serve_plan(serve={"ready_timeout_s": 2550})
    assert not plan.refusals and plan.pessimistic_s < starting.healed_after_s(serve_plan().spec.serve, plan.wanted), "by default, at worst"


def test_several_servers_that_cannot_hear_of_each_other_in_time() -> None:
    assert "serve.idle_minutes is 2" in refused(serve_plan(serve={"replicas": {"max": 2}, "idle_minutes": 2}))
    assert not serve_plan(serve={"replicas": {"max": 2}, "idle_minutes": 3}).refusals
    assert not serve_plan(serve={"idle_minutes": 1}).refusals


def test_the_price_of_all_servers_is_held_to_the_limit() -> None:
    host = MachineSpec(role="serve", machine_type="g2-standard-8", provisioning_model="STANDARD", disk_gb=100, max_usd_per_hour=2.0)
    for most, is_refused in ((1, False), (2, False), (3, True)):
        plan = make_plan("serve-l4", parse({"serve": {"replicas": {"max": most}}, "machine": host.model_dump()}), PRICES)
        assert bool(plan.refusals) == is_refused, plan.refusals
    assert "$2.66 an hour with 3 servers" in refused(plan)


def test_a_certificate_of_another_region() -> None:
    there, here = (f"projects/p/locations/{region}/certificates/api" for region in ("europe-west4", "us-central1"))
    assert "one in us-central1" in refused(serve_plan(serve={"replicas": {"max": 2}, "certificate": there}))
    assert not serve_plan(serve={"replicas": {"max": 2}, "certificate": here}).refusals


GROUP = {"replicas": {"min": 1, "max": 3}}


@pytest.mark.parametrize("sequences", [1, 2, 3, 8])
def test_a_group_that_can_never_grow_is_refused(sequences: int) -> None:
    """At its limits: as many wait at each server as its gateway lets in, and its cache is as full as its sequences can make it."""
    plan = serve_plan(serve={**GROUP, "max_sequences": sequences})
    assert plan.serving
    fullest = scaling.Reading((REQUESTS_A_SEQUENCE - 1) * sequences, min(1.0, sequences * 4096 / plan.serving.cache_tokens))
    grows = all(scaling.needed([fullest] * servers) > servers for servers in (1, 2))
    assert grows is not bool(plan.refusals)
    if not grows:
        text = refused(plan)
        assert f"serve.max_sequences is {sequences}" in text and "serve.max_sequences: 3 or more" in text
    assert not serve_plan(serve={"replicas": {"min": 3, "max": 3}, "max_sequences": sequences}).refusals, "a fixed number does not grow"
    assert not serve_plan(serve={"max_sequences": sequences}).refusals


def test_a_group_of_two_sequences_whose_cache_they_fill_grows_by_that() -> None:
    plan = serve_plan(serve=GROUP)
    assert plan.serving
    assert not serve_plan(serve={**GROUP, "max_sequences": 2, "max_model_tokens": int(plan.serving.cache_tokens * 0.6)}).refusals


def test_drafts_that_make_answers_slower_are_warned_of() -> None:
    """Four drafted tokens of 0.29 GB beside 8.42 GB: a step takes 1.24 times as long, so 1.2 tokens a step lose and 1.3 win."""
    said = {}
    for tokens in (1.2, 1.3):
        plan = serve_plan(serve={"speculation": {"method": "eagle3", "draft_tokens": 4, "accepted_tokens": tokens}})
        said[tokens] = [str(notice) for notice in plan.warnings if "makes answers slower" in str(notice)]
        assert plan.serving and bool(said[tokens]) is (plan.serving.expected_ms > serve_plan().serving.expected_ms)  # type: ignore[union-attr]
    assert not said[1.3] and "as long as 1.24 that do not, and yields 1.20 tokens (serve.speculation.accepted_tokens)" in said[1.2][0]


def test_what_drafts_takes_disk_and_cache() -> None:
    plain = serve_plan()
    sized: dict[str, Any] = {"method": "draft", "model": "small", "model_bytes": 988_000_000, "token_cache_bytes": 12_288}
    drafted, fp8 = (serve_plan(serve={"speculation": sized, "kv_cache_dtype": kind}) for kind in ("auto", "fp8"))
    assert dict(drafted.disk)["draft"] == pytest.approx(0.988) and "draft" not in dict(plain.disk)
    assert drafted.disk_needed_gb > plain.disk_needed_gb
    assert drafted.serving and fp8.serving and plain.serving
    left = (drafted.serving.usable_gib - drafted.serving.weights_gib - drafted.serving.overhead_gib) * GIB
    assert drafted.serving.cache_tokens == int(left / (196_608 + 12_288)) and fp8.serving.cache_tokens == pytest.approx(2 * drafted.serving.cache_tokens, abs=1)
    # Where no config.json says it: a 0.5B model, and one layer of the 14B for a head.
    for method, bytes_a_token in (("draft", 12_288), ("eagle3", 4_096)):
        unsized = {"method": method, "model": "small"}
        assumed, known = (serve_plan(serve={"speculation": {**unsized, **more}}) for more in ({}, {"token_cache_bytes": bytes_a_token}))
        assert assumed.serving == known.serving
