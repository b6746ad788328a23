"""An EAGLE-3 head in 4 bits: the matrices of its layer and its projection in AWQ's GEMM layout; norms and output layer stay in bf16.

vLLM gives a draft the quantization of the draft's own config.json (``get_draft_quant_config``), and loads the layers as it loads a model's. The output layer
stays as it is, as the model's does: of a 14B's head it is a tenth.

Rounded to nearest, without calibration: what rounding costs is a drafted token, never an answer, and the gate of ``head.py`` counts how many.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from runners.compression import packed
from runners.training import eagle

_SIZES = (128, 64, 32)
#: vLLM's kernels take outputs in such multiples (``CPUWNA16LinearKernel``; Marlin pads).
_OUTPUTS = 32


def group_size(config: dict[str, Any]) -> int | None:
    """The largest group that divides the width of every matrix of a head; None where none does, or an output fits no kernel."""
    attention, cache = (config[name] * config["head_dim"] for name in ("num_attention_heads", "num_key_value_heads"))
    widths = config["hidden_size"], config["intermediate_size"], attention
    if any(width % _OUTPUTS for width in (*widths, cache)):
        return None
    return next((size for size in _SIZES if not any(width % size for width in widths)), None)


def quantization(size: int) -> dict[str, Any]:
    """``quantization_config`` as a server must read it. The output layer is named: left out, vLLM opens the weights to find what is packed."""
    return {"quant_method": "awq", "zero_point": True, "group_size": size, "bits": 4, "version": "gemm", "modules_to_not_convert": ["lm_head"]}


def write(source: Path, dest: Path, size: int) -> Path:
    """Write a head's folder again, in 4 bits and groups of ``size``, complete or not at all."""
    from safetensors.torch import load_file, save_file

    partial = dest.parent / f".{dest.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in load_file(source / eagle.WEIGHTS).items():
        stem = name.removesuffix(".weight")
        made = dict(zip(packed.GEMM, _rounded(tensor.float(), size), strict=True)) if _is_packed(stem, tensor) else None
        tensors |= {f"{stem}.{part}": found for part, found in made.items()} if made else {name: tensor}
    save_file(tensors, partial / eagle.WEIGHTS, metadata={"format": "pt"})
    config = json.loads((source / "config.json").read_text()) | {"quantization_config": quantization(size)}
    (partial / "config.json").write_text(json.dumps(config, indent=2))
    for file in partial.iterdir():
        file.chmod(0o644)
    shutil.rmtree(dest, ignore_errors=True)
    partial.rename(dest)
    return dest


def read(folder: Path, model: Any) -> tuple[eagle.Head | None, list[str]]:
    """A head as it is in a folder, in 16 or in 4 bits, on the model's device, and what is wrong with it (``eagle.assembled``)."""
    from safetensors.torch import load_file

    config, tensors = json.loads((folder / "config.json").read_text()), load_file(folder / eagle.WEIGHTS)
    said = config.get("quantization_config")
    if said is None:
        return eagle.assembled(config, tensors, model)
    size = group_size(eagle.config_of(model.config.to_dict(), 0))
    if size is None or said != quantization(size):
        return None, [f"config.json: quantization_config is {said}, and {size and quantization(size)} for this model"]
    problems, plain = [], dict(tensors)
    for stem in sorted(name.removesuffix(".qweight") for name in tensors if name.endswith(".qweight")):
        parts = [plain.pop(f"{stem}.{part}", None) for part in packed.GEMM]
        try:
            words, zeros, scales = (part for part in parts if part is not None)
            plain[f"{stem}.weight"] = packed.from_gemm(words, zeros, scales).plain()
        except (ValueError, RuntimeError) as error:
            problems.append(f"{stem} is no matrix in 4 bits: {str(error)[:200]}")
    left = (name for name, tensor in tensors.items() if name.endswith(".weight") and _is_packed(name.removesuffix(".weight"), tensor))
    problems += [f"{name} is not in 4 bits" for name in left]
    head, found = eagle.assembled(config, plain, model)
    return head, [*problems, *found]


def _is_packed(stem: str, tensor: torch.Tensor) -> bool:
    return tensor.ndim == 2 and stem != "lm_head"


def _rounded(weight: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """[out, in] -> the words [in, out / 8] of values and [groups, out / 8] of zero points, and the scales [groups, out] in fp16."""
    groups = weight.unflatten(1, (-1, size))
    # Zero is in every group, so that a zero point is a value of 0..15; the scale is rounded first: values and zero points belong to the one that is stored.
    high, low = groups.amax(-1).clamp_min(0), groups.amin(-1).clamp_max(0)
    scales = ((high - low).clamp_min(1e-5) / packed.LARGEST_CODE).half()
    wide = scales.float()
    zeros = (-torch.round(low / wide)).clamp(0, packed.LARGEST_CODE)
    values = (torch.round(groups / wide[..., None]) + zeros[..., None]).clamp(0, packed.LARGEST_CODE).flatten(1)
    return _words(values.T), _words(zeros.T), scales.T.contiguous()


def _words(values: torch.Tensor) -> torch.Tensor:
    """[a, b] values of 0..15 -> [a, b / 8] int32 words in the GEMM order; ``packed.unpack`` is its inverse."""
    octets = values.unflatten(1, (-1, 8)).to(torch.int32)
    words = torch.zeros_like(octets[..., 0])
    for index, place in enumerate(packed.GEMM_ORDER):
        words |= octets[..., place] << (4 * index)
    return words.contiguous()
