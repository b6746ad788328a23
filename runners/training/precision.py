"""The number type that every stage computes in, chosen by what the machine multiplies in hardware.

bf16 on a CPU without bf16 units is emulated: one MLP product of SmolLM2-135M took 22 ms in fp32 and 177 to 198 ms in bf16 on AVX2.
Training, quantization, gates and serving ask here, so that no stage decides for itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch


def has_bf16_units() -> bool:
    """Whether the CPU multiplies bf16 in hardware (AVX512_BF16, AMX, or ARM's bf16) and oneDNN may use it.

    oneDNN's own answer respects ONEDNN_MAX_CPU_ISA but is also true on AVX-512 without bf16 units; the CPU's flags are the other half.
    """
    import torch

    has = torch.cpu.get_capabilities()
    return bool(any(has.get(flag) for flag in ("avx512_bf16", "amx_bf16", "bf16")) and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def compute_dtype(device: str, precision: Literal["bf16", "fp32"] = "bf16") -> torch.dtype:
    """The number type to compute in: bf16 where it was asked for and the hardware has it, else fp32.

    Args:
        device: ``cuda`` or ``cpu``.
        precision: what the spec asks for.
    """
    import torch

    quick = device.startswith("cuda") or has_bf16_units()
    return torch.bfloat16 if precision == "bf16" and quick else torch.float32


def serving_dtype(*, quantized: bool) -> Literal["auto", "float32"]:
    """vLLM's ``--dtype`` on a CPU. Measured: unquantized models batch three times better in fp32; AWQ needs the checkpoint's own type."""
    return "auto" if quantized else "float32"
