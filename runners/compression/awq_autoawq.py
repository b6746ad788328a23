"""AWQ through autoawq 0.2.9, patched: https://arxiv.org/abs/2306.00978, https://github.com/casper-hansen/AutoAWQ (archived).

What is changed, all of it through the ``quantizer_cls`` that autoawq offers:

* ``quantize/quantizer.py:393`` keeps the weights to restore with ``v.cpu()``, which on a CPU is the live weight and no copy:
  each of the 20 trials starts from the ruins of the last, and the model is destroyed without an error (perplexity 100,000).
  The scales are searched here on copies.
* The clipping search made a [rows, 512 tokens, groups, group size] tensor per trial and took every n-th token. Its error is
  a quadratic form, ``mean((x . d)^2) = d (X^T X / T) d^T``, so one small matrix a group gives it for all tokens, exactly.
* Packing looped over columns in Python; it is one tensor operation.
* Trial weights are rounded in fp32 whatever the model computes in.

The files are autoawq's: AWQ GEMM, ``quant_method: awq``, zero point, which vLLM and transformers read.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from runners import log
from runners.compression.packed import GEMM_ORDER
from runners.spec import QuantizeSpec
from runners.training import precision

with warnings.catch_warnings(record=True):
    # It says at import that it is archived, as this file does, and switches such warnings on to be heard.
    from awq import AutoAWQForCausalLM
    from awq.modules.linear import WQLinear_GEMM
    from awq.quantize.quantizer import AwqQuantizer
    from awq.utils.module import set_op_by_name

#: Trials of the search: exponents 0, 0.05, ... 0.95 of the activations' size.
TRIALS = 20
#: Clipping thresholds tried: 1, 0.95, ... 0.55 of the largest weight of a group.
CLIPS, CLIP_STEP = 10, 0.05


def run(merged: Path, dest: Path, blocks: list[list[int]], settings: QuantizeSpec, device: str) -> None:
    """Quantize ``merged`` into ``dest``.

    Args:
        merged: folder of a plain bf16 model.
        dest: an empty folder.
        blocks: calibration rows of equal length.
        settings: bits, group size.
        device: where the search runs; autoawq moves one decoder layer at a time to a card.
    """
    dtype = precision.compute_dtype(device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = AutoAWQForCausalLM.from_pretrained(str(merged), device_map="cpu", torch_dtype=dtype, local_files_only=True)
        config = {"zero_point": True, "q_group_size": settings.group_size, "w_bit": settings.bits, "version": "GEMM"}
        longest = len(blocks[0])
        model.quantize(None, quant_config=config, calib_data=blocks, max_calib_samples=len(blocks), max_calib_seq_len=longest, quantizer_cls=MendedQuantizer)
    model.model.half()
    model.model.config.dtype = torch.float16
    model.save_quantized(str(dest), shard_size="1GB")


class MendedQuantizer(AwqQuantizer):
    """autoawq's quantizer with a search that leaves the weights alone."""

    def quantize(self) -> None:
        """Quantize layer by layer, with progress in our own log."""
        with log.progress("quantize", len(self.modules), "layers") as progress, _without_bars():
            self._progress = progress
            super().quantize()

    @torch.no_grad()
    def _compute_best_scale(self, x: Any, w_mean: Any, x_mean: Any, module2inspect: Any, linears2scale: Any, fp16_output: Any, kwargs: Any = None) -> Any:
        """The scale per input channel that changes the module's output least (section 3.2 of the paper)."""
        kept = [layer.weight.detach().clone() for layer in linears2scale]
        x_mean, w_mean = x_mean.view(-1).float().to(x.device), w_mean.view(-1).float().to(x.device)
        best_error, best = float("inf"), None
        for trial in range(TRIALS):
            ratio = trial / TRIALS
            scales = (x_mean.pow(ratio) / (w_mean.pow(1 - ratio) + 1e-4)).clamp(min=1e-4) if self.duo_scaling else x_mean.pow(ratio).clamp(min=1e-4)
            scales = scales / (scales.max() * scales.min()).sqrt()
            scales[~torch.isfinite(scales)] = 1
            for layer, weight in zip(linears2scale, kept, strict=True):
                layer.weight.copy_(self.pseudo_quantize_tensor(weight.float() * scales)[0] / scales)
            error = self._compute_loss(fp16_output, self._module_forward(x, module2inspect, kwargs or {}), x.device)
            if error < best_error:
                best_error, best = error, scales.clone()
        for layer, weight in zip(linears2scale, kept, strict=True):
            layer.weight.copy_(weight)
        if best is None:
            raise RuntimeError("no scale gave a finite error: the model's activations overflow")
        return best.detach().cpu()

    @torch.no_grad()
    def _compute_best_clip(self, w: Any, input_feat: Any, n_grid: int = 20, max_shrink: float = 0.5, n_sample_token: int = 512) -> Any:
        """[out, groups, 1], the clipping threshold of each group that changes the layer's output least."""
        size = self.group_size
        weight = w.float().reshape(len(w), -1, size).transpose(0, 1)  # groups, out, size
        tokens = input_feat.reshape(-1, weight.shape[0], size).float().transpose(0, 1).to(w.device)  # groups, tokens, size
        gram = tokens.transpose(1, 2) @ tokens / tokens.shape[1]
        largest = weight.abs().amax(-1, keepdim=True)
        best, smallest = largest.clone(), torch.full_like(largest, torch.inf)
        for trial in range(CLIPS):
            bound = largest * (1 - trial * CLIP_STEP)
            clipped = weight.clamp(-bound, bound)
            change = self.pseudo_quantize_tensor(clipped.reshape(-1, size))[0].reshape_as(weight) - weight
            error = ((change @ gram) * change).sum(-1, keepdim=True)
            better = error < smallest
            smallest, best = torch.where(better, error, smallest), torch.where(better, bound, best)
        return best.transpose(0, 1).to(w.dtype)

    @torch.no_grad()
    def _apply_quant(self, module: Any, named_linears: dict[str, Any]) -> None:
        """Replace each linear layer by its packed form."""
        for name, layer in named_linears.items():
            set_op_by_name(module, name, packed(layer, self.w_bit, self.group_size))
        self._progress.advance()


@torch.no_grad()
def packed(layer: Any, bits: int, group_size: int) -> Any:
    """A linear layer in AWQ's GEMM form; equals autoawq's ``WQLinear_GEMM.from_linear``."""
    out, width = layer.weight.shape
    groups = layer.weight.detach().float().reshape(out, width // group_size, group_size)
    high, low = groups.amax(-1), groups.amin(-1)
    # The scale is rounded to fp16 first: values and zero points belong to the scale that is stored.
    scales = ((high - low).clamp(min=1e-5) / (2**bits - 1)).half()
    wide = scales.float()
    zeros = (-torch.round(low / wide)).clamp(0, 2**bits - 1)
    values = (torch.round(groups / wide[..., None]) + zeros[..., None]).clamp(0, 2**bits - 1).reshape(out, width)
    found = WQLinear_GEMM(bits, group_size, width, out, layer.bias is not None, layer.weight.device)
    found.qweight, found.qzeros, found.scales = _words(values.T), _words(zeros.T), scales.T.contiguous()
    if layer.bias is not None:
        found.bias = layer.bias.detach().clone().half()
    return found


def _words(values: torch.Tensor) -> torch.Tensor:
    """[a, b] values of 0..15 -> [a, b / 8] int32 words in the GEMM order."""
    octets = values.reshape(len(values), -1, 8).to(torch.int64)
    total = sum(octets[..., place] << (4 * index) for index, place in enumerate(GEMM_ORDER))
    return torch.where(total >= 2**31, total - 2**32, total).to(torch.int32).contiguous()


@contextmanager
def _without_bars() -> Iterator[None]:
    """autoawq draws its own bars with tqdm; a log wants lines."""
    from awq.quantize import quantizer

    bars, quantizer.tqdm = quantizer.tqdm, lambda items, **_: items
    try:
        yield
    finally:
        quantizer.tqdm = bars
