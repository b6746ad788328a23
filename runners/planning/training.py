"""Training and quantization on one machine: steps, memory, seconds. Formulas are for DoRA with a frozen 16-bit base."""

from __future__ import annotations

import math
from dataclasses import dataclass

from runners.planning.machines import Machine
from runners.planning.shape import Shape, resident_bytes
from runners.spec import TrainSpec

#: Share of the data sheet's FLOP/s that a tuned step reaches; 165 s against a floor of 66 s.
UTILISATION = 0.40
#: Share of a card's memory that a plan may fill; the rest is fragmentation.
FILLABLE = 0.95
#: fp32 parameter, gradient and Adam's two moments.
_BYTES_PER_TRAINED_PARAMETER = 16
#: Logits in 16 bit, their fp32 copy and its gradient: what a loss that keeps them whole holds at once.
_BYTES_PER_WHOLE_LOGIT = 10
#: The fused or chunked loss keeps one chunk of logits and its gradient.
_CHUNKED_LOGITS_BYTES = 1 << 30


@dataclass(frozen=True)
class Corpus:
    """What training reads: examples of the training split and tokens an example, template included."""

    examples: int
    mean_tokens: float
    source: str

    @property
    def tokens(self) -> float:
        """Tokens of one epoch."""
        return self.examples * self.mean_tokens


#: The corpus of the first version: 950 pairs; 200 tokens are its mean with the chat template around it.
ASSUMED_CORPUS = Corpus(950, 200, "assumed: no dataset could be read")


@dataclass(frozen=True)
class TrainingMemory:
    """Gigabytes (1e9) on the card, by part."""

    weights_gb: float
    adapter_gb: float
    activations_gb: float
    logits_gb: float
    micro_batch_tokens: int
    checkpointing: bool

    @property
    def total_gb(self) -> float:
        """Sum of the parts."""
        return self.weights_gb + self.adapter_gb + self.activations_gb + self.logits_gb


def optimizer_steps(corpus: Corpus, spec: TrainSpec) -> int:
    """Steps of the whole run: 950 examples, batch 64, 5 epochs are 75. Packing moves no example into another step."""
    examples = min(corpus.examples, spec.max_train_examples or corpus.examples)
    return math.ceil(examples / spec.batch_examples) * spec.epochs


def memory(shape: Shape, spec: TrainSpec, micro_batch_tokens: int, *, checkpointing: bool = True, whole_logits: bool = False) -> TrainingMemory:
    """What a micro-batch takes: 38.4 GB static, 16.1 GB of checkpoints at 16 x 2048 tokens of the 14B model, and one block's work."""
    trained = shape.adapter_parameters(spec.rank, spec.target_modules)
    block = 2 * (8 * shape.hidden + 4 * shape.intermediate)  # bytes a token of one block's forward, as much again in backward
    kept = shape.layers * shape.hidden * 2 + 2 * block if checkpointing else shape.layers * block + block
    logits = micro_batch_tokens * shape.vocabulary * _BYTES_PER_WHOLE_LOGIT if whole_logits else _CHUNKED_LOGITS_BYTES
    return TrainingMemory(
        weights_gb=resident_bytes(shape, "bf16") / 1e9,
        adapter_gb=trained * _BYTES_PER_TRAINED_PARAMETER / 1e9,
        activations_gb=micro_batch_tokens * kept / 1e9,
        logits_gb=logits / 1e9,
        micro_batch_tokens=micro_batch_tokens,
        checkpointing=checkpointing,
    )


def card_gb(machine: Machine) -> float:
    """Gigabytes of one card that a plan may fill."""
    return machine.accelerator.memory_gib * 2**30 / 1e9 * FILLABLE


def largest_micro_batch(shape: Shape, spec: TrainSpec, machine: Machine, *, whole_logits: bool = False) -> int:
    """The largest power of two of tokens that fits with checkpointing, or 0."""
    sizes = [2**power for power in range(7, 18)]
    return max((size for size in sizes if memory(shape, spec, size, whole_logits=whole_logits).total_gb <= card_gb(machine)), default=0)


def flop_per_token(shape: Shape, spec: TrainSpec, *, checkpointing: bool) -> float:
    """4N + 6A: forward and backward through frozen weights, forward, backward and gradient of the adapter; checkpointing repeats the blocks' forward."""
    head, adapter = shape.embedding_parameters, shape.adapter_parameters(spec.rank, spec.target_modules)
    once = 4 * (shape.linear_parameters + head) + 6 * adapter
    return once + (2 * (shape.linear_parameters + adapter) if checkpointing else 0)


def training_seconds(shape: Shape, spec: TrainSpec, corpus: Corpus, machine: Machine, *, checkpointing: bool, utilisation: float = UTILISATION) -> float:
    """Seconds on one card: FLOP over FLOP/s."""
    return flop_per_token(shape, spec, checkpointing=checkpointing) * corpus.tokens * spec.epochs / (machine.accelerator.tflops * 1e12 * utilisation)
