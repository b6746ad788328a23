"""How far one model's answers are from another's, in numbers a stage can be held to.

All of it is measured on held-out examples, on the tokens of the answers only, through the chat template: mean KL divergence
of the next-token distribution, how often the most likely token is the same, and perplexity. Round-to-nearest is the same
model quantized without looking at any activation; a method that looks and does worse has broken the model (autoawq on a CPU
did, silently: perplexity 100,000).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from runners.artifacts.record import Gate
from runners.errors import UserError
from runners.training import precision
from runners.training.examples import Example

#: Answer tokens compared at most: 2048 x 152,064 words in fp32 are 1.2 GB of main memory.
MAX_TOKENS = 2048


class GateFailed(UserError):
    """A stage's result is worse than its bounds allow. ``gates`` and ``metrics`` hold everything that was measured."""

    def __init__(self, stage: str, gates: Sequence[Gate], metrics: dict[str, Any], fix: str) -> None:
        self.gates, self.metrics = tuple(gates), metrics
        failed = [gate for gate in gates if not gate.passed]
        found = "; ".join(f"{gate.name} is {gate.value:.4g}, {gate.rule} {gate.bound:.4g} is allowed" for gate in failed)
        super().__init__(f"{stage} did not pass {len(failed)} of {len(gates)} gates: {found}", "every gate within its bound", fix)


def hold(stage: str, gates: Sequence[Gate], metrics: dict[str, Any], fix: str) -> None:
    """Raise GateFailed unless every gate passed."""
    if not all(gate.passed for gate in gates):
        raise GateFailed(stage, gates, metrics, fix)


@dataclass(frozen=True)
class Distance:
    """A candidate against a reference, over ``tokens`` answer tokens."""

    mean_kl: float
    top1_agreement: float
    perplexity: float
    reference_perplexity: float
    tokens: int

    @property
    def perplexity_ratio(self) -> float:
        """Above 1, the candidate is worse."""
        return self.perplexity / self.reference_perplexity

    def as_metrics(self, prefix: str) -> dict[str, float]:
        """Flat numbers for a record."""
        values = {"mean_kl": self.mean_kl, "top1_agreement": self.top1_agreement, "perplexity": self.perplexity}
        return {f"{prefix}_{name}": round(value, 6) for name, value in values.items()}


def calls(examples: Sequence[Example]) -> list[dict[str, Any]]:
    """The forward calls whose logits are of each answer's tokens, an example each, until ``MAX_TOKENS`` answer tokens are reached."""
    found: list[dict[str, Any]] = []
    seen = 0
    for example in examples:
        if seen and seen + example.answer_tokens > MAX_TOKENS:
            break
        seen += example.answer_tokens
        # Position t predicts token t + 1: the last position predicts nothing we know.
        found.append({"input_ids": torch.tensor([example.token_ids[:-1]]), "logits_to_keep": example.answer_tokens})
    return found


def logits(model: Any, calls: Iterable[dict[str, Any]]) -> Iterator[torch.Tensor]:
    """[tokens that are kept, vocabulary] of each call of a whole model, when it is asked for (``layers.py``: of a model in parts)."""
    model.eval()
    device = next(model.parameters()).device
    for call in calls:
        with torch.no_grad():
            there = {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in call.items()}
            yield model(**there, use_cache=False).logits[0]


def log_probabilities(logits: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
    """Log-probabilities of the next token, [answer tokens, vocabulary] in fp32 on the CPU, one when it is asked for."""
    return (torch.log_softmax(one.float(), -1).cpu() for one in logits)


def distance(reference: Sequence[torch.Tensor], candidate: Iterable[torch.Tensor], examples: Sequence[Example]) -> Distance:
    """KL(reference || candidate), agreement and perplexities of two models' ``log_probabilities``; the candidate's need not be in memory all at once."""
    divergence = agreed = loss = reference_loss = 0.0
    tokens = 0
    for expected, got, example in zip(reference, candidate, examples, strict=False):
        targets = torch.tensor(example.token_ids[example.answer_start :])[:, None]
        divergence += float((expected.exp() * (expected - got)).sum())
        agreed += float((expected.argmax(-1) == got.argmax(-1)).sum())
        loss -= float(got.gather(-1, targets).sum())
        reference_loss -= float(expected.gather(-1, targets).sum())
        tokens += len(targets)
    return Distance(divergence / tokens, agreed / tokens, _exp(loss / tokens), _exp(reference_loss / tokens), tokens)


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf


def round_to_nearest(weight: torch.Tensor, group_size: int, bits: int = 4) -> torch.Tensor:
    """A weight [out, in] quantized with a zero point in groups along ``in`` and back again, in fp32."""
    rows, width = weight.shape
    groups = weight.float().reshape(rows, width // group_size, group_size)
    high, low = groups.amax(-1, keepdim=True), groups.amin(-1, keepdim=True)
    steps = 2**bits - 1
    scale = (high - low).clamp_min(1e-5) / steps
    zero = (-low / scale).round().clamp(0, steps)
    return (((groups / scale).round() + zero).clamp(0, steps) - zero).mul(scale).reshape(rows, width)


def load_plain(folder: Path, device: str, dtype: torch.dtype) -> Any:
    """A model folder with plain weights, for measuring."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    return AutoModelForCausalLM.from_pretrained(str(folder), dtype=dtype, local_files_only=True, device_map={"": device})


def measuring_dtype(device: str) -> torch.dtype:
    """bf16 where it is quick (a card), fp32 on a CPU, where rounding of the arithmetic would hide that of the weights."""
    return precision.compute_dtype(device, "bf16" if device == "cuda" else "fp32")


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a model folder."""
    found: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return found
