"""Cross-entropy of a frozen output layer without ever making the logits of a micro-batch.

16 x 2048 tokens over 152,064 words are 20 GB of fp32 logits. Two things remove them: only the tokens the loss is taken
on (the answers) reach the output layer, and those go through it in chunks whose gradient with respect to the hidden
states is taken at once, so that one chunk of logits lives at a time. The output layer is frozen in DoRA and LoRA, so
nothing else is needed from it. After Liger's fused linear cross-entropy (https://arxiv.org/abs/2410.10989), without
its Triton kernels: it runs on a CPU as well.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.nn import functional as F

#: fp32 logits alive at once (the gradient takes as much again).
CHUNK_BYTES = 256 << 20


def chunk_rows(vocabulary: int, chunk_bytes: int = CHUNK_BYTES) -> int:
    """Rows of a chunk: 441 for 152,064 words."""
    return max(1, chunk_bytes // (4 * vocabulary))


class _SummedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, targets: torch.Tensor, rows: int, divisor: float
    ) -> torch.Tensor:
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        needed = hidden.requires_grad
        gradient = torch.empty_like(hidden) if needed else None
        for begin in range(0, len(targets), rows):
            part, wanted = hidden[begin : begin + rows], targets[begin : begin + rows]
            logits = _logits(part, weight, bias)
            log_sum = logits.logsumexp(-1)
            total += (log_sum - logits.gather(-1, wanted[:, None])[:, 0]).sum()
            if gradient is not None:
                # d/dlogits = (softmax - one_hot) / divisor, in place of the logits.
                probabilities = logits.sub_(log_sum[:, None] + math.log(divisor)).exp_()
                probabilities.scatter_add_(-1, wanted[:, None], torch.full_like(wanted[:, None], -1 / divisor, dtype=torch.float32))
                gradient[begin : begin + rows] = probabilities.to(weight.dtype) @ weight
        ctx.save_for_backward(gradient)
        return total / divisor

    @staticmethod
    def backward(ctx: Any, *incoming: Any) -> Any:
        (gradient,) = ctx.saved_tensors
        return (gradient.float() * incoming[0]).to(gradient.dtype), None, None, None, None, None


def summed_cross_entropy(
    hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, rows: int | None = None, *, divisor: float = 1.0, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """Sum of -log p(target) over rows, over ``divisor``.

    A mean is taken here and not by the caller: a gradient in bf16 that is multiplied by 1 / 257 afterwards is 0.2 % off on average, because
    it was rounded to bf16 before.

    Args:
        hidden: [N, H], the states that predict the targets.
        weight: [V, H], the frozen output layer.
        targets: [N], word ids.
        rows: rows of a chunk; left out, as many as ``CHUNK_BYTES`` of logits hold.
        divisor: answer tokens of the whole step, for a mean over them.
        bias: [V], of the output layer (Phi-2), frozen too.

    Returns:
        a scalar in fp32.
    """
    if weight.requires_grad or (bias is not None and bias.requires_grad):
        raise ValueError("the output layer must be frozen: its gradient is not computed here")
    found: torch.Tensor = _SummedCrossEntropy.apply(hidden, weight, bias, targets, rows or chunk_rows(len(weight)), divisor)
    return found


def plain_cross_entropy(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """The same sum from whole logits: what the chunked form is tested and measured against."""
    return F.cross_entropy(_logits(hidden, weight, bias), targets, reduction="sum")


def _logits(hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    logits = (hidden.to(weight.dtype) @ weight.T).float()
    return logits if bias is None else logits + bias.float()
