"""One stack's plan: everything that is known before money is spent, the refusals and the warnings. Pure.

elson plan -s train-h100
"""

from __future__ import annotations

from dataclasses import replace

from runners.pipeline import Format
from runners.planning import serving, serving_notices, session, starting, training, training_notices
from runners.planning.machines import MACHINES, Machine, Price, Prices, machine
from runners.planning.parts import Money, Plan, machine_of
from runners.planning.serving import Answers, ModelToServe, TokensAStep
from runners.planning.training import ASSUMED_CORPUS, CorpusSize
from runners.spec import FoundationSpec, MachineSpec, Spec
from runners.training.shape import QWEN2_14B, Shape, resident_bytes

#: What vLLM with its workers holds beside the model. Not measured on a card.
_SERVER_GB = 7.0
#: Gigabytes beside the models: system with driver, the unpacked image of a stage, layers on their way, logs.
_SYSTEM_GB, _IMAGE_GB, _LAYERS_GB, _LOGS_GB = 20.0, 14.0, 8.0, 2.0

#: A forwarding rule and the proxies' least, each 2.5 cents an hour: quoted (cloud.google.com/load-balancing/pricing), not read from the catalogue.
_BALANCER_USD_PER_HOUR = 0.05


def make_plan(
    stack: str,
    spec: Spec,
    prices: Prices,
    *,
    shape: Shape = QWEN2_14B,
    corpus: CorpusSize = ASSUMED_CORPUS,
    answers: Answers | None = None,
    format: Format = "awq",
    model_copies: int = 1,
    whole_logits: bool = False,
    bucket_region: str = FoundationSpec().region,
    measured: TokensAStep | None = None,
    second: ModelToServe | None = None,
) -> Plan:
    """The plan of a stack with a machine. ``format`` is the served model's; ``whole_logits`` plans for a loss that keeps them (stock trainers).

    ``bucket_region`` is where the models are; bytes from another region are billed. ``measured`` is what an evaluation says of speculative decoding,
    ``second`` what is known of the second model, where ``serve.second`` names one.

    Raises UserError for a machine or a price that is not in the catalogue.
    """
    wanted = machine_of(stack, spec)
    far_usd = 0.0 if bucket_region.lower() == wanted.region else prices.transfer_usd_per_gb
    if wanted.role == "train":
        return _training_plan(stack, spec, wanted, prices, shape, corpus, whole_logits, far_usd)
    models = (ModelToServe(shape, format, model_copies), *([second or ModelToServe(format=format)] if spec.serve.second else []))
    return _serving_plan(stack, spec, wanted, prices, models, answers or Answers(), far_usd, measured)


def _training_plan(
    stack: str, spec: Spec, wanted: MachineSpec, prices: Prices, shape: Shape, corpus: CorpusSize, whole_logits: bool, far_usd: float = 0.0
) -> Plan:
    host = machine(wanted.machine_type)
    choice = training.chosen(shape, spec.train, host, corpus)
    checkpointing = choice.checkpointing
    memory = training.memory(
        shape, spec.train, choice.micro_batch_tokens, checkpointing=checkpointing, whole_logits=whole_logits, parts=1 if whole_logits else choice.parts
    )
    steps = training.optimizer_steps(corpus, spec.train)
    base, quantized = resident_bytes(shape, "bf16"), resident_bytes(shape, "awq", spec.quantize.group_size)
    adapter = shape.adapter_parameters(spec.train.rank, spec.train.target_modules)
    held = (
        ("system, driver", _SYSTEM_GB),
        ("container images (train, quantize)", 2 * _IMAGE_GB + _LAYERS_GB),
        ("base model", base / 1e9),
        ("adapter and two checkpoints (fp32, Adam)", (4 * adapter + 2 * 12 * adapter) / 1e9),
        ("merged model", base / 1e9),
        ("quantized model", quantized / 1e9),
        ("logs", _LOGS_GB),
    )
    # Cloud Run: two tasks, the second for AWQ; each has its own memory, and the second needs more.
    disk = training.quantizing_gb(shape, spec.quantize.group_size, host) if host.is_run else held
    phases = session.phases(spec, wanted, host, shape, corpus, checkpointing=checkpointing)
    price = _price(prices, host, wanted)
    hourly = _hourly(prices, host, wanted, nat=True)
    expected_s = sum(phase.expected_s for phase in phases)
    # Each VM reads the base model, and pulls the images where it has none, from where bucket and registry are.
    start_usd = far_usd * (base / 1e9 + (0.0 if wanted.image_is_baked else 2 * _LAYERS_GB))
    money = Money(
        hourly,
        hourly * expected_s / 3600 + start_usd,
        (hourly - price.usd_per_hour + price.high_usd_per_hour) * wanted.deadline_minutes / 60 + wanted.max_attempts * start_usd,
        (2 * base + quantized + 4 * adapter) / 1e9 * prices.storage_usd_per_gb_month,
        prices.as_of,
        prices.source,
    )
    saved = training.savings(shape, spec.train, corpus, host, checkpointing=checkpointing)
    plan = Plan(stack, "train", host, spec, disk, phases, money, corpus, steps, memory, training.card_gb(host), savings=saved, start_usd=start_usd)
    fewer = _with_fewest_cards(plan, wanted, prices, shape, corpus)
    refusals = (*training_notices.training_refusals(plan, shape, whole_logits=whole_logits), *training_notices.cards_that_save_nothing(plan, fewer))
    return replace(plan, refusals=refusals, warnings=tuple(training_notices.training_warnings(plan)))


def _with_fewest_cards(plan: Plan, wanted: MachineSpec, prices: Prices, shape: Shape, corpus: CorpusSize) -> Plan | None:
    """The same training on as few such cards as hold the model; None where no machine has fewer of them."""
    host = plan.machine
    alike = [one for one in MACHINES.values() if one.accelerator == host.accelerator and one.count < host.count]
    fits = (one for one in sorted(alike, key=lambda one: one.count) if training.completes(shape, plan.spec, one))
    other = next(fits, None)
    if other is None:
        return None
    sold = wanted.provisioning_model if wanted.provisioning_model in other.provisioning else other.provisioning[0]
    fewer = wanted.model_copy(update={"machine_type": other.name, "provisioning_model": sold})
    return _training_plan(plan.stack, plan.spec.model_copy(update={"machine": fewer}), fewer, prices, shape, corpus, False)


def _serving_plan(
    stack: str,
    spec: Spec,
    wanted: MachineSpec,
    prices: Prices,
    models: tuple[ModelToServe, ...],
    answers: Answers,
    far_usd: float,
    measured: TokensAStep | None,
) -> Plan:
    host, group_size, shape = machine(wanted.machine_type), spec.quantize.group_size, models[0].shape
    spec = spec.model_copy(update={"serve": serving.with_share(spec.serve, models, host, group_size)})
    specs = spec.serve.models()
    served, *others = (
        serving.plan_serving(one.shape, one.format, host, its, answers, group_size, None if number else measured)
        for number, (one, its) in enumerate(zip(models, specs, strict=True))
    )
    sizes = [resident_bytes(one.shape, one.format, group_size) / 1e9 for one in models]
    held = tuple(_held(one, size, number) for number, (one, size) in enumerate(zip(models, sizes, strict=True)))
    copied = sum(size for _, size in held)
    drafts = spec.serve.speculation.model_bytes if spec.serve.speculation else None
    kept = (*held, ("draft", drafts / 1e9)) if drafts else held
    images = ("container images (serve, gateway)", _IMAGE_GB + 1 + _LAYERS_GB)
    programs = ("vLLM and the gateway" if len(models) == 1 else "two of vLLM and the gateway", len(models) * _SERVER_GB)
    disk = (*kept, programs) if host.is_run else (("system, driver", _SYSTEM_GB), images, *kept, ("logs", _LOGS_GB))
    phases = starting.all_phases(
        specs, wanted, host, [size for _, size in held], compiled=spec.serve.compiled is not None, merges=[one.copies > 1 for one in models]
    )
    price = _price(prices, host, wanted)
    hourly = _hourly(prices, host, wanted, nat=not spec.serve.allowed_cidrs)
    # On Cloud Run: all that may be started, asked without a pause until the watchdog deletes the service.
    replicas, dearest = spec.serve.replicas, hourly - price.usd_per_hour + price.high_usd_per_hour
    most = dearest * (wanted.max_instances if host.is_run else replicas.max) * wanted.max_run_minutes / 60
    grown = None
    if replicas.several:
        hourly, grown = (count * hourly + _BALANCER_USD_PER_HOUR for count in (replicas.min, replicas.max))
        most += _BALANCER_USD_PER_HOUR * wanted.max_run_minutes / 60
    money = Money(hourly, hourly, most, sum(sizes) * prices.storage_usd_per_gb_month, prices.as_of, prices.source, grown)
    plan = Plan(stack, "serve", host, spec, disk, phases, money, serving=served, second=next(iter(others), None), answers=answers, start_usd=far_usd * copied)
    refusals = (*serving_notices.serving_refusals(plan, served, shape), *serving_notices.second_refusals(plan, models))
    warnings = (*serving_notices.serving_warnings(plan, served, shape), *serving_notices.second_warnings(plan))
    return replace(plan, refusals=tuple(refusals), warnings=tuple(warnings))


def _held(model: ModelToServe, gb: float, number: int) -> tuple[str, float]:
    """What a model takes of the disk, with its name there."""
    name = "model" if model.copies == 1 else "base model and merged model"
    return (f"second {name}" if number else name, model.copies * gb)


def _price(prices: Prices, host: Machine, wanted: MachineSpec) -> Price:
    # A combination that is not sold has no price; the refusal speaks of it, so the plan goes on with any price of the machine.
    if wanted.provisioning_model in host.provisioning:
        return prices.of(host, wanted.provisioning_model)
    return prices.of(host, host.provisioning[0])


def _hourly(prices: Prices, host: Machine, wanted: MachineSpec, *, nat: bool) -> float:
    network = prices.nat_usd_per_hour if nat else prices.address_usd_per_hour
    if host.is_run:
        return _price(prices, host, wanted).usd_per_hour + (prices.gateway_usd_per_hour if wanted.role == "serve" else 0.0)
    return _price(prices, host, wanted).usd_per_hour + prices.disk_usd_per_hour(host.disk_type, wanted.disk_gb) + network
