"""A DoRA layer on a card: the arithmetic of ``dora.py`` in a third of its kernels.

A step of the 14B in micro-batches of 3,000 tokens was bound by the host that launches kernels, not by the card that runs them: 377 kernels a
decoder layer and micro-batch, 54 of them for each adapted matrix, most of them casts, additions and scalings as small as the adapter.
Here the adapter's bf16 copies and the scale are made once an optimizer step, sums go into the products that follow them, and the input's
gradient is taken in two products instead of two products and an addition. H100, torch 2.11: tests/gpu/README.md.

Left out, and done by ``dora.py``: fp16 and fp32, dropout, several adapters at once, biases that are trained, torch.compile and torch.func.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.autograd.function import once_differentiable

#: The least scale of a row.
LEAST_SCALE = 2.0**-20


def applies(module: Any, adapter: str, x: torch.Tensor, base: torch.Tensor) -> bool:
    """Whether a call of peft's layer is one that ``scaled_sum`` can do."""
    weight, a = module.get_base_layer().weight, module.lora_A[adapter].weight
    plain = isinstance(module.lora_dropout[adapter], torch.nn.Identity) or not module.training
    one = list(module.active_adapters) == [adapter]
    return x.is_cuda and x.dtype == weight.dtype == base.dtype == torch.bfloat16 and a.dtype == torch.float32 and plain and one


class Factors:
    """What is computed once for each value of A, B and m: ``s A`` and ``B`` in the weights' dtype, and the scale of each row in fp32."""

    def __init__(self, layer: Any, a: torch.Tensor, b: torch.Tensor, magnitude: torch.Tensor, norm: torch.Tensor, scaling: float, dtype: torch.dtype) -> None:
        self.layer, self.norm, self.scaling = layer, norm, scaling
        self._magnitude: weakref.ref[torch.Tensor] = weakref.ref(magnitude)
        self._mark = (magnitude.data_ptr(), magnitude._version)
        with torch.no_grad(), torch.autocast(a.device.type, enabled=False):
            scale = magnitude / norm
            # A row whose scale is 0 would never get a gradient again (dora.py).
            self.scale = torch.where(scale.abs() < LEAST_SCALE, LEAST_SCALE, scale)
            self.scaled_norm = self.scale * norm
            self.a, self.b = (a * scaling).to(dtype), b.to(dtype)

    def holds(self, norm: torch.Tensor, magnitude: torch.Tensor) -> bool:
        """Whether nothing has changed: the norm is the very tensor, and m was not written."""
        # The reference is weak: an address is used again, an object is not.
        return self.norm is norm and self._mark == (magnitude.data_ptr(), magnitude._version) and self._magnitude() is magnitude


def scaled_sum(x: torch.Tensor, base: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, parameters: tuple[Any, Any, Any], made: Factors) -> Any:
    """``scale * (x W^T + s x A^T B^T) + bias``, and its gradients for x, A, B and m.

    Args:
        x: [..., in].
        base: [..., out], ``x W^T + bias``; its own graph is not used.
        weight: W, [out, in], frozen.
        bias: [out], frozen, or None.
        parameters: A [rank, in], B [out, rank], m [out], which get the gradients.
        made: what follows from them.
    """
    return _CardDora.apply(x, base.detach(), weight, bias, *parameters, made)


class _CardDora(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any, base: Any, weight: Any, bias: Any, a: Any, b: Any, magnitude: Any, made: Factors) -> Any:
        with torch.autocast(x.device.type, enabled=False):
            low = x.flatten(0, -2) @ made.a.T
            total = torch.addmm(base.flatten(0, -2), low, made.b.T)
            if bias is not None:
                total -= bias
            # The product with the scale is taken in fp32 and rounded once.
            found = torch.mul(total, made.scale, out=torch.empty_like(total) if bias is not None else total)
            kept = total if bias is not None else found
            if bias is not None:
                found += bias
        ctx.made, ctx.biased = made, bias is not None
        ctx.save_for_backward(x, weight, low, kept)
        return found.view_as(base)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *incoming: Any) -> Any:
        x, weight, low, kept = ctx.saved_tensors
        made, flat = ctx.made, x.flatten(0, -2)
        made.layer.differentiated = True
        with torch.autocast(x.device.type, enabled=False):
            gradient = incoming[0].flatten(0, -2)
            change = torch.mul(gradient, made.scale, out=torch.empty_like(gradient))
            by_row = (gradient * kept).sum(0, dtype=torch.float32)
            # What was kept is the sum with a bias, and without one the output, which is the sum times the scale.
            to_magnitude = by_row / (made.norm if ctx.biased else made.scaled_norm)
            back = change @ made.b
            to_b, to_a = _product(change.T, low), _product(back.T, flat).mul_(made.scaling)
            to_x = torch.addmm(back @ made.a, change, weight).view_as(x) if ctx.needs_input_grad[0] else None
        return to_x, None, None, None, to_a, to_b, to_magnitude, None


def _product(one: torch.Tensor, two: torch.Tensor) -> torch.Tensor:
    """``one @ two`` in fp32."""
    return torch.mm(one, two, out_dtype=torch.float32) if one.is_cuda and one.dtype != torch.float32 else (one @ two).float()
