"""The device under test, and models of random weights on it: the shape of the 14B on a card, a tiny one on a CPU."""

from __future__ import annotations

import gc
import os
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from runners.errors import UserError
from runners.planning.machines import A100_40, A100_80, H100, L4, Accelerator
from runners.spec import TrainSpec
from runners.training import attention, memory
from runners.training.examples import Example
from runners.training.shape import QWEN2_14B, Shape

TINY = Shape(hidden=128, layers=2, heads=2, kv_heads=1, head_size=64, intermediate=256, vocabulary=768)
#: Words in the name of a card, in the catalogue's order.
_NAMES = (("H100", H100), ("A100-SXM4-40", A100_40), ("A100-PCIE-40", A100_40), ("A100", A100_80), ("L4", L4))


@dataclass(frozen=True)
class Card:
    """Where the suite runs. ``shape`` has as many layers of the 14B as can be trained on it."""

    device: str
    name: str
    total_bytes: int
    accelerator: Accelerator | None
    shape: Shape
    settings: TrainSpec

    @property
    def on_card(self) -> bool:
        """False on a CPU, where only the correctness is tested."""
        return self.device == "cuda"

    @property
    def dtype(self) -> torch.dtype:
        """What the base model's weights are held in."""
        return torch.bfloat16 if self.settings.precision == "bf16" else torch.float32

    def slice(self, layers: int) -> Shape:
        """The shape with at most so many layers."""
        return replace(self.shape, layers=min(layers, self.shape.layers))

    def choice(self, *, checkpointing: bool | None = None, longest: int | None = None) -> memory.Choice:
        """What the training loop would choose here."""
        settings = self.settings.model_copy(update={"gradient_checkpointing": checkpointing})
        return memory.choose(self.shape, settings, longest or settings.max_tokens, self.total_bytes, on_cpu=not self.on_card)

    def sync(self) -> None:
        """Wait for the card."""
        if self.on_card:
            torch.cuda.synchronize()


def find_card() -> Card:
    """The first CUDA card, or the CPU. ELSON_GPU_LAYERS bounds the layers of the model: a few for a first try."""
    if not torch.cuda.is_available():
        settings = TrainSpec(rank=8, alpha=16, precision="fp32", max_tokens=256, learning_rate=2e-3, minimum_steps=1)
        return Card("cpu", "CPU", memory.device_bytes(), None, TINY, settings)
    name, total = torch.cuda.get_device_name(), int(torch.cuda.mem_get_info()[1])
    accelerator = next((card for word, card in _NAMES if word in name), None)
    settings = TrainSpec(learning_rate=2e-4, minimum_steps=1)
    layers = int(os.environ.get("ELSON_GPU_LAYERS", QWEN2_14B.layers))
    while layers > 1 and not _fits(replace(QWEN2_14B, layers=layers), settings, total):
        layers -= 1
    return Card("cuda", name, total, accelerator, replace(QWEN2_14B, layers=layers), settings)


def _fits(shape: Shape, settings: TrainSpec, total: int) -> bool:
    try:
        memory.choose(shape, settings, settings.max_tokens, total)
    except UserError:
        return False
    return True


def config_of(shape: Shape, implementation: str | None = None) -> Any:
    """A Qwen2 configuration of this shape."""
    from transformers import Qwen2Config

    return Qwen2Config(
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        intermediate_size=shape.intermediate,
        vocab_size=shape.vocabulary,
        max_position_embeddings=32768,
        rope_theta=1e6,
        tie_word_embeddings=shape.tied,
        **({"attn_implementation": implementation} if implementation else {}),
    )


def random_base(card: Card, shape: Shape, implementation: str | None = None, dtype: torch.dtype | None = None) -> Any:
    """A frozen base model of random weights, made on the card. In another dtype it has the same weights."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    with torch.device(card.device):
        model = AutoModelForCausalLM.from_config(config_of(shape), dtype=card.dtype, attn_implementation=implementation or attention.prepare(card.device))
    return model.to(dtype or card.dtype).requires_grad_(False)


def adapted(
    card: Card, shape: Shape, *, adapter: str = "dora", stock: bool = False, implementation: str | None = None, dtype: torch.dtype | None = None
) -> Any:
    """A random base with an adapter whose A and B are random; ``stock`` leaves peft's own DoRA in."""
    from runners.training import adapted_model, dora  # the environment of AWQ has no peft

    settings = card.settings.model_copy(update={"adapter": adapter})
    install = dora.install
    if stock:
        dora.install = lambda model: 0
    try:
        model = adapted_model.with_new_adapter(random_base(card, shape, implementation, dtype), settings, "random").to(card.device)
    finally:
        dora.install = install
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name and "magnitude" not in name:
                parameter.normal_(std=0.01)
    return model


def trained(model: Any) -> list[torch.nn.Parameter]:
    """The adapter's parameters."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def optimizer_of(card: Card, model: Any) -> torch.optim.Optimizer:
    """The training loop's optimizer."""
    return torch.optim.AdamW(trained(model), lr=card.settings.learning_rate, fused=True)


def corpus_lengths(count: int, longest: int, seed: int = 0) -> list[int]:
    """Lengths as the project's corpus has them: 112 to 329 tokens, 198 on average (tests/benchmarks/TRAINING.md)."""
    chance = random.Random(seed)
    return [min(longest, round(chance.triangular(112, 329, 153))) for _ in range(count)]


def lengths_that_fill(tokens: int, longest: int, seed: int = 0) -> list[int]:
    """Random lengths whose sum is exactly ``tokens``."""
    chance, found = random.Random(seed), list[int]()
    while (left := tokens - sum(found)) > 0:
        found.append(left if left <= 16 else min(left, chance.randint(16, longest)))
    if len(found) > 1 and found[-1] < 8:
        found[-2:] = [found[-2] + found[-1]]
    return found


def examples(lengths: Sequence[int], vocabulary: int, seed: int = 0) -> list[Example]:
    """Examples of random tokens, a little more than half of each an answer."""
    chance = random.Random(seed)
    return [Example(f"{n}", tuple(chance.choices(range(vocabulary), k=length)), max(1, int(0.46 * length))) for n, length in enumerate(lengths)]


@contextmanager
def released() -> Iterator[None]:
    """Give the card's memory back at the end of a block, whatever happened in it."""
    try:
        yield
    finally:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def write_base(card: Card, shape: Shape, folder: Path) -> Path:
    """A folder as `elson base publish` takes it: weights in bf16 with a few loud channels, and the tests' tokenizer."""
    from runners.local import base_model

    model = random_base(card, shape, "sdpa").to(torch.bfloat16)
    with torch.no_grad():
        for layer in model.model.layers:
            # What activation-aware quantization is about; real models have them.
            layer.input_layernorm.weight[::32] *= 8
            layer.post_attention_layernorm.weight[::32] *= 8
    tokenizer = base_model._tiny_tokenizer()
    model.config.eos_token_id = tokenizer.eos_token_id
    return base_model._write(model, tokenizer, folder)
