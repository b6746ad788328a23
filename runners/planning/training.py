"""Training and quantization on one machine: steps, memory, seconds, and what each saving over stock parts is worth.

The arithmetic is ``runners/training/memory.py``'s, which the training loop chooses its micro-batch by: what is planned is what will run.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from runners.errors import UserError
from runners.planning.machines import Machine
from runners.spec import Spec, TrainSpec
from runners.training.memory import CARD_RESERVE, choose, flops_per_token, training_memory
from runners.training.shape import Shape, resident_bytes

#: Share of the data sheet's FLOP/s that the training loop reaches: at best (published figures of 7B and 8B models), to expect, at worst (a host that
#: launches kernels slowly). Measured on one H100 at the 14B's shape (tests/gpu/README.md); carried to other cards.
UTILISATION = 0.277
UTILISATIONS = 0.42, UTILISATION, 0.20
#: Time of a step over LoRA's, measured on the H100 at the 14B's width: ours, and peft's.
DORA_OVER_LORA, PEFT_OVER_LORA = 1.22, 1.96
#: Share of a step of 64 examples that each card does for itself: norms, clipping, AdamW. Measured.
ONCE_A_STEP = 0.06
#: Logits in 16 bit, their fp32 copy and its gradient: what a loss that keeps them whole holds at once.
_BYTES_PER_WHOLE_LOGIT = 10
#: The first version's micro-batch of stock parts, in examples; and what padding to the longest of 4 shuffled examples adds to the
#: tokens of the project's corpus (tests/benchmarks/TRAINING.md).
_STOCK_EXAMPLES, _PADDING = 4, 0.257
#: What a stage's program holds beside the models: interpreter, torch, pinned buffers, one shard. Not measured on a card.
PROGRAM_GB = 8.0
#: Of a disk or a memory that files are in, since a full one ends a job.
FREE_SHARE = 0.10
#: Share of the tokens that are answers, in the project's corpus.
_ANSWER_SHARE = 0.54


@dataclass(frozen=True)
class CorpusSize:
    """What training reads: examples of the training split and tokens an example, template included."""

    examples: int
    mean_tokens: float
    source: str

    @property
    def tokens(self) -> float:
        """Tokens of one epoch."""
        return self.examples * self.mean_tokens


#: What `elson data build` makes of the project's own data: 1,399 training pairs and 122 held out, 200 tokens each with the chat template.
ASSUMED_CORPUS = CorpusSize(1399, 200, "assumed: the project's own corpus, since no dataset could be read")


@dataclass(frozen=True)
class TrainingMemory:
    """Gigabytes (1e9) on the card, by part."""

    weights_gb: float
    adapter_gb: float
    activations_gb: float
    logits_gb: float
    micro_batch_tokens: int
    checkpointing: bool
    gathered_gb: float = 0.0
    #: Cards that share the model out; 1 where each holds it whole.
    parts: int = 1

    @property
    def total_gb(self) -> float:
        """Sum of the parts."""
        return self.weights_gb + self.adapter_gb + self.activations_gb + self.logits_gb + self.gathered_gb


def optimizer_steps(corpus: CorpusSize, spec: TrainSpec) -> int:
    """Steps of the whole run: 950 examples, batch 64, 5 epochs are 75. Packing moves no example into another step."""
    examples = min(corpus.examples, spec.max_train_examples or corpus.examples)
    return math.ceil(examples / spec.batch_examples) * spec.epochs


def memory(shape: Shape, spec: TrainSpec, micro_batch_tokens: int, *, checkpointing: bool = True, whole_logits: bool = False, parts: int = 1) -> TrainingMemory:
    """What a micro-batch takes on a card, in the parts a person asks for."""
    found = training_memory(shape, spec, micro_batch_tokens, checkpointing=checkpointing, parts=parts)
    logits = micro_batch_tokens * shape.vocabulary * _BYTES_PER_WHOLE_LOGIT if whole_logits else found.logits
    return TrainingMemory(
        weights_gb=found.weights / 1e9,
        adapter_gb=(found.adapter + found.gradients + found.optimizer) / 1e9,
        activations_gb=(found.activations + found.recomputed_layer) / 1e9,
        logits_gb=logits / 1e9,
        micro_batch_tokens=micro_batch_tokens,
        checkpointing=checkpointing,
        gathered_gb=found.gathered / 1e9,
        parts=parts,
    )


def card_gb(machine: Machine) -> float:
    """Gigabytes of one card that a plan may fill."""
    return machine.accelerator.memory_gib * 2**30 / 1e9 * (1 - CARD_RESERVE)


@dataclass(frozen=True)
class Chosen:
    """What the training loop will choose: tokens of a micro-batch, whether activations are checkpointed, and how many cards share the model out."""

    micro_batch_tokens: int
    checkpointing: bool
    parts: int


def chosen(shape: Shape, spec: TrainSpec, machine: Machine, corpus: CorpusSize = ASSUMED_CORPUS) -> Chosen:
    """What fits; where nothing does, the least that would have to, for the refusal to speak of."""
    bytes_a_card, step_tokens = int(machine.accelerator.memory_gib * 2**30), spec.batch_examples * corpus.mean_tokens
    try:
        choice = choose(shape, spec, spec.max_tokens, bytes_a_card, parts=(1, machine.count), step_tokens=step_tokens)
    except UserError:
        return Chosen(spec.micro_batch_tokens or spec.max_tokens, spec.gradient_checkpointing is not False, machine.count)
    return Chosen(choice.micro_batch_tokens, choice.gradient_checkpointing, choice.parts)


def fits(shape: Shape, spec: TrainSpec, machine: Machine) -> bool:
    """Whether a training fits the machine's cards, whole or shared out."""
    choice = chosen(shape, spec, machine)
    found = memory(shape, spec, choice.micro_batch_tokens, checkpointing=choice.checkpointing, parts=choice.parts)
    return found.total_gb <= card_gb(machine)


def largest_micro_batch(shape: Shape, spec: TrainSpec, machine: Machine, *, whole_logits: bool = False) -> int:
    """The largest power of two of tokens that fits, checkpointed unless the spec forbids it, or 0."""
    parts, checkpointing = 1 if whole_logits else machine.count, spec.gradient_checkpointing is not False

    def needed_gb(size: int) -> float:
        return memory(shape, spec, size, checkpointing=checkpointing, whole_logits=whole_logits, parts=parts).total_gb

    return max((size for size in (2**power for power in range(7, 18)) if needed_gb(size) <= card_gb(machine)), default=0)


def quantizing_gb(shape: Shape, group_size: int, machine: Machine) -> tuple[tuple[str, float], ...]:
    """Gigabytes of main memory while AWQ runs, by part: it loads the merged model whole. On Cloud Run the files are in that memory too."""
    base, quantized = resident_bytes(shape, "bf16") / 1e9, resident_bytes(shape, "awq", group_size) / 1e9
    files = (("merged model", base), ("quantized model", quantized)) if machine.is_run else ()
    return (*files, ("merged model, loaded", base), ("program", PROGRAM_GB))


def main_memory_gb(machine: Machine) -> float:
    """Decimal gigabytes, like the parts."""
    return machine.memory_gb * 2**30 / 1e9


def completes(shape: Shape, spec: Spec, machine: Machine) -> bool:
    """Whether a machine can train, merge and quantize: gates hold one layer on the card, AWQ the model in main memory."""
    needed = sum(gb for _, gb in quantizing_gb(shape, spec.quantize.group_size, machine)) * (1 + FREE_SHARE)
    return fits(shape, spec.train, machine) and needed <= main_memory_gb(machine)


@dataclass(frozen=True)
class Saving:
    """Seconds of a run that stock parts would take more, on the same card at the same utilisation."""

    name: str
    seconds: float
    how: str


def savings(shape: Shape, spec: TrainSpec, corpus: CorpusSize, machine: Machine, *, checkpointing: bool) -> tuple[Saving, ...]:
    """What each part of the training loop is worth: ratios are measured, seconds follow from the card's speed."""
    rate, tokens = machine.accelerator.tflops * 1e12 * UTILISATION, corpus.tokens * spec.epochs
    per_token = flops_per_token(shape, spec, checkpointing=checkpointing)
    found = [
        Saving("packed, not padded", tokens * _PADDING * per_token / rate, f"{_PADDING:.0%} more tokens in micro-batches of {_STOCK_EXAMPLES}"),
        Saving(
            "loss on answers only",
            tokens * (1 - _ANSWER_SHARE) * 4 * shape.embedding_parameters / rate,
            f"{1 - _ANSWER_SHARE:.0%} of the tokens skip the output layer",
        ),
    ]
    if spec.adapter == "dora":
        how = f"a step takes {PEFT_OVER_LORA} times LoRA's in peft and {DORA_OVER_LORA} times here, measured"
        found.insert(0, Saving("DoRA's norm factored and kept for a step", tokens * per_token / rate * (PEFT_OVER_LORA / DORA_OVER_LORA - 1), how))
    if not checkpointing:
        again = flops_per_token(shape, spec, checkpointing=True) - per_token
        found.append(Saving("no second forward (activations fit)", tokens * again / rate, "the memory plan leaves checkpointing off"))
    return tuple(found)


def times_faster(shape: Shape, spec: TrainSpec, corpus: CorpusSize, machine: Machine) -> float:
    """How many times faster a step is on all the machine's cards: micro-batches are shared out whole, and what each card does once a step stays."""
    micro_batches = _micro_batches(shape, spec, corpus, machine)
    return 1 / (ONCE_A_STEP + (1 - ONCE_A_STEP) * math.ceil(micro_batches / machine.count) / micro_batches)


def _micro_batches(shape: Shape, spec: TrainSpec, corpus: CorpusSize, machine: Machine) -> int:
    """Of a step."""
    budget = chosen(shape, spec, machine, corpus).micro_batch_tokens
    return max(1, math.ceil(min(spec.batch_examples, corpus.examples) * corpus.mean_tokens / budget))


def gathered_gb(shape: Shape, spec: TrainSpec, corpus: CorpusSize, machine: Machine) -> float:
    """Gigabytes that reach each card from the others in all steps: every layer's weights and adapter in each forward and backward, gradients once.

    0 where every card holds the whole model: the sum of the adapter's gradients once a step is part of ``ONCE_A_STEP``.
    """
    parts = chosen(shape, spec, machine, corpus).parts
    rounds = math.ceil(_micro_batches(shape, spec, corpus, machine) / machine.count) * optimizer_steps(corpus, spec)
    adapter = 4 * shape.adapter_parameters(spec.rank, spec.target_modules)
    return rounds * (1 - 1 / parts) * (2 * (2 * shape.linear_parameters + adapter) + adapter) / 1e9


def tokens_per_s(shape: Shape, spec: TrainSpec, machine: Machine, *, checkpointing: bool, utilisation: float = UTILISATION) -> float:
    """Tokens a second of the training loop on one card: FLOP/s over FLOP."""
    faster = DORA_OVER_LORA if spec.adapter == "lora" else 1.0
    return faster * machine.accelerator.tflops * 1e12 * utilisation / flops_per_token(shape, spec, checkpointing=checkpointing)
