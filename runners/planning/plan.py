"""One stack's plan: everything that is known before money is spent, the refusals and the warnings. Pure.

elson plan -s train-h100
"""

from __future__ import annotations

from dataclasses import dataclass, field

from runners.errors import UserError
from runners.planning import serving, training
from runners.planning.machines import MACHINES, Machine, Price, Prices, machine
from runners.planning.serving import Answers, ServingPlan
from runners.planning.shape import QWEN2_14B, Format, Shape, resident_bytes
from runners.planning.training import ASSUMED_CORPUS, Corpus, Saving, TrainingMemory
from runners.spec import MachineSpec, Spec

#: Shares of a link that a parallel, checksummed transfer reaches: 29.5 GB in 15 s of 9.5, 11.1 GB out in 8 s of 3.6; not measured.
_DOWNLOAD_SHARE, _UPLOAD_SHARE = 0.63, 0.45
#: Not measured here: driver and docker on a stock image, containers from the registry, both gone with a baked image; vLLM's load and graphs.
_BOOT_S, _BAKED_BOOT_S, _PULL_S, _VLLM_START_S = 240.0, 50.0, 300.0, 60.0
#: The base read, merged and written, then base and merged loaded once each for the gate: four passes at about 2 GB/s; not measured on that machine.
_MERGE_S_PER_GB = 2.0
#: AWQ's scale search for 16,384 calibration tokens of a 14B model on an H100: floor and a good run.
_AWQ_FLOOR_S, _AWQ_S, _AWQ_TOKENS = 24.0, 45.0, 16_384
#: Gigabytes beside the models: system with driver, the unpacked image of a stage, layers on their way, logs.
_SYSTEM_GB, _IMAGE_GB, _LAYERS_GB, _LOGS_GB = 20.0, 14.0, 8.0, 2.0
_FREE_SHARE = 0.10


@dataclass(frozen=True)
class Phase:
    """Seconds of one phase: at the very best, and to expect."""

    name: str
    floor_s: float
    expected_s: float


@dataclass(frozen=True)
class Notice:
    """A refusal or a warning: what was found, what is needed, what would mend it."""

    found: str
    expected: str
    fix: str

    def __str__(self) -> str:
        return f"{self.found}\n  expected: {self.expected}\n  fix:      {self.fix}"


@dataclass(frozen=True)
class Money:
    """Dollars, with the date of the table they come from."""

    usd_per_hour: float
    usd_expected: float
    usd_at_most: float
    storage_usd_per_month: float
    priced_at: str
    source: str


@dataclass(frozen=True)
class Plan:
    """The plan of a train or serve stack."""

    stack: str
    role: str
    machine: Machine
    spec: Spec
    disk: tuple[tuple[str, float], ...]
    phases: tuple[Phase, ...]
    money: Money
    corpus: Corpus | None = None
    steps: int | None = None
    memory: TrainingMemory | None = None
    memory_limit_gb: float | None = None
    savings: tuple[Saving, ...] = ()
    serving: ServingPlan | None = None
    answers: Answers = field(default_factory=Answers)
    refusals: tuple[Notice, ...] = ()
    warnings: tuple[Notice, ...] = ()

    @property
    def disk_needed_gb(self) -> float:
        """Sum of the disk's parts, and a tenth free."""
        return sum(gb for _, gb in self.disk) * (1 + _FREE_SHARE)

    @property
    def expected_s(self) -> float:
        """Seconds from the VM's start to the end (training) or to the first answer (serving)."""
        return sum(phase.expected_s for phase in self.phases)

    @property
    def floor_s(self) -> float:
        """The same at the very best."""
        return sum(phase.floor_s for phase in self.phases)

    def accept(self) -> Plan:
        """The plan itself, or a UserError with every refusal."""
        if self.refusals:
            first, *rest = self.refusals
            more = "".join(f"\n{notice}" for notice in rest)
            raise UserError(f"{self.stack} is refused: {first.found}", first.expected, first.fix + more)
        return self


def make_plan(
    stack: str,
    spec: Spec,
    prices: Prices,
    *,
    shape: Shape = QWEN2_14B,
    corpus: Corpus = ASSUMED_CORPUS,
    answers: Answers | None = None,
    format: Format = "awq",
    whole_logits: bool = False,
) -> Plan:
    """The plan of a stack with a machine. ``format`` is the served model's; ``whole_logits`` plans for a loss that keeps them (stock trainers).

    Raises UserError for a machine or a price that is not in the catalogue.
    """
    if spec.machine is None:
        raise UserError(f"{stack} has no machine", "a stack that trains or serves", "elson plan -s train-h100")
    if spec.machine.role == "train":
        return _training_plan(stack, spec, spec.machine, prices, shape, corpus, whole_logits)
    return _serving_plan(stack, spec, spec.machine, prices, shape, answers or Answers(), format)


def _training_plan(stack: str, spec: Spec, wanted: MachineSpec, prices: Prices, shape: Shape, corpus: Corpus, whole_logits: bool) -> Plan:
    host = machine(wanted.machine_type)
    largest = training.largest_micro_batch(shape, spec.train, host, whole_logits=whole_logits)
    fallback = (spec.train.micro_batch_tokens or spec.train.max_tokens, spec.train.gradient_checkpointing is not False)
    micro_batch, checkpointing = training.chosen(shape, spec.train, host) or fallback
    memory = training.memory(shape, spec.train, micro_batch, checkpointing=checkpointing, whole_logits=whole_logits)
    steps = training.optimizer_steps(corpus, spec.train)
    base, quantized = resident_bytes(shape, "bf16"), resident_bytes(shape, "awq", spec.quantize.group_size)
    adapter = shape.adapter_parameters(spec.train.rank, spec.train.target_modules)
    disk = (
        ("system, driver", _SYSTEM_GB),
        ("container images (train, quantize)", 2 * _IMAGE_GB + _LAYERS_GB),
        ("base model", base / 1e9),
        ("adapter and two checkpoints (fp32, Adam)", (4 * adapter + 2 * 12 * adapter) / 1e9),
        ("merged model", base / 1e9),
        ("quantized model", quantized / 1e9),
        ("logs", _LOGS_GB),
    )
    awq = spec.quantize.calibration_tokens / _AWQ_TOKENS * shape.parameters / QWEN2_14B.parameters * 989 / host.accelerator.tflops
    floor_train, train = (
        training.training_seconds(shape, spec.train, corpus, host, checkpointing=checks, utilisation=share)
        for checks, share in ((False, 1.0), (checkpointing, training.UTILISATION))
    )
    phases = (
        *_boot(wanted),
        _transfer("base model in", base, host, _DOWNLOAD_SHARE),
        Phase("train", floor_train, train),
        Phase("merge", 0.1, _MERGE_S_PER_GB * base / 1e9),
        Phase("quantize", _AWQ_FLOOR_S * awq, _AWQ_S * awq),
        _transfer("adapter and quantized model out", quantized + 2 * adapter, host, _UPLOAD_SHARE),
    )
    price = _price(prices, host, wanted)
    hourly = _hourly(prices, host, wanted, nat=True)
    expected_s = sum(phase.expected_s for phase in phases)
    money = Money(
        hourly,
        hourly * expected_s / 3600,
        (hourly - price.usd_per_hour + price.high_usd_per_hour) * wanted.deadline_minutes / 60,
        (2 * base + quantized + 4 * adapter) / 1e9 * prices.storage_usd_per_gb_month,
        prices.as_of,
        prices.source,
    )
    limit = training.card_gb(host)
    saved = training.savings(shape, spec.train, corpus, host, checkpointing=checkpointing)
    plan = Plan(stack, "train", host, spec, disk, phases, money, corpus, steps, memory, limit, savings=saved)
    refusals = (*_machine_refusals(plan, wanted), *_training_refusals(plan, largest, whole_logits))
    return _with(plan, refusals, (*_machine_warnings(plan, wanted), *_training_warnings(plan)))


def _serving_plan(stack: str, spec: Spec, wanted: MachineSpec, prices: Prices, shape: Shape, answers: Answers, format: Format) -> Plan:
    host = machine(wanted.machine_type)
    served = serving.plan_serving(shape, format, host, spec.serve, answers, spec.quantize.group_size)
    weights = resident_bytes(shape, format, spec.quantize.group_size)
    disk = (("system, driver", _SYSTEM_GB), ("container images (serve, gateway)", _IMAGE_GB + 1 + _LAYERS_GB), ("model", weights / 1e9), ("logs", _LOGS_GB))
    phases = (*_boot(wanted), _transfer("model in", weights, host, _DOWNLOAD_SHARE), Phase("vLLM until a completion", 20.0, _VLLM_START_S))
    price = _price(prices, host, wanted)
    hourly = _hourly(prices, host, wanted, nat=not spec.serve.allowed_cidrs)
    most = (hourly - price.usd_per_hour + price.high_usd_per_hour) * wanted.max_run_minutes / 60
    money = Money(hourly, hourly, most, weights / 1e9 * prices.storage_usd_per_gb_month, prices.as_of, prices.source)
    plan = Plan(stack, "serve", host, spec, disk, phases, money, serving=served, answers=answers)
    refusals = (*_machine_refusals(plan, wanted), *_serving_refusals(plan, served, shape))
    return _with(plan, refusals, (*_machine_warnings(plan, wanted), *_serving_warnings(plan, served, shape)))


def _with(plan: Plan, refusals: tuple[Notice, ...], warnings: tuple[Notice, ...]) -> Plan:
    from dataclasses import replace

    return replace(plan, refusals=refusals, warnings=warnings)


def _boot(wanted: MachineSpec) -> tuple[Phase, ...]:
    if wanted.image_is_baked:
        return (Phase("boot (baked image)", 30.0, _BAKED_BOOT_S),)
    return (Phase("boot, docker, toolkit", 30.0, _BOOT_S), Phase("container images", 0.0, _PULL_S))


def _transfer(name: str, size: float, host: Machine, share: float) -> Phase:
    floor = size * 8 / (host.network_gbps * 1e9)
    return Phase(name, floor, floor / share)


def _price(prices: Prices, host: Machine, wanted: MachineSpec) -> Price:
    # A combination that is not sold has no price; the refusal speaks of it, so the plan goes on with any price of the machine.
    if wanted.provisioning_model in host.provisioning:
        return prices.of(host, wanted.provisioning_model)
    return prices.of(host, host.provisioning[0])


def _hourly(prices: Prices, host: Machine, wanted: MachineSpec, *, nat: bool) -> float:
    network = prices.nat_usd_per_hour if nat else prices.address_usd_per_hour
    return _price(prices, host, wanted).usd_per_hour + prices.disk_usd_per_hour(host.disk_type, wanted.disk_gb) + network


def _machine_refusals(plan: Plan, wanted: MachineSpec) -> tuple[Notice, ...]:
    host, found = plan.machine, []
    if wanted.provisioning_model not in host.provisioning:
        sold = " or ".join(host.provisioning)
        found.append(Notice(f"{host.name} is not sold as {wanted.provisioning_model}", sold, f"machine.provisioning_model: {host.provisioning[0]}"))
    if not (wanted.zones or host.zones_in(wanted.region)):
        known = ", ".join(region for region, _ in host.zones)
        found.append(Notice(f"no zone of {wanted.region} is known to have {host.name}", f"machine.zones, or a region in {known}", "set machine.zones"))
    if foreign := [zone for zone in wanted.zones if not zone.startswith(wanted.region + "-")]:
        found.append(Notice(f"zone {foreign[0]} is not in {wanted.region}", f"zones of {wanted.region}", "edit machine.zones or machine.region"))
    if plan.disk_needed_gb > wanted.disk_gb:
        parts = ", ".join(f"{name} {gb:.0f}" for name, gb in plan.disk)
        needed = -(-plan.disk_needed_gb // 10) * 10
        found.append(
            Notice(
                f"a disk of {wanted.disk_gb} GB fills up: {parts} and a tenth free make {plan.disk_needed_gb:.0f} GB",
                f"at least {needed:.0f} GB (it costs cents while the VM lives, and the job survives a scratch disk that does not mount)",
                f"machine.disk_gb: {needed:.0f}",
            )
        )
    if wanted.role == "train" and wanted.max_run_minutes < wanted.deadline_minutes:
        found.append(
            Notice(
                f"machine.max_run_minutes {wanted.max_run_minutes} is below deadline_minutes {wanted.deadline_minutes}: "
                "the platform would delete a healthy job",
                "the platform's limit above the job's own",
                f"machine.max_run_minutes: {wanted.deadline_minutes + 30}",
            )
        )
    return tuple(found)


def _training_refusals(plan: Plan, largest: int, whole_logits: bool) -> tuple[Notice, ...]:
    memory, spec, host = plan.memory, plan.spec.train, plan.machine
    assert memory is not None and plan.memory_limit_gb is not None and plan.corpus is not None and plan.steps is not None  # noqa: S101 - a training plan has them
    found = []
    if spec.precision == "bf16" and not host.accelerator.has_bf16:
        found.append(
            Notice(f"{host.accelerator.name} has no bf16 (capability {_dotted(host)})", "capability 8.0 or newer", "machine.machine_type: a3-highgpu-1g")
        )
    if memory.total_gb > plan.memory_limit_gb:
        logits = f"{'whole' if whole_logits else 'chunked'} logits {memory.logits_gb:.1f}"
        fix = _memory_fix(largest, spec.max_tokens, whole_logits)
        found.append(
            Notice(
                f"{memory.micro_batch_tokens} tokens a micro-batch take {memory.total_gb:.0f} GB (weights {memory.weights_gb:.1f}, adapter and Adam "
                f"{memory.adapter_gb:.1f}, activations {memory.activations_gb:.1f}, {logits})",
                f"at most {plan.memory_limit_gb:.0f} GB on one {host.accelerator.name}",
                fix,
            )
        )
    if plan.steps < spec.minimum_steps:
        batch = max(1, plan.corpus.examples * spec.epochs // spec.minimum_steps)
        found.append(
            Notice(
                f"{plan.corpus.examples} examples in batches of {spec.batch_examples} for {spec.epochs} epochs are {plan.steps} optimizer steps",
                f"at least {spec.minimum_steps}: fewer hardly move an adapter, and no checkpoint is reached",
                f"train.batch_examples: {batch} or smaller, more examples, or more epochs",
            )
        )
    if plan.expected_s > plan.spec.machine.deadline_minutes * 60:  # type: ignore[union-attr]  # make_plan saw the machine
        found.append(
            Notice(
                f"the job takes about {plan.expected_s / 60:.0f} minutes",
                "less than machine.deadline_minutes",
                f"machine.deadline_minutes: {plan.expected_s / 60 * 3:.0f}",
            )
        )
    return tuple(found)


def _memory_fix(largest: int, longest_example: int, whole_logits: bool) -> str:
    if largest >= longest_example:
        return f"train.micro_batch_tokens: {largest} or smaller" + (", or the chunked loss (the default)" if whole_logits else "")
    cards = ", ".join(sorted({m.name for m in MACHINES.values() if m.accelerator.memory_gib > 75 and m.count == 1}))
    return f"a machine with a larger card ({cards})" + (", or the chunked loss (the default)" if whole_logits else "")


def _serving_refusals(plan: Plan, served: ServingPlan, shape: Shape) -> tuple[Notice, ...]:
    spec, host = plan.spec.serve, plan.machine
    card, found = host.accelerator, []
    if served.cards != host.count:
        found.append(
            Notice(
                f"serve.tensor_parallel is {served.cards}, and {host.name} has {host.count} x {card.name}",
                f"tensor_parallel {host.count}: the other cards would be paid for and idle",
                f"serve.tensor_parallel: {host.count}, or another machine",
            )
        )
    if shape.heads % served.cards or shape.kv_heads % served.cards:
        found.append(
            Notice(f"{shape.heads} heads cannot be shared by {served.cards} cards", "a divisor of the heads", "serve.tensor_parallel: a power of two up to 8")
        )
    if served.dtype == "bfloat16" and not card.has_bf16:
        found.append(
            Notice(f"{card.name} has no bf16 (capability {_dotted(host)})", "float16 on this card, or capability 8.0", "serve.dtype: float16 (auto chooses it)")
        )
    if spec.kv_cache_dtype == "fp8" and not card.has_fp8_cache:
        found.append(
            Notice(f"{card.name} has no fp8 cache (capability {_dotted(host)})", "kv_cache_dtype auto, or capability 8.9", "serve.kv_cache_dtype: auto")
        )
    if served.cache_tokens < spec.max_model_tokens:
        found.append(_no_room(served, shape, plan))
    return tuple(found)


def _no_room(served: ServingPlan, shape: Shape, plan: Plan) -> Notice:
    spec, host = plan.spec.serve, plan.machine
    free = served.usable_gib - served.weights_gib - served.overhead_gib
    space = f"{served.cache_tokens} tokens" if served.fits else f"{-free:.1f} GiB too few"
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
        f"room for serve.max_model_tokens {spec.max_model_tokens}",
        "; or ".join(ways) or "a larger machine",
    )


def _cheapest_first(others: list[str]) -> list[str]:
    return sorted(others, key=lambda text: (not text.startswith("g2-"), text))[:2]


def _machine_warnings(plan: Plan, wanted: MachineSpec) -> tuple[Notice, ...]:
    found = []
    if "not verified" in plan.money.source:
        found.append(Notice(f"the prices of {plan.money.priced_at} are {plan.money.source}", "a table read from the billing catalogue", "elson prices refresh"))
    if not wanted.image_is_baked:
        saved = _BOOT_S + _PULL_S - _BAKED_BOOT_S
        found.append(
            Notice(f"every boot installs docker and pulls images, about {(_BOOT_S + _PULL_S) / 60:.0f} minutes", f"{saved:.0f} s less", "elson images bake")
        )
    return tuple(found)


def _training_warnings(plan: Plan) -> tuple[Notice, ...]:
    found = []
    if plan.corpus is ASSUMED_CORPUS:
        found.append(
            Notice(
                f"the corpus is assumed: {plan.corpus.examples} examples of {plan.corpus.mean_tokens:.0f} tokens",
                "the published dataset's own figures",
                "elson data build --publish",
            )
        )
    if plan.machine.count > 1:
        found.append(Notice(f"{plan.machine.name} has {plan.machine.count} cards, and training uses one", "one card", "machine.machine_type: a3-highgpu-1g"))
    return tuple(found)


def _serving_warnings(plan: Plan, served: ServingPlan, shape: Shape) -> tuple[Notice, ...]:
    target, found, spec = plan.spec.evaluate.mean_latency_bar_ms, [], plan.spec.serve
    if served.fits and target < served.expected_ms:
        below = target < served.floor_ms
        time = (
            f"a floor of {served.floor_ms / 1000:.2f} s"
            if below
            else f"a floor of {served.floor_ms / 1000:.2f} s, and about {served.expected_ms / 1000:.1f} s to expect,"
        )
        ways = serving.what_would_meet(target, shape, served.format, served, plan.machine, spec, plan.answers)
        found.append(
            Notice(
                f"A MEAN LATENCY OF {target:,.0f} MS IS {'NOT REACHABLE' if below else 'UNLIKELY'}: {plan.answers.answer_tokens} tokens have {time} "
                f"on {served.cards} x {plan.machine.accelerator.name} by plain decoding",
                f"evaluate.mean_latency_bar_ms of at least {served.expected_ms:,.0f}",
                "; or ".join(ways) or "a higher bar",
            )
        )
    wanted = spec.max_sequences * (plan.answers.prompt_tokens + plan.answers.answer_tokens)
    if served.fits and served.cache_tokens < wanted:
        found.append(
            Notice(
                f"the cache of {served.cache_tokens} tokens is smaller than {spec.max_sequences} usual requests ({wanted})",
                "room for serve.max_sequences",
                f"serve.max_sequences: {max(1, served.cache_tokens * spec.max_sequences // wanted)}",
            )
        )
    if not plan.machine.accelerator.has_marlin and served.format == "awq":
        found.append(
            Notice(
                f"{plan.machine.accelerator.name} (capability {_dotted(plan.machine)}) runs AWQ in fp16 without Marlin: expect well below the speed shown",
                "capability 8.0 or newer for Marlin",
                "machine.machine_type: g2-standard-8",
            )
        )
    return tuple(found)


def _dotted(host: Machine) -> str:
    return ".".join(map(str, host.accelerator.capability))
