"""DoRA without its cost: a drop-in for peft's linear DoRA layers, equal in numbers and in files.

peft multiplies ``B @ A`` out (as large as the weight itself) in every forward, to take the norm of each row of
``W + s B A``. That norm is a constant of the graph (section 4.3 of https://arxiv.org/abs/2402.09353) and changes only when
a weight does: once an optimizer step. So

* it is computed from the factors, ``||W||^2 + 2 s rowsum((W A^T) * B) + s^2 rowsum((B (A A^T)) * B)``, in fp32 whatever
  the weights are, so that no copy of ``B @ A`` is made, nor of W: on a CPU it goes over blocks of rows, on a card it is taken whole;
* it is kept until A, B or W may have changed, so evaluation and checkpoint recomputation reuse it, and all micro-batches of a step;
* magnitude, base and low-rank parts are put together in one step that saves one tensor for the backward, not three.

A kept norm is dropped when the generation changes, a number that everything raises that writes weights: each torch optimizer's
step, a merge, and whoever calls ``written()``. Beside that each layer watches for gradients that went through it (some
optimizer will use them), and for another tensor, address or version counter. A training loop that knows its writers turns the watching off with
``declared_writes()``: the generation alone counts then, one norm a step, whatever a sharded model does with its storage. With
``ELSON_CHECK_DORA=1`` each reuse is checked against a new norm, and a stale one raises ``StaleNorm``.

Limits: a second derivative raises; under torch.compile and the transforms of torch.func nothing is kept. What is written through
``tensor.data`` without a gradient, an optimizer or a merge leaves no trace: call ``written()`` after it.

Derivation, error bounds and figures: runners/training/DORA.md. Left out: embeddings, convolutions and quantized base layers,
which keep peft's own code.

    model = get_peft_model(base, LoraConfig(use_dora=True, ...)); dora.install(model)
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from peft.tuners.lora.layer import Linear
from peft.tuners.lora.variants import DoraLinearVariant
from torch import nn
from torch.autograd.function import once_differentiable
from torch.optim.optimizer import register_optimizer_step_post_hook

from runners.training import dora_card, precision

#: Rows of W in fp32 at once on a CPU: 8 MiB. On a card so small a product costs more to start than to compute.
BLOCK_BYTES = 8 << 20
#: A product that is only summed goes through a CPU in pieces of this many elements, which stay in its cache: three times as fast as whole.
CACHED_ELEMENTS = 1 << 19
#: The least scale of a row: at 0 the kept output would hold nothing, and the magnitude would never get a gradient again.
LEAST_SCALE = 2.0**-20
#: Compute every kept norm again at each use and compare.
check = os.environ.get("ELSON_CHECK_DORA", "") not in ("", "0")
#: The generation: how often weights were written, and optimizers stepped. And how many promises of ``declared_writes`` hold.
_writes, _steps, _declared = [0], [0], [0]


class StaleNorm(RuntimeError):
    """A weight was written and nobody said so (found with ``ELSON_CHECK_DORA=1``)."""


def written() -> None:
    """Drop every kept norm: weights were changed. Torch's optimizers and peft's merges say so by themselves."""
    _writes[0] += 1


def _stepped(*_: Any) -> None:
    _steps[0] += 1


register_optimizer_step_post_hook(_stepped)


@contextmanager
def declared_writes() -> Iterator[None]:
    """A promise that inside weights change only by ``torch.optim`` optimizers, or with a call of ``written()``."""
    written()
    _declared[0] += 1
    try:
        yield
    finally:
        _declared[0] -= 1
        written()


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


@dataclass(frozen=True)
class _Kept:
    """A value and what it was computed from. The references are weak: an address is used again, an object is not."""

    value: torch.Tensor
    generation: tuple[Any, ...]
    tensors: tuple[weakref.ref[torch.Tensor], ...]
    marks: tuple[Any, ...]

    @staticmethod
    def of(value: torch.Tensor, generation: tuple[Any, ...], tensors: tuple[torch.Tensor, ...]) -> _Kept:
        return _Kept(value, generation, tuple(map(weakref.ref, tensors)), _marks(tensors))

    def holds(self, generation: tuple[Any, ...], tensors: tuple[torch.Tensor, ...]) -> bool:
        """Whether the value is still that of these tensors. Writes to tensors made in inference mode are not counted by torch: never."""
        if _declared[0] or generation != self.generation:
            return generation == self.generation
        same = all(not one.is_inference() and kept() is one for kept, one in zip(self.tensors, tensors, strict=True))
        return same and self.marks == _marks(tensors)


def _marks(tensors: tuple[torch.Tensor, ...]) -> tuple[Any, ...]:
    return tuple((None if one.is_inference() else one._version, one.data_ptr(), one.dtype, one.device) for one in tensors)


class FastDora(DoraLinearVariant):
    """One layer's adapter. Holds the norm and what it was computed from; none of it is part of the state dict."""

    def __init__(self) -> None:
        self._squares: _Kept | None = None
        self._norm: _Kept | None = None
        self._factors: dora_card.Factors | None = None
        #: Gradients went back through the layer since the norm was computed.
        self.differentiated = False

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __setstate__(self, _: dict[str, Any]) -> None:
        FastDora.__init__(self)

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
        magnitude = module.lora_magnitude_vector[active_adapter].weight
        if _is_transformed():
            with torch.autocast(x.device.type, enabled=False):
                norm = factored_norm(layer.weight, lora_a.weight, lora_b.weight, scaling, row_squares(layer.weight))
        else:
            norm = self.norm(layer.weight, lora_a.weight, lora_b.weight, scaling, tuple(module.merged_adapters))
            if dora_card.applies(module, active_adapter, x, result):
                if not (self._factors and self._factors.holds(norm, magnitude)):
                    self._factors = dora_card.Factors(self, lora_a.weight, lora_b.weight, magnitude, norm, scaling, layer.weight.dtype)
                return dora_card.scaled_sum(x, result, layer.weight, bias, (lora_a.weight, lora_b.weight, magnitude), self._factors)
        scale = magnitude / norm
        if isinstance(dropout, nn.Identity) or not module.training:
            return self._scaled_sum(result, lora_b(lora_a(x) * scaling), scale, bias)
        # With dropout peft takes the change of the base part on the dropped input as well.
        dropped = dropout(x)
        again = nn.functional.linear(dropped.to(layer.weight.dtype), layer.weight)
        return result + (self._scaled_sum(again, lora_b(lora_a(dropped) * scaling), scale, None) - again)

    def norm(self, weight: torch.Tensor, lora_a: torch.Tensor, lora_b: torch.Tensor, scaling: float, merged: tuple[str, ...] = ()) -> torch.Tensor:
        """[out], the row norms of ``W + s B A`` in fp32: the kept ones, unless something may have changed. ``merged``: what peft has merged into W."""
        tensors, generation = (weight, lora_a, lora_b), (_writes[0], _steps[0], scaling, merged)
        # An optimizer's step does not change a frozen W.
        base_generation = (_writes[0], _steps[0] if weight.requires_grad else None, merged)
        # Not in inference mode: what is kept is used in training as well.
        with torch.inference_mode(False), torch.no_grad(), torch.autocast(weight.device.type, enabled=False):
            kept, squares = self._norm, self._squares
            if kept and kept.holds(generation, tensors) and (_declared[0] or not self.differentiated):
                if check and not torch.allclose(kept.value, factored_norm(*tensors, scaling, row_squares(weight)), rtol=1e-5, equal_nan=True):
                    raise StaleNorm("a weight was written, and the norm from before it was about to be used: call runners.training.dora.written() after it")
                return kept.value
            if not squares or not squares.holds(base_generation, (weight,)):
                self._squares = squares = _Kept.of(row_squares(weight), base_generation, (weight,))
            self._norm = kept = _Kept.of(factored_norm(*tensors, scaling, squares.value), generation, tensors)
            self.differentiated = False
            return kept.value

    def merge_safe(self, *arguments: Any, **more: Any) -> Any:
        """As peft's; W changes."""
        written()
        return DoraLinearVariant.merge_safe(*arguments, **more)

    def merge_unsafe(self, *arguments: Any, **more: Any) -> Any:
        """As peft's; W changes."""
        written()
        return DoraLinearVariant.merge_unsafe(*arguments, **more)

    def unmerge(self, *arguments: Any, **more: Any) -> Any:
        """As peft's; W changes."""
        written()
        return DoraLinearVariant.unmerge(*arguments, **more)

    def _scaled_sum(self, base: torch.Tensor, low_rank: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """``(base + low_rank - bias) * scale + bias``, the bias frozen."""
        if _is_transformed():
            total = (base if bias is None else base - bias) + low_rank
            return (total * scale if bias is None else total * scale + bias).to(base.dtype)
        found: torch.Tensor = _ScaledSum.apply(self, base, low_rank, scale, bias)
        return found


def _is_transformed() -> bool:
    """Under torch.compile or a transform of torch.func: plain operations, nothing kept."""
    return bool(torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active())


def _row_blocks(weight: torch.Tensor) -> Iterator[slice]:
    blocks = weight.device.type == "cpu" and not _is_transformed()
    rows = max(1, BLOCK_BYTES // (4 * weight.shape[1])) if blocks else len(weight)
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
    a, b = lora_a.float(), lora_b.float()
    gram = a @ a.T
    short = weight.dtype == torch.bfloat16 and not _is_transformed() and (weight.device.type != "cpu" or precision.has_bf16_units())
    # A bf16 number and the bf16 number of what is left: together A to 2^-17 of itself.
    terms = torch.cat([high := a.bfloat16(), (a - high).bfloat16()]) if short else a
    squared = []
    for part in _row_blocks(weight):
        mixed = _product(weight[part], terms.T)
        mixed = mixed[:, : len(a)] + mixed[:, len(a) :] if short else mixed
        mixed = torch.addmm(mixed, b[part], gram, beta=2, alpha=scaling)
        squared.append(torch.add(base_squared[part], (mixed * b[part]).sum(1), alpha=scaling))
    return torch.cat(squared).clamp_min_(torch.finfo(torch.float32).tiny).sqrt_()


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


class _ScaledSum(torch.autograd.Function):
    """``(base + low_rank - bias) * scale + bias``, the bias frozen. Without a bias the output is kept, and the sum is the output over the scale."""

    @staticmethod
    def forward(ctx: Any, layer: FastDora, base: torch.Tensor, low_rank: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        total = base + low_rank
        scale = torch.where(scale.abs() < LEAST_SCALE, LEAST_SCALE, scale)
        # fp16 has no room for a small scale.
        ctx.keeps_sum = bias is not None or torch.float16 in (total.dtype, base.dtype)
        ctx.layer, ctx.dtypes = layer, (base.dtype, low_rank.dtype)
        if bias is not None:
            total -= bias
        found = _times(total, scale, torch.empty_like(total) if ctx.keeps_sum else total)
        found = (found if bias is None else found.add_(bias)).to(base.dtype)
        ctx.save_for_backward(scale, total if ctx.keeps_sum else found)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *incoming: Any) -> Any:
        scale, kept = ctx.saved_tensors
        (gradient,) = incoming
        ctx.layer.differentiated = True
        change = _times(gradient, scale, torch.empty_like(gradient))
        by_row = torch.zeros_like(scale)
        tokens = max(1, CACHED_ELEMENTS // kept.shape[-1]) if kept.device.type == "cpu" else max(1, kept.numel())
        rows = [tensor.reshape(-1, kept.shape[-1]).split(tokens) for tensor in (gradient, kept)]
        for one, other in zip(*rows, strict=True):
            by_row += (one * other).sum(0, dtype=scale.dtype)
        return None, change.to(ctx.dtypes[0]), change.to(ctx.dtypes[1]), by_row if ctx.keeps_sum else by_row / scale, None


def _times(total: torch.Tensor, scale: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """``total * scale`` into ``out``, the product in fp32 and rounded once.

    A CPU makes fp32 copies for a product of bf16 with fp32 (7 times as long). Scales near 1 are written ``t + t (scale - 1)`` there: only the
    difference is rounded to bf16. (The scale itself in bf16 would swallow a magnitude's change of 0.3 %.)
    """
    if total.device.type != "cpu" or total.dtype == scale.dtype or bool(((scale - 1).abs() > 0.5).any()):
        return torch.mul(total, scale, out=out)
    return torch.addcmul(total, total, (scale - 1).to(total.dtype), out=out)
