"""How much memory and arithmetic a training takes, from the model's shape: pure arithmetic, no torch.

The planner prints it before money is spent, and the training loop takes its micro-batch and its checkpointing from
``choose``, so nothing is found out by running out of memory. It counts what this project's loop keeps for the backward
pass, tensor by tensor (``activation_bytes``); against measured peaks of models of growing size it is within 15 %
(tests/benchmarks/TRAINING.md, with the plan of the 14B on 80 GB explained).
"""

from __future__ import annotations

import itertools
import math
import os
from dataclasses import dataclass

from runners.errors import UserError
from runners.spec import TrainSpec
from runners.training.shape import Shape

#: fp32 logits of one chunk of the loss (runners/training/loss.py), and what is held beside them while its gradient is taken.
LOGITS_BYTES = 256 << 20
LOGITS_FACTOR = 2.0
#: A card's memory that is not ours: context, kernels, fragments of the allocator.
CARD_RESERVE = 0.10
#: A CPU program's own: the interpreter and torch's libraries (measured), and its share of a machine that others use too.
PROCESS_BYTES = 450 << 20
CPU_SHARE = 0.6
#: Beyond this many tokens products run no faster; a smaller micro-batch leaves room. Measured on the CPU, U on a card.
ENOUGH_TOKENS = {"cpu": 1024, "cuda": 8192}
#: Steps differ in length: cut by their mean alone, every third would have a ninth micro-batch for eight cards.
STEP_ROOM = 1.25
#: Sizes of micro-batches are multiples of this.
STEP_TOKENS = 128


@dataclass(frozen=True)
class Memory:
    """Bytes at the peak of a step, by what they are."""

    weights: int
    adapter: int
    gradients: int
    optimizer: int
    activations: int
    recomputed_layer: int
    logits: int
    program: int
    gathered: int = 0

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self.__dict__.values())


@dataclass(frozen=True)
class Choice:
    """What a training should use, and what it then needs. ``parts``: 1, or the cards that share the model out."""

    micro_batch_tokens: int
    gradient_checkpointing: bool
    memory: Memory
    available_bytes: int
    parts: int = 1

    @property
    def is_sharded(self) -> bool:
        """Whether no card holds the whole model."""
        return self.parts > 1


def activation_bytes(shape: Shape, settings: TrainSpec, *, grouped_attention: bool) -> int:
    """Bytes one decoder layer keeps for the backward pass, per token.

    In bf16 (2 bytes an element; fp32 takes 4): both norms keep their input in fp32 and give their output to the adapters'
    A; each target keeps ``x A^T`` and, in DoRA, its output, which of gate and up the MLP keeps anyway; attention keeps q, k, v, its output and the output
    projection's input (k and v repeated for each head unless the kernel is grouped); the gated MLP keeps four tensors of its width.
    """
    element = 2 if settings.precision == "bf16" else 4
    targets = {name: shape.linear_dimensions[name] for name in settings.target_modules if name in shape.linear_dimensions}
    query, kv_width = shape.heads * shape.head_size, shape.kv_heads * shape.head_size
    norms = 2 * (4 + element) * shape.hidden
    adapters = element * settings.rank * len(targets)
    scaled = element * sum(out for name, (_, out) in targets.items() if name not in ("gate_proj", "up_proj")) if settings.adapter == "dora" else 0
    kv = kv_width if grouped_attention else query
    attention = element * (3 * query + 2 * kv) + 4 * shape.heads
    return norms + adapters + scaled + attention + element * 4 * shape.intermediate


def training_memory(shape: Shape, settings: TrainSpec, micro_batch_tokens: int, *, checkpointing: bool, on_cpu: bool = False, parts: int = 1) -> Memory:
    """Peak of a step of packed micro-batches, on one card of ``parts`` that share the decoder layers, the adapter and its Adam out (``sharded.py``)."""
    element = 2 if settings.precision == "bf16" else 4
    adapter = shape.adapter_parameters(settings.rank, settings.target_modules)
    per_token = activation_bytes(shape, settings, grouped_attention=not on_cpu)
    # The backward of the widest part: gradients of the MLP's four tensors, products in fp32.
    passing = micro_batch_tokens * (4 * element + 8) * shape.intermediate
    one_layer = micro_batch_tokens * per_token + passing
    kept = micro_batch_tokens * shape.layers * (element * shape.hidden if checkpointing else per_token)
    rows = min(micro_batch_tokens, max(1, LOGITS_BYTES // (4 * shape.vocabulary)))
    return Memory(
        weights=element * (shape.parameters - shape.linear_parameters + -(-shape.linear_parameters // parts)),
        # fp32 master, its bf16 copies, which every card keeps whole for a step, and (on a CPU) the best adapter so far.
        adapter=-(-adapter * (4 + (4 if on_cpu else 0)) // parts) + (2 if element == 2 else 0) * adapter,
        gradients=-(-4 * adapter // parts),
        optimizer=-(-8 * adapter // parts),
        activations=kept,
        recomputed_layer=one_layer if checkpointing else passing,
        logits=int(LOGITS_FACTOR * 4 * rows * shape.vocabulary),
        program=PROCESS_BYTES if on_cpu else 0,
        gathered=gathered_bytes(shape, settings) if parts > 1 else 0,
    )


def gathered_bytes(shape: Shape, settings: TrainSpec) -> int:
    """What a card holds beside its share: the layer at work, the next one, the buffer it arrives in, and the gradients of two layers' adapters.

    And for each row of each adapted matrix four fp32 numbers: the norm and the squares it is made of, the scale and their product.
    """
    element = 2 if settings.precision == "bf16" else 4
    adapter = -(-shape.adapter_parameters(settings.rank, settings.target_modules) // shape.layers)
    layer = element * (shape.linear_parameters // shape.layers) + 4 * adapter
    rows = shape.layers * sum(out for name, (_, out) in shape.linear_dimensions.items() if name in settings.target_modules)
    return 3 * layer + 2 * 4 * adapter + (4 * 4 * rows if settings.adapter == "dora" else 0)


def choose(
    shape: Shape,
    settings: TrainSpec,
    longest: int,
    available_bytes: int,
    *,
    on_cpu: bool = False,
    parts: tuple[int, ...] = (1,),
    step_tokens: float = math.inf,
) -> Choice:
    """The micro-batch and the checkpointing of a training: the spec's where it says, else what fits and is quickest.

    Without checkpointing a step does 1.46 times less arithmetic (14B), so it is kept off while at least the longest example fits;
    a larger micro-batch than ``ENOUGH_TOKENS`` gains nothing. A model that fits whole is not shared out: that would only be slower.

    Args:
        shape: the base model's.
        settings: the spec's train section.
        longest: tokens of the longest example, which a micro-batch must hold.
        available_bytes: memory of the card, or of the machine.
        on_cpu: the arithmetic and the shares of a CPU.
        parts: in how many parts the model may be held, best first: whole, or by all cards together. The last is the number of cards.
        step_tokens: tokens of an optimizer step, on average; each card should get a part of it.

    Raises:
        UserError: not even one example fits, checkpointed.
    """
    usable = int(available_bytes * (CPU_SHARE if on_cpu else 1 - CARD_RESERVE))
    enough = max(int(min(ENOUGH_TOKENS["cpu" if on_cpu else "cuda"], STEP_ROOM * step_tokens / parts[-1])), longest)
    ways = (False, True) if settings.gradient_checkpointing is None else (settings.gradient_checkpointing,)
    for held, checkpointing in itertools.product(parts, ways):
        sizes = [settings.micro_batch_tokens] if settings.micro_batch_tokens else range(_rounded(enough), _rounded(longest) - 1, -STEP_TOKENS)
        for tokens in sizes:
            memory = training_memory(shape, settings, tokens, checkpointing=checkpointing, on_cpu=on_cpu, parts=held)
            if memory.total <= usable:
                return Choice(tokens, checkpointing, memory, usable, held)
    least = training_memory(shape, settings, settings.micro_batch_tokens or _rounded(longest), checkpointing=ways[-1], on_cpu=on_cpu, parts=parts[-1])
    raise UserError(
        f"training needs {least.total / 1e9:.1f} GB{f' on each of {parts[-1]} cards' if parts[-1] > 1 else ''}, "
        f"and {usable / 1e9:.1f} GB of {available_bytes / 1e9:.1f} GB may be used",
        f"room for a micro-batch of {settings.micro_batch_tokens or longest} tokens",
        "a larger accelerator, a lower train.rank or train.max_tokens, or train.gradient_checkpointing: true",
    )


def _rounded(tokens: int) -> int:
    return -(-tokens // STEP_TOKENS) * STEP_TOKENS


def flops_per_token(shape: Shape, settings: TrainSpec, *, checkpointing: bool, answer_share: float = 1.0, context_tokens: float = 0.0) -> float:
    """Floating-point operations of one trained token.

    Frozen weights take 2 forward and 2 backward (the gradient of their input only), an adapter's 2 and 4; checkpointing adds
    a forward. Only answers reach the output layer. 14B, all tokens: 59.3 GFLOP, checkpointed 86.8.

    Args:
        shape: the base model's.
        settings: the spec's train section.
        checkpointing: whether each layer's forward is done twice.
        answer_share: answer tokens per token.
        context_tokens: mean number of tokens a token attends to; 0 leaves attention out.
    """
    frozen = shape.linear_parameters + shape.layers * 2 * context_tokens * shape.heads * shape.head_size
    adapter = shape.adapter_parameters(settings.rank, settings.target_modules)
    again = 2 * frozen + 2 * adapter if checkpointing else 0
    return 4 * frozen + 6 * adapter + again + 4 * shape.embedding_parameters * answer_share


def norm_flops(shape: Shape, settings: TrainSpec) -> float:
    """Operations of DoRA's factored norms, once an optimizer step: ``W A^T``, in fp32."""
    return 2.0 * shape.linear_parameters * settings.rank if settings.adapter == "dora" else 0.0


#: Bytes moved for each adapter parameter in a step: gradient added (12), bf16 copy (6), AdamW's reading of four numbers and writing of three (28).
UPDATE_BYTES = 46


def step_seconds(
    shape: Shape,
    settings: TrainSpec,
    tokens: int,
    *,
    checkpointing: bool,
    flops_per_s: float,
    bytes_per_s: float,
    answer_share: float = 1.0,
    context_tokens: float = 0.0,
    grouped_attention: bool = True,
) -> float:
    """Seconds of an optimizer step of ``tokens`` tokens, from a device's two rates.

    Products at ``flops_per_s`` (what it reaches, not what is printed on it); everything between them is bound by memory: each tensor
    kept for the backward is written once and read twice, and its gradient the same; and the update (``UPDATE_BYTES``). The norms
    (``norm_flops``) come once.
    """
    products = tokens * flops_per_token(shape, settings, checkpointing=checkpointing, answer_share=answer_share, context_tokens=context_tokens)
    passes = 9 if checkpointing else 6
    moved = tokens * shape.layers * passes * activation_bytes(shape, settings, grouped_attention=grouped_attention)
    moved += UPDATE_BYTES * shape.adapter_parameters(settings.rank, settings.target_modules)
    return (products + norm_flops(shape, settings)) / flops_per_s + moved / bytes_per_s


def device_bytes() -> int:
    """Memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
