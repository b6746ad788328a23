"""DoRA without its cost: a drop-in for peft's linear DoRA layers, equal in numbers and in files.

peft multiplies ``B @ A`` out (as large as the weight itself) in every forward, to take the norm of each row of
``W + s B A``. That norm is a constant of the graph (section 4.3 of https://arxiv.org/abs/2402.09353) and changes only when
a weight does: once an optimizer step. So

* it is computed from the factors, ``||W||^2 + 2 s rowsum((W A^T) * B) + s^2 rowsum((B (A A^T)) * B)``, in fp32 whatever
  the weights are, so that no copy of ``B @ A`` is made, nor of W: on a CPU it goes over blocks of rows, on a card it is taken whole;
* it is kept until A, B or W change, so micro-batches, checkpoint recomputation and evaluation reuse it;
* magnitude, base and low-rank parts are put together in one step that saves one tensor for the backward, not three.

A change is noticed by the version counters of the tensors, by their addresses, and by a hook on every optimizer: the
fused AdamW writes without bumping the counters, which gave a stale norm and a loss wrong in the fourth digit. What is
written through ``tensor.data`` outside an optimizer leaves no trace; call ``forget(model)`` after it.

Derivation, error bounds and figures: runners/training/DORA.md. Left out: embeddings, convolutions and quantized base layers,
which keep peft's own code.

    model = get_peft_model(base, LoraConfig(use_dora=True, ...)); dora.install(model)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners.lora.layer import Linear
from peft.tuners.lora.variants import DoraLinearVariant
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from runners.training import dora_card, precision

#: Rows of W in fp32 at once on a CPU: 8 MiB. On a card so small a product costs more to start than to compute.
BLOCK_BYTES = 8 << 20
#: A product that is only summed goes through a CPU in pieces of this many elements, which stay in its cache: three times as fast as whole.
CACHED_ELEMENTS = 1 << 19
_optimizer_steps = [0]


def _count_step(*_: Any) -> None:
    _optimizer_steps[0] += 1


register_optimizer_step_post_hook(_count_step)


def install(model: nn.Module) -> int:
    """Give every linear DoRA layer of a peft model the fast form; returns how many. State dict and files stay peft's."""
    count = 0
    for module in model.modules():
        if not isinstance(module, Linear) or type(module.get_base_layer()) is not nn.Linear or module.fan_in_fan_out:
            continue
        for name, variant in module.lora_variant.items():
            if type(variant) is DoraLinearVariant:
                module.lora_variant[name] = FastDora()
                count += 1
    return count


def forget(model: nn.Module) -> None:
    """Drop every kept norm, after weights were changed behind torch's back."""
    for module in model.modules():
        for variant in getattr(module, "lora_variant", {}).values():
            if isinstance(variant, FastDora):
                variant.forget()


class FastDora(DoraLinearVariant):
    """One layer's adapter. Holds the norm and what it was computed from; none of it is part of the state dict."""

    def __init__(self) -> None:
        self._base_key: tuple[Any, ...] | None = None
        self._norm_key: tuple[Any, ...] | None = None
        self._base_squared = self._norm = torch.empty(0)
        self._factors: dora_card.Factors | None = None

    def forget(self) -> None:
        """Compute the norm again at the next use."""
        self._base_key = self._norm_key = None

    def forward(self, module: Any, active_adapter: str, x: torch.Tensor, result: torch.Tensor, **_: Any) -> torch.Tensor:
        """The layer's output.

        Args:
            module: peft's linear layer.
            active_adapter: the adapter's name.
            x: [..., in].
            result: [..., out], the frozen layer's output, bias included.

        Returns:
            [..., out], ``m / ||W + sBA|| * (x W^T + s x A^T B^T) + bias``.
        """
        layer, lora_a, lora_b = module.get_base_layer(), module.lora_A[active_adapter], module.lora_B[active_adapter]
        if layer.bias is not None and layer.bias.requires_grad:
            return DoraLinearVariant.forward(module, active_adapter=active_adapter, x=x, result=result)
        dropout, scaling, bias = module.lora_dropout[active_adapter], module.scaling[active_adapter], layer.bias
        norm, magnitude = self.norm(layer.weight, lora_a.weight, lora_b.weight, scaling), module.lora_magnitude_vector[active_adapter].weight
        if dora_card.applies(module, active_adapter, x, result):
            if not (self._factors and self._factors.holds(norm, magnitude)):
                self._factors = dora_card.Factors(lora_a.weight, lora_b.weight, magnitude, norm, scaling, layer.weight.dtype)
            return dora_card.scaled_sum(x, result, layer.weight, bias, (lora_a.weight, lora_b.weight, magnitude), self._factors)
        scale = magnitude / norm
        if isinstance(dropout, nn.Identity) or not module.training:
            return _scaled_sum(result, lora_b(lora_a(x) * scaling), scale, bias)
        # With dropout peft takes the change of the base part on the dropped input as well.
        dropped = dropout(x)
        again = nn.functional.linear(dropped.to(layer.weight.dtype), layer.weight)
        return result + (_scaled_sum(again, lora_b(lora_a(dropped) * scaling), scale, None) - again)

    @torch.no_grad()
    def norm(self, weight: torch.Tensor, lora_a: torch.Tensor, lora_b: torch.Tensor, scaling: float) -> torch.Tensor:
        """[out], the row norms of ``W + s B A`` in fp32: the kept ones, unless something changed."""
        base_key = _identity(weight)
        key = (base_key, _identity(lora_a), _identity(lora_b), scaling, _optimizer_steps[0])
        if key != self._norm_key:
            if base_key != self._base_key:
                self._base_squared, self._base_key = row_squares(weight), base_key
            with torch.autocast(weight.device.type, enabled=False):
                self._norm, self._norm_key = factored_norm(weight, lora_a, lora_b, scaling, self._base_squared), key
        return self._norm

    def merge_safe(self, *arguments: Any, **more: Any) -> Any:
        """As peft's, and what was kept of W is dropped."""
        self.forget()
        return DoraLinearVariant.merge_safe(*arguments, **more)

    def merge_unsafe(self, *arguments: Any, **more: Any) -> Any:
        """As peft's, and what was kept of W is dropped."""
        self.forget()
        return DoraLinearVariant.merge_unsafe(*arguments, **more)

    def unmerge(self, *arguments: Any, **more: Any) -> Any:
        """As peft's, and what was kept of W is dropped."""
        self.forget()
        return DoraLinearVariant.unmerge(*arguments, **more)


def _row_blocks(weight: torch.Tensor) -> Iterator[slice]:
    rows = max(1, BLOCK_BYTES // (4 * weight.shape[1])) if weight.device.type == "cpu" else len(weight)
    return (slice(begin, begin + rows) for begin in range(0, len(weight), rows))


@torch.no_grad()
def row_squares(weight: torch.Tensor) -> torch.Tensor:
    """``||W||^2`` of each row of W, [out, in], as [out] in fp32. A CPU takes it in blocks: whole, torch makes a copy of W in fp32 there."""
    return torch.cat([torch.linalg.vector_norm(weight[part], dim=1, dtype=torch.float32).square_() for part in _row_blocks(weight)])


@torch.no_grad()
def factored_norm(weight: torch.Tensor, lora_a: torch.Tensor, lora_b: torch.Tensor, scaling: float, base_squared: torch.Tensor) -> torch.Tensor:
    """Row norms of ``W + s B A`` from the factors; call it outside autocast.

    Args:
        weight: W, [out, in], any float dtype.
        lora_a: A, [rank, in].
        lora_b: B, [out, rank].
        scaling: s.
        base_squared: ``||W||^2`` of each row, [out], fp32.

    Returns:
        [out], fp32. Products are accumulated in fp32: in bf16 the middle term loses three digits.
    """
    squared = torch.empty_like(base_squared)
    a, b = lora_a.float(), lora_b.float()
    gram = a @ a.T
    short = weight.dtype == torch.bfloat16 and (weight.device.type != "cpu" or precision.has_bf16_units())
    # A bf16 number and the bf16 number of what is left: together A to 2^-17 of itself.
    terms = torch.cat([high := a.bfloat16(), (a - high).bfloat16()]) if short else a
    for part in _row_blocks(weight):
        mixed = _product(weight[part], terms.T)
        mixed = mixed[:, : len(a)] + mixed[:, len(a) :] if short else mixed
        mixed = torch.addmm(mixed, b[part], gram, beta=2, alpha=scaling)
        squared[part] = torch.add(base_squared[part], (mixed * b[part]).sum(1), alpha=scaling)
    return squared.clamp_min_(torch.finfo(torch.float32).tiny).sqrt_()


def _product(one: torch.Tensor, two: torch.Tensor) -> torch.Tensor:
    """``one @ two`` with sums in fp32. Factors in bf16 go through the units for bf16: their products are exact in fp32, so nothing more is rounded."""
    if two.dtype != torch.bfloat16:
        return one.float() @ two
    if one.device.type != "cpu":
        return torch.mm(one, two, out_dtype=torch.float32)
    with _products_of_bf16_numbers():
        return one.float() @ two.float()


@contextmanager
def _products_of_bf16_numbers() -> Iterator[None]:
    """fp32 tensors that hold bf16 numbers go through the CPU's units for bf16, which sum in fp32: nothing is rounded that was not before."""
    matmul = torch.backends.mkldnn.matmul
    before, matmul.fp32_precision = matmul.fp32_precision, "bf16"
    try:
        yield
    finally:
        matmul.fp32_precision = before


def _identity(tensor: torch.Tensor) -> tuple[Any, ...]:
    return (tensor.data_ptr(), tensor._version, tensor.dtype, tensor.device)


class _ScaledSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, base: torch.Tensor, low_rank: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        total = base + low_rank
        more = (scale - 1).to(total.dtype)
        ctx.dtypes, ctx.biased = (base.dtype, low_rank.dtype), bias is not None
        if bias is not None:
            total -= bias
            ctx.save_for_backward(more, scale, total)
            return torch.addcmul(total, total, more).add_(bias).to(base.dtype)
        found = total.addcmul_(total, more).to(base.dtype)
        ctx.save_for_backward(more, scale, found)
        return found

    @staticmethod
    def backward(ctx: Any, *incoming: Any) -> Any:
        more, scale, kept = ctx.saved_tensors
        (gradient,) = incoming
        change = torch.addcmul(gradient, gradient, more)
        by_row = torch.zeros_like(scale)
        tokens = max(1, CACHED_ELEMENTS // kept.shape[-1]) if kept.device.type == "cpu" else kept.numel()
        for one, other in zip(gradient.flatten(0, -2).split(tokens), kept.flatten(0, -2).split(tokens), strict=True):
            by_row += (one * other).sum(0, dtype=scale.dtype)
        if not ctx.biased:
            # What was kept is the output, the sum times the scale. A scale of 0 is that of a row of zeros: the sum is 0 as well.
            by_row = torch.where(scale == 0, by_row, by_row / scale)
        return change.to(ctx.dtypes[0]), change.to(ctx.dtypes[1]), by_row, None


def _scaled_sum(base: torch.Tensor, low_rank: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """``(base + low_rank - bias) * scale + bias``, the bias frozen.

    Written ``t + t (scale - 1)``: of the scale, which stays near 1, only the difference is rounded to the tensors' dtype, and the sum is taken in
    fp32 and rounded once. (The scale itself in bf16 would swallow a magnitude's change of 0.3 %; products of bf16 with fp32 took 7 times as long.)
    """
    found: torch.Tensor = _ScaledSum.apply(base, low_rank, scale, bias)
    return found
