"""Why a plan is refused and what it warns of, each with the number found, the number needed, and what would fix it."""

from __future__ import annotations

from collections.abc import Iterator

from runners.planning import cloud_run, serving, starting, training
from runners.planning.machines import MACHINES, Machine
from runners.planning.parts import Notice, Plan
from runners.planning.serving import ServingPlan
from runners.planning.session import BAKED_BOOT_S, BOOT_S, PULL_S
from runners.planning.training import ASSUMED_CORPUS
from runners.spec import BaseModelSpec, Spec, TrainSpec
from runners.training.shape import GIB, QWEN2_14B, Shape, resident_bytes
from runners.vm.decide import AT_WORK_MINUTES

#: Of several servers: each tells once a minute that it was used, and looks once a minute for the others.
LEAST_IDLE_MINUTES = 3
#: Several cards that cost more than one must save so many minutes.
WORTH_MINUTES = 10
_SMALLER = "a smaller base model: no machine of the catalogue has room for this one"


def training_refusals(plan: Plan, shape: Shape, *, whole_logits: bool) -> Iterator[Notice]:
    """What makes a training impossible."""
    memory, spec, host = plan.memory, plan.spec.train, plan.machine
    if memory is None or plan.memory_limit_gb is None or plan.corpus is None or plan.steps is None:
        raise ValueError("this is no plan of a training")
    yield from _machine_refusals(plan)
    if spec.precision == "bf16" and not host.accelerator.has_bf16:
        yield Notice(f"{host.accelerator.name} has no bf16 (capability {_dotted(host)})", "capability 8.0 or newer", _larger(plan, shape) or _SMALLER)
    if memory.total_gb > plan.memory_limit_gb:
        logits = f"{'whole' if whole_logits else 'chunked'} logits {memory.logits_gb:.1f}"
        largest = training.largest_micro_batch(shape, spec, host, whole_logits=whole_logits)
        fix = _memory_fix(largest, plan, shape, whole_logits=whole_logits)
        shares = f", gathered from the others {memory.gathered_gb:.1f}" if memory.parts > 1 else ""
        on = f"on each of {memory.parts} {host.accelerator.name} that share the model out" if memory.parts > 1 else f"on one {host.accelerator.name}"
        yield Notice(
            f"{memory.micro_batch_tokens} tokens a micro-batch take {memory.total_gb:.0f} GB (weights {memory.weights_gb:.1f}, adapter and Adam "
            f"{memory.adapter_gb:.1f}, activations {memory.activations_gb:.1f}, {logits}{shares})",
            f"at most {plan.memory_limit_gb:.0f} GB {on}",
            fix,
        )
    loaded = training.quantizing_gb(shape, plan.spec.quantize.group_size, host)
    if not host.is_run and (held := sum(gb for _, gb in loaded) * (1 + training.FREE_SHARE)) > training.main_memory_gb(host):
        parts = ", ".join(f"{name} {gb:.0f}" for name, gb in loaded)
        yield Notice(
            f"AWQ takes {held:.0f} GB of main memory ({parts} and a tenth free)",
            f"at most the {training.main_memory_gb(host):.0f} GB of {host.name}",
            _larger(plan, shape) or _SMALLER,
        )
    if plan.spec.head and (needed := serving.head_training_gb(shape, plan.spec.head)) > plan.memory_limit_gb:
        yield Notice(
            f"training the EAGLE-3 head takes {needed:.0f} GB: the merged model, and the head with its gradient and Adam in fp32",
            f"at most {plan.memory_limit_gb:.0f} GB on one {host.accelerator.name}",
            "leave head out, or a card with more memory: machine.machine_type",
        )
    if plan.steps < spec.minimum_steps:
        batch = max(1, plan.corpus.examples * spec.epochs // spec.minimum_steps)
        yield Notice(
            f"{plan.corpus.examples} examples in batches of {spec.batch_examples} for {spec.epochs} epochs are {plan.steps} optimizer steps",
            f"at least {spec.minimum_steps}: fewer hardly move an adapter, and no checkpoint is reached",
            f"train.batch_examples: {batch} or smaller, more examples, or more epochs",
        )
    if plan.expected_s > plan.wanted.deadline_minutes * 60:
        yield Notice(
            f"the job takes about {plan.expected_s / 60:.0f} minutes",
            f"less than machine.deadline_minutes, {plan.wanted.deadline_minutes}",
            f"machine.deadline_minutes: {plan.expected_s / 60 * 3:.0f}",
        )


def cards_that_save_nothing(plan: Plan, fewer: Plan | None) -> tuple[Notice, ...]:
    """Refuse cards that cost more than the fewest that hold the model and save little time, with both figures."""
    if fewer is None or plan.money.usd_expected <= fewer.money.usd_expected or fewer.expected_s - plan.expected_s >= 60 * WORTH_MINUTES:
        return ()
    several, one = (f"{made.machine.name} takes {made.expected_s / 60:.0f} minutes and ${made.money.usd_expected:.2f}" for made in (plan, fewer))
    saved, more = (fewer.expected_s - plan.expected_s) / 60, plan.money.usd_expected - fewer.money.usd_expected
    return (
        Notice(
            f"{several}, {one}: most of the time is no training, or a step has too few micro-batches",
            f"{WORTH_MINUTES} minutes saved, or no dollar more: it saves {saved:.1f} minutes for ${more:.2f} more",
            f"machine.machine_type: {fewer.machine.name}",
        ),
    )


def at_work_elsewhere(job_id: str, machine: str) -> tuple[Notice, ...]:
    """Refuse a second machine for one training: it has one id, one state and one result, on a VM and on Cloud Run alike."""
    if not machine:
        return ()
    fix = f"elson status {job_id}; or elson down the stack that it is of, and wait {AT_WORK_MINUTES} minutes"
    return (Notice(f"{job_id} is at work on {machine}", "one machine for one job: two would be paid for one result", fix),)


def assumed_shape(spec: Spec, shape: Shape) -> tuple[Notice, ...]:
    """Warn that memory, time and dollars may be another model's: there was no config.json to read, so the default model's shape was taken."""
    default, serves = BaseModelSpec().name, spec.machine is not None and spec.machine.role == "serve"
    name = spec.serve.model if serves else spec.base_model.name
    ours = {"production", default, *spec.names.model_dump().values()} if serves and spec.base_model.name == default else {default}
    if shape is not QWEN2_14B or name in ours:
        return ()
    return (
        Notice(
            f"the shape of {name} is assumed: {shape.layers} layers of {shape.hidden}, {shape.parameters / 1e9:.1f} billion parameters, as {default} has",
            "the model's own config.json, in the bucket",
            "plan without --offline once the model is published (elson base publish, elson up): memory, time and dollars are another model's until then",
        ),
    )


def training_warnings(plan: Plan) -> Iterator[Notice]:
    """What somebody should know before training."""
    yield from _machine_warnings(plan)
    if plan.corpus is ASSUMED_CORPUS:
        yield Notice(
            f"the corpus is assumed: {plan.corpus.examples:,} examples of {plan.corpus.mean_tokens:.0f} tokens",
            "the published dataset's own figures",
            "elson data build --publish",
        )


def serving_refusals(plan: Plan, served: ServingPlan, shape: Shape) -> Iterator[Notice]:
    """What makes serving impossible."""
    spec, host = plan.spec.serve, plan.machine
    card = host.accelerator
    yield from _machine_refusals(plan)
    if spec.replicas.several and spec.idle_minutes < LEAST_IDLE_MINUTES:
        yield Notice(
            f"serve.idle_minutes is {spec.idle_minutes}: several servers hear of each other's requests once a minute",
            f"at least {LEAST_IDLE_MINUTES}, or an idle one would end the group while another is asked",
            f"serve.idle_minutes: {LEAST_IDLE_MINUTES} or more",
        )
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
            f"{card.name} has no bf16 (capability {_dotted(host)})", "float16 on this card, or capability 8.0", "serve.dtype: float16 (auto chooses it)"
        )
    if spec.kv_cache_dtype == "fp8" and not card.has_fp8_cache:
        yield Notice(f"{card.name} has no fp8 cache (capability {_dotted(host)})", "kv_cache_dtype auto, or capability 8.9", "serve.kv_cache_dtype: auto")
    if served.cache_tokens < spec.max_model_tokens:
        yield _no_room(served, shape, plan)


def serving_warnings(plan: Plan, served: ServingPlan, shape: Shape) -> Iterator[Notice]:
    """What somebody should know before serving."""
    target, spec = plan.spec.evaluate.mean_latency_bar_ms, plan.spec.serve
    yield from _machine_warnings(plan)
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
    usual = spec.max_sequences * (plan.answers.prompt_tokens + plan.answers.answer_tokens)
    if served.fits and served.cache_tokens < usual:
        yield Notice(
            f"the cache of {served.cache_tokens} tokens is smaller than {spec.max_sequences} usual requests ({usual})",
            "room for serve.max_sequences",
            f"serve.max_sequences: {max(1, served.cache_tokens * spec.max_sequences // usual)}",
        )
    if not plan.machine.accelerator.has_marlin and served.format == "awq":
        yield Notice(
            f"{plan.machine.accelerator.name} (capability {_dotted(plan.machine)}) runs AWQ in fp16 without Marlin: expect well below the speed shown",
            "capability 8.0 or newer for Marlin",
            "machine.machine_type: g2-standard-8",
        )


def _machine_refusals(plan: Plan) -> Iterator[Notice]:
    host, wanted = plan.machine, plan.wanted
    if wanted.provisioning_model not in host.provisioning:
        sold = " or ".join(host.provisioning)
        yield Notice(f"{host.name} is not sold as {wanted.provisioning_model}", sold, f"machine.provisioning_model: {host.provisioning[0]}")
    hourly, replicas = plan.money.usd_per_hour_grown or plan.money.usd_per_hour, plan.spec.serve.replicas
    if wanted.max_usd_per_hour is not None and hourly > wanted.max_usd_per_hour:
        several = f" with {replicas.max} servers" if replicas.several else ""
        yield Notice(
            f"{host.name} in {wanted.region} costs ${hourly:.2f} an hour{several}",
            f"at most machine.max_usd_per_hour, ${wanted.max_usd_per_hour:.2f}",
            "raise it, or choose another machine",
        )
    if host.is_run:
        yield from _run_refusals(plan)
        return
    if not (wanted.zones or host.zones_in(wanted.region)):
        known = ", ".join(region for region, _ in host.zones)
        yield Notice(f"no zone of {wanted.region} is known to have {host.name}", f"machine.zones, or a region in {known}", "set machine.zones")
    if foreign := [zone for zone in wanted.zones if not zone.startswith(wanted.region + "-")]:
        yield Notice(f"zone {foreign[0]} is not in {wanted.region}", f"zones of {wanted.region}", "edit machine.zones or machine.region")
    if plan.disk_needed_gb > wanted.disk_gb:
        parts = ", ".join(f"{name} {gb:.0f}" for name, gb in plan.disk)
        needed = -(-plan.disk_needed_gb // 10) * 10
        yield Notice(
            f"a disk of {wanted.disk_gb} GB fills up: {parts} and a tenth free make {plan.disk_needed_gb:.0f} GB",
            f"at least {needed:.0f} GB (it costs cents while the VM lives, and the job survives a scratch disk that does not mount)",
            f"machine.disk_gb: {needed:.0f}",
        )
    if wanted.role == "train" and wanted.max_run_minutes < wanted.deadline_minutes:
        yield Notice(
            f"machine.max_run_minutes {wanted.max_run_minutes} is below deadline_minutes {wanted.deadline_minutes}: the platform would delete a healthy job",
            "the platform's limit above the job's own",
            f"machine.max_run_minutes: {wanted.deadline_minutes + 30}",
        )


def _run_refusals(plan: Plan) -> Iterator[Notice]:
    """What Cloud Run does not allow. Its disk is its memory."""
    host, wanted, given = plan.machine, plan.wanted, plan.disk_given_gb
    if wanted.region not in host.regions:
        open_there = ", ".join(host.regions)
        yield Notice(f"Cloud Run has no {host.accelerator.name} for everybody in {wanted.region}", open_there, f"machine.region: {host.regions[0]}")
    if plan.disk_needed_gb > given:
        parts = ", ".join(f"{name} {gb:.0f}" for name, gb in plan.disk)
        alike = (other for other in MACHINES.values() if other.is_run and other.accelerator == host.accelerator)
        larger = [other.name for other in alike if training.main_memory_gb(other) >= plan.disk_needed_gb]
        yield Notice(
            f"{host.name} has {host.memory_gb} GiB of memory ({given:.0f} GB), which is its disk too: {parts} "
            f"and a tenth free make {plan.disk_needed_gb:.0f} GB",
            f"at least {plan.disk_needed_gb:.0f} GB",
            f"machine.machine_type: {larger[0]}" if larger else "a VM (provisioning_model SPOT or STANDARD)",
        )
    if wanted.role == "train" and wanted.max_run_minutes > cloud_run.TASK_AT_MOST_MINUTES:
        yield Notice(
            f"machine.max_run_minutes is {wanted.max_run_minutes}",
            f"at most {cloud_run.TASK_AT_MOST_MINUTES}, Cloud Run's limit for a try of a task with a GPU (the next goes on from the checkpoint)",
            f"machine.max_run_minutes: {cloud_run.TASK_AT_MOST_MINUTES}",
        )
    if wanted.role == "train" and not plan.spec.merge.publish:
        yield Notice(
            "merge.publish is false", "true: on Cloud Run a second task quantizes, and reads the merged model from the bucket", "merge: {publish: true}"
        )
    if wanted.role == "serve" and plan.spec.serve.ready_timeout_s > cloud_run.STARTUP_AT_MOST_S:
        yield Notice(
            f"serve.ready_timeout_s is {plan.spec.serve.ready_timeout_s}",
            f"at most {cloud_run.STARTUP_AT_MOST_S}, Cloud Run's limit for a start with a GPU",
            f"serve.ready_timeout_s: {cloud_run.STARTUP_AT_MOST_S}",
        )


def _machine_warnings(plan: Plan) -> Iterator[Notice]:
    if "not verified" in plan.money.source:
        yield Notice(f"the prices of {plan.money.priced_at} are {plan.money.source}", "a table read from the billing catalogue", "elson prices refresh")
    if not plan.wanted.image_is_baked and not plan.machine.is_run:
        slow = BOOT_S.expected + PULL_S.expected
        yield Notice(
            f"every boot installs docker and pulls images, about {slow / 60:.0f} minutes", f"{slow - BAKED_BOOT_S.expected:.0f} s less", "elson images bake"
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


def _memory_fix(largest: int, plan: Plan, shape: Shape, *, whole_logits: bool) -> str:
    spec, host, chunked = plan.spec.train, plan.machine, ", or the chunked loss (the default)" if whole_logits else ""
    if largest >= spec.max_tokens:
        return f"train.micro_batch_tokens: {largest} or smaller{chunked}"
    ways = [way] if (way := _larger(plan, shape)) else []
    if spec.gradient_checkpointing is False and training.fits(shape, _automatic(spec), host):
        ways.insert(0, "train.gradient_checkpointing: true")
    if not ways:
        least = training.memory(shape, spec, spec.max_tokens, parts=8)
        ways = [f"a smaller base model, or a lower train.rank: 8 cards that share it out need {least.total_gb:.0f} GB each"]
    return "; or ".join(ways) + chunked


def _larger(plan: Plan, shape: Shape) -> str:
    """The machines with the fewest large cards on which the whole session can run; nothing where there is none."""
    spec = plan.spec.model_copy(update={"train": _automatic(plan.spec.train)})
    able = [one for one in MACHINES.values() if one.accelerator.memory_gib > 75 and training.completes(shape, spec, one)]
    if not able:
        return ""
    fewest = min(one.count for one in able)
    names = ", ".join(sorted(one.name for one in able if one.count == fewest))
    return f"a machine with a larger card ({names})" if fewest == 1 else f"machine.machine_type: {names}: {fewest} cards that share the model out"


def _automatic(spec: TrainSpec) -> TrainSpec:
    return spec.model_copy(update={"micro_batch_tokens": None, "gradient_checkpointing": None})


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


def _dotted(host: Machine) -> str:
    return ".".join(map(str, host.accelerator.capability))
