"""The number type of a CPU: the hardware decides, and oneDNN's own limit counts as hardware."""

import os
import subprocess
import sys

import pytest
import torch

from runners.training import precision

ASK = "from runners.training.precision import compute_dtype as f; print(f('cpu'), f('cpu', 'fp32'), f('cuda'))"


def asked(**environment: str) -> list[str]:
    found = subprocess.run([sys.executable, "-c", ASK], env={**os.environ, **environment}, capture_output=True, text=True, check=True)
    return found.stdout.split()


def test_a_cpu_limited_to_avx2_computes_in_fp32() -> None:
    assert asked(ONEDNN_MAX_CPU_ISA="AVX2", ATEN_CPU_CAPABILITY="avx2") == ["torch.float32", "torch.float32", "torch.bfloat16"]


@pytest.mark.parametrize("flags, onednn, expected", [({"avx512_bf16": True}, True, torch.bfloat16), ({"amx_bf16": True}, True, torch.bfloat16),
    ({"avx512_f": True, "avx512_bf16": False}, True, torch.float32), ({"avx512_bf16": True}, False, torch.float32)])  # fmt: skip
def test_bf16_needs_the_units_and_onednn(flags: dict[str, bool], onednn: bool, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: flags)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: onednn)
    assert precision.compute_dtype("cpu") is expected
    assert precision.compute_dtype("cpu", "fp32") is torch.float32


def test_commands_let_idle_threads_sleep() -> None:
    program = "import os; from runners.commands import cli; cli.cli.main = lambda **_: print(os.environ['OMP_WAIT_POLICY']); cli.main()"
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    assert subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True).stdout == "PASSIVE\n"
