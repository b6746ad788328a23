"""A decoder's shape, and the bytes its weights take in each format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from runners.errors import Refused
from runners.pipeline import Format

GIB = 2**30
#: What a config.json must say, what it may, and how mixtures of experts count their experts (Mixtral, Qwen, DeepSeek), which sizes here leave out.
_NUMBERS = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size")
_OPTIONAL = ("num_key_value_heads", "head_dim")
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")


@dataclass(frozen=True)
class Shape:
    """The words of a config.json that sizes follow from."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    intermediate: int
    vocabulary: int
    tied: bool = False

    @staticmethod
    def of_config(config: Any, source: str = "config.json") -> Shape:
        """Read a transformers config. Raises Refused for what is not the config of a dense decoder, with ``source`` in its text."""
        if not isinstance(config, dict):
            raise _no_decoder(source, f"holds a {type(config).__name__}")
        if odd := [f"{key} is {config[key]!r}" if key in config else f"{key} is missing" for key in _NUMBERS if not _is_size(config.get(key))]:
            raise _no_decoder(source, f"cannot be planned: {', '.join(odd)}")
        if odd := [f"{key} is {config[key]!r}" for key in _OPTIONAL if config.get(key) is not None and not _is_size(config[key])]:
            raise _no_decoder(source, f"cannot be planned: {', '.join(odd)}")
        if experts := [f"{key} is {config[key]}" for key in _EXPERTS if _is_size(config.get(key)) and config[key] > 1]:
            raise _no_decoder(source, f"is of a mixture of experts ({', '.join(experts)})")
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

    @property
    def linear_dimensions(self) -> dict[str, tuple[int, int]]:
        """(in, out) of each linear layer of a block."""
        attention, cache = self.heads * self.head_size, self.kv_heads * self.head_size
        return {
            "q_proj": (self.hidden, attention),
            "k_proj": (self.hidden, cache),
            "v_proj": (self.hidden, cache),
            "o_proj": (attention, self.hidden),
            "gate_proj": (self.hidden, self.intermediate),
            "up_proj": (self.hidden, self.intermediate),
            "down_proj": (self.intermediate, self.hidden),
        }

    @property
    def linear_parameters(self) -> int:
        """Parameters of the blocks' linear layers, the part that is quantized (13.21 B of the 14B model)."""
        return self.layers * sum(inputs * outputs for inputs, outputs in self.linear_dimensions.values())

    @property
    def embedding_parameters(self) -> int:
        """Parameters of the embedding; the output layer has as many unless it is tied."""
        return self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        """All of them; norms and biases (below 0.01 %) left out."""
        return self.linear_parameters + self.embedding_parameters * (1 if self.tied else 2)

    @property
    def kv_bytes_per_token(self) -> int:
        """Keys and values of one token in 16 bit: 196,608 for the 14B model."""
        return 2 * self.layers * self.kv_heads * self.head_size * 2

    def adapter_parameters(self, rank: int, targets: tuple[str, ...]) -> int:
        """A, B and the magnitudes of DoRA: 552.7 M for rank 128 on seven layers."""
        return self.layers * sum(rank * (inputs + outputs) + outputs for name, (inputs, outputs) in self.linear_dimensions.items() if name in targets)


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _no_decoder(source: str, found: str) -> Refused:
    return Refused(f"{source} {found}", f"the config of a dense decoder, with {', '.join(_NUMBERS)}", "choose another base model, or publish it again")


# The published base: a Qwen2.5 14B; facts of its config.json, used until the real file can be read from the bucket.
QWEN2_14B = Shape(hidden=5120, layers=48, heads=40, kv_heads=8, head_size=128, intermediate=13824, vocabulary=152064)


def linear_bytes_per_parameter(format: Format, group_size: int = 128) -> float:
    """Bytes of one weight of a linear layer. AWQ: 4 bits, a 16-bit scale and a 4-bit zero point for each group, 0.5195 at group 128."""
    return {"bf16": 2.0, "awq": 0.5 + 2 / group_size + 0.5 / group_size}[format]


def resident_bytes(shape: Shape, format: Format, group_size: int = 128) -> float:
    """Weights in memory; embedding and output layer stay in 16 bit."""
    return shape.linear_parameters * linear_bytes_per_parameter(format, group_size) + 2.0 * (shape.parameters - shape.linear_parameters)


def bytes_read_per_token(shape: Shape, format: Format, group_size: int = 128, head_bytes_per_parameter: float = 2.0) -> float:
    """What one decoding step at batch 1 must read: every linear layer and the output layer, but of the embedding one row."""
    return shape.linear_parameters * linear_bytes_per_parameter(format, group_size) + head_bytes_per_parameter * shape.embedding_parameters
