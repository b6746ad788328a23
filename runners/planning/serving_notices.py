"""Why the plan of a server is refused and what it warns of, each with the number found, the number needed, and what would fix it."""

from __future__ import annotations

from collections.abc import Iterator

from runners.planning import scaling, serving, starting
from runners.planning.machines import MACHINES, Machine
from runners.planning.notices import dotted, machine_refusals, machine_warnings
from runners.planning.parts import Notice, Plan
from runners.planning.serving import ANSWERS, ModelToServe, ServingPlan
from runners.training.shape import GIB, Shape, resident_bytes


def serving_refusals(plan: Plan, served: ServingPlan, shape: Shape) -> Iterator[Notice]:
    """What makes serving impossible."""
    spec, host = plan.spec.serve, plan.machine
    card = host.accelerator
    yield from machine_refusals(plan)
    yield from scaling.refusals(spec, served.cache_tokens)
    if not host.is_run and (delay_s := starting.healed_after_s(spec, plan.wanted)) > starting.HEALED_AFTER_AT_MOST_S:
        longest_s = starting.HEALED_AFTER_AT_MOST_S - (delay_s - spec.ready_timeout_s)
        yield Notice(
            f"serve.ready_timeout_s is {spec.ready_timeout_s}",
            f"at most {longest_s}: its group takes a VM that is not healthy {starting.HEALED_AFTER_AT_MOST_S // 60} minutes after it was made for a dead one",
            f"serve.ready_timeout_s: {longest_s}",
        )
    if spec.certificate and f"/locations/{plan.wanted.region}/" not in spec.certificate:
        yield Notice(
            f"serve.certificate is {spec.certificate}",
            f"one in {plan.wanted.region}: a regional load balancer takes no other",
            f"gcloud certificate-manager certificates create NAME --location {plan.wanted.region} …",
        )
    if served.cards != host.count:
        yield Notice(
            f"serve.tensor_parallel is {served.cards}, and {host.name} has {host.count} x {card.name}",
            f"tensor_parallel {host.count}: the other cards would be paid for and idle",
            f"serve.tensor_parallel: {host.count}, or another machine",
        )
    if spec.domain and not spec.open_to_the_internet:
        yield Notice(
            f"serve.domain is {spec.domain}, and port 443 is closed to the authority that would give it a certificate",
            "open_to_the_internet: true (the key still guards it), or no domain",
            "serve.open_to_the_internet: true, or remove serve.domain and reach the server through IAP or allowed_cidrs",
        )
    if shape.heads % served.cards or shape.kv_heads % served.cards:
        yield Notice(f"{shape.heads} heads cannot be shared by {served.cards} cards", "a divisor of the heads", "serve.tensor_parallel: a power of two up to 8")
    if served.dtype == "bfloat16" and not card.has_bf16:
        yield Notice(
            f"{card.name} has no bf16 (capability {dotted(host)})", "float16 on this card, or capability 8.0", "serve.dtype: float16 (auto chooses it)"
        )
    if spec.kv_cache_dtype == "fp8" and not card.has_fp8_cache:
        yield Notice(f"{card.name} has no fp8 cache (capability {dotted(host)})", "kv_cache_dtype auto, or capability 8.9", "serve.kv_cache_dtype: auto")
    if served.cache_tokens < spec.max_model_tokens and not spec.second:
        yield _no_room(served, shape, plan)


def second_refusals(plan: Plan, models: tuple[ModelToServe, ...]) -> Iterator[Notice]:
    """What keeps two models from one card."""
    if plan.serving is None or plan.second is None:
        return
    spec, host = plan.spec.serve, plan.machine
    card, (one, two), names = host.accelerator, spec.models(), f"{spec.served_model_name} and {spec.second.served_model_name if spec.second else ''}"
    if models[1].shape.heads % spec.tensor_parallel or models[1].shape.kv_heads % spec.tensor_parallel:
        yield Notice(
            f"the second model has {models[1].shape.heads} heads, for {spec.tensor_parallel} cards", "a divisor of the heads", "a stack for each model"
        )
    if plan.serving.cache_tokens >= one.max_model_tokens and plan.second.cache_tokens >= two.max_model_tokens:
        return
    held = [f"{its.weights_gib:.1f} GiB of {its.format} weights" for its in (plan.serving, plan.second)]
    able = [other.name for other in MACHINES.values() if other.count == spec.tensor_parallel and other.is_run == host.is_run and _both_fit(other, plan, models)]
    yield Notice(
        f"{names} do not fit {spec.tensor_parallel} x {card.name} together: {' and '.join(held)}, and {plan.serving.overhead_gib:.1f} GiB of overhead each, "
        f"of {card.memory_gib * spec.gpu_memory_fraction:.1f} GiB usable a card, leave caches of {plan.serving.cache_tokens:,} and "
        f"{plan.second.cache_tokens:,} tokens",
        f"room for one longest request of each: {one.max_model_tokens:,} and {two.max_model_tokens:,} tokens",
        f"machine.machine_type: {' or '.join(able[:3])}; or smaller models (4 bits)" if able else "smaller models (4 bits), or a stack for each model",
    )


def _both_fit(host: Machine, plan: Plan, models: tuple[ModelToServe, ...]) -> bool:
    """Whether two models fit another machine's cards, which have what their settings need."""
    card, group_size = host.accelerator, plan.spec.quantize.group_size
    there = serving.with_share(plan.spec.serve, models, host, group_size)
    plans = ((serving.plan_serving(model.shape, model.format, host, its, ANSWERS, group_size), its) for model, its in zip(models, there.models(), strict=True))
    has_cache = card.has_fp8_cache or there.kv_cache_dtype != "fp8"
    return card.has_bf16 and has_cache and all(its.cache_tokens >= one.max_model_tokens for its, one in plans)


def second_warnings(plan: Plan) -> Iterator[Notice]:
    """What two models do to each other."""
    if plan.serving is None or plan.second is None or plan.serving.cache_tokens == 0:
        return
    slower = plan.serving.expected_ms / 1000 * (1 + plan.second.expected_step_ms / plan.serving.expected_step_ms)
    yield Notice(
        f"two models share one card: while both are asked, an answer takes up to {slower:.1f} s instead of {plan.serving.expected_ms / 1000:.1f} s",
        "measured together, or alone: one asked after the other is as fast as alone",
        "for latency under load, a stack for each model",
    )
    yield from _small_cache(plan, plan.second, plan.spec.serve.models()[1].max_sequences, "serve.second.max_sequences")


def _small_cache(plan: Plan, served: ServingPlan, sequences: int, setting: str) -> Iterator[Notice]:
    usual = sequences * (plan.answers.prompt_tokens + plan.answers.answer_tokens)
    if served.fits and served.cache_tokens < usual:
        yield Notice(
            f"the cache of {served.cache_tokens} tokens is smaller than {sequences} usual requests ({usual})",
            f"room for {setting}",
            f"{setting}: {max(1, served.cache_tokens * sequences // usual)}",
        )


def serving_warnings(plan: Plan, served: ServingPlan, shape: Shape) -> Iterator[Notice]:
    """What somebody should know before serving."""
    target, spec = plan.spec.evaluate.mean_latency_bar_ms, plan.spec.serve
    yield from machine_warnings(plan)
    yield from _baked_weights_warnings(plan, served, shape)
    if served.fits and target < served.expected_ms:
        below = target < served.floor_ms
        time = (
            f"a floor of {served.floor_ms / 1000:.2f} s"
            if below
            else f"a floor of {served.floor_ms / 1000:.2f} s, and about {served.expected_ms / 1000:.1f} s to expect,"
        )
        ways = serving.what_would_meet(target, shape, served.format, served, plan.machine, spec, plan.answers)
        yield Notice(
            f"a mean latency of {target:,.0f} ms {'cannot be reached' if below else 'is unlikely'}: {plan.answers.answer_tokens} tokens have {time} "
            f"on {served.cards} x {plan.machine.accelerator.name} {_decoding(served)}",
            f"evaluate.mean_latency_bar_ms of at least {served.expected_ms:,.0f}",
            "; or ".join(ways) or "a higher bar",
        )
    if spec.speculation and served.tokens_a_step and served.tokens_a_step.mean < served.speculation_cost:
        yield Notice(
            f"speculative decoding makes answers slower: a step that drafts takes as long as {served.speculation_cost:.2f} that do not, "
            f"and yields {served.tokens_a_step.mean:.2f} tokens ({served.tokens_a_step.source})",
            f"more than {served.speculation_cost:.2f} tokens a step, or a smaller draft",
            "measure it with `elson evaluate`, lower serve.speculation.draft_tokens, or leave serve.speculation out",
        )
    if spec.kv_cache_dtype == "fp8" and plan.machine.accelerator.has_fp8_cache:
        yield Notice(
            "kv_cache_dtype fp8 rounds what the cache holds, so answers change",
            "a run of `elson evaluate` that is not worse than one with auto, on the same cases",
            "evaluate a server with each, then `elson models promote NAME --fp8-cache AUTO_RUN FP8_RUN`: in production it is refused without",
        )
    if spec.allowed_cidrs and not spec.domain:
        yield Notice(
            f"{', '.join(spec.allowed_cidrs)} will reach port {spec.port} without TLS: keys and prompts can be read on the way",
            "a domain with a certificate, or IAP, which encrypts",
            "serve.domain and open_to_the_internet, or an empty serve.allowed_cidrs",
        )
    yield from _small_cache(plan, served, spec.max_sequences, "serve.max_sequences")
    if not plan.machine.accelerator.has_marlin and served.format == "awq":
        yield Notice(
            f"{plan.machine.accelerator.name} (capability {dotted(plan.machine)}) runs AWQ in fp16 without Marlin: expect well below the speed shown",
            "capability 8.0 or newer for Marlin",
            "machine.machine_type: g2-standard-8",
        )


def _baked_weights_warnings(plan: Plan, served: ServingPlan, shape: Shape) -> Iterator[Notice]:
    wanted, spec = plan.wanted, plan.spec.serve
    if wanted.baked_model is None:
        return
    if not starting.weights_are_baked(spec, wanted):
        yield Notice(
            f"the boot image holds the weights of {wanted.baked_model}, the server's are {spec.model_manifest}",
            "the same; these come from the bucket",
            f"elson images bake -s {plan.stack} --weights",
        )
        return
    gigabytes = resident_bytes(shape, served.format, plan.spec.quantize.group_size) / 1e9
    disk_s, bucket_s = starting.baked_weights_s(wanted, plan.machine, gigabytes)
    # What is here before the program is there costs nothing.
    if disk_s > max(bucket_s, starting.PROGRAM_S.expected):
        yield Notice(
            f"the weights take {disk_s:.0f} s from the boot disk, and {bucket_s:.0f} s from the bucket while the program starts",
            "the faster of the two, unless bytes from another region cost more",
            f"elson images bake -s {plan.stack}",
        )


def _no_room(served: ServingPlan, shape: Shape, plan: Plan) -> Notice:
    spec, host = plan.spec.serve, plan.machine
    free = served.usable_gib - served.weights_gib - served.overhead_gib
    space = f"{served.cache_tokens} tokens" if served.fits else f"{-free:.1f} GiB too few"
    needed = spec.max_model_tokens * serving.cache_bytes_per_token(shape, spec) / GIB
    ways = []
    if served.format == "bf16" and serving.plan_serving(shape, "awq", host, spec, plan.answers).cache_tokens >= spec.max_model_tokens:
        ways.append("serve the 4-bit model (qdora)")
    others = []
    for other in MACHINES.values():
        parallel = spec.model_copy(update={"tensor_parallel": other.count, "dtype": "auto"})
        there = serving.plan_serving(shape, served.format, other, parallel, plan.answers)
        if there.cache_tokens >= spec.max_model_tokens and other.count <= 2 and other.accelerator.has_bf16:
            others.append(f"{other.name} with serve.tensor_parallel: {other.count}")
    if others:
        ways.append("machine.machine_type: " + " or ".join(others[-3:] if host.accelerator.memory_gib > 30 else _cheapest_first(others)))
    if served.fits:
        ways.append(f"serve.max_model_tokens: {served.cache_tokens // 16 * 16}")
    return Notice(
        f"{served.weights_gib:.1f} GiB of {served.format} weights and {served.overhead_gib:.1f} GiB of overhead a card leave {space} for the cache "
        f"on {served.cards} x {host.accelerator.name} ({served.usable_gib:.1f} GiB usable)",
        f"room for serve.max_model_tokens {spec.max_model_tokens}, {needed:.2f} GiB of cache a card; there are {max(free, 0.0):.2f}",
        "; or ".join(ways) or "a larger machine",
    )


def _decoding(served: ServingPlan) -> str:
    tokens = served.tokens_a_step
    return f"with {tokens.mean:.3g} tokens a step ({tokens.source})" if tokens else "by plain decoding"


def _cheapest_first(others: list[str]) -> list[str]:
    return sorted(others, key=lambda text: (not text.startswith("g2-"), text))[:2]
