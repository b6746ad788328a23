"""Why the plan of a training is refused and what it warns of, each with the number found, the number needed, and what would fix it."""

from __future__ import annotations

from collections.abc import Iterator

from runners.planning import serving, training
from runners.planning.machines import MACHINES
from runners.planning.notices import dotted, machine_refusals, machine_warnings
from runners.planning.parts import Notice, Plan
from runners.planning.training import ASSUMED_CORPUS
from runners.spec import TrainSpec
from runners.training.shape import Shape

#: Several cards that cost more than one must save so many minutes.
WORTH_MINUTES = 10
_SMALLER = "a smaller base model: no machine of the catalogue has room for this one"


def training_refusals(plan: Plan, shape: Shape, *, whole_logits: bool) -> Iterator[Notice]:
    """What makes a training impossible."""
    memory, spec, host = plan.memory, plan.spec.train, plan.machine
    if memory is None or plan.memory_limit_gb is None or plan.corpus is None or plan.steps is None:
        raise ValueError("this is no plan of a training")
    yield from machine_refusals(plan)
    if spec.precision == "bf16" and not host.accelerator.has_bf16:
        yield Notice(f"{host.accelerator.name} has no bf16 (capability {dotted(host)})", "capability 8.0 or newer", _larger(plan, shape) or _SMALLER)
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
            f"leave head out{f'; or {way}' if (way := _larger(plan, shape, needed)) else ''}",
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


def training_warnings(plan: Plan) -> Iterator[Notice]:
    """What somebody should know before training."""
    yield from machine_warnings(plan)
    if plan.corpus is ASSUMED_CORPUS:
        yield Notice(
            f"the corpus is assumed: {plan.corpus.examples:,} examples of {plan.corpus.mean_tokens:.0f} tokens",
            "the published dataset's own figures",
            "elson data build --publish",
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


def _larger(plan: Plan, shape: Shape, one_card_gb: float = 0.0) -> str:
    """The machines with the fewest large cards on which the whole session can run; nothing where there is none. ``one_card_gb``: what one card must hold."""
    spec = plan.spec.model_copy(update={"train": _automatic(plan.spec.train)})
    large = [one for one in MACHINES.values() if one.accelerator.memory_gib > 75 and training.card_gb(one) >= one_card_gb]
    able = [one for one in large if training.completes(shape, spec, one)]
    if not able:
        return ""
    fewest = min(one.count for one in able)
    names = ", ".join(sorted(one.name for one in able if one.count == fewest))
    return f"a machine with a larger card ({names})" if fewest == 1 else f"machine.machine_type: {names}: {fewest} cards that share the model out"


def _automatic(spec: TrainSpec) -> TrainSpec:
    return spec.model_copy(update={"micro_batch_tokens": None, "gradient_checkpointing": None})
