"""The fast DoRA against stock peft: the same losses, gradients and files, whatever the shape, dtype and mode."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from runners.training import dora, precision

#: Largest difference of outputs and gradients, relative to their largest value. In bf16 both round at 2^-8 in each of six layers, in another order.
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 4e-2}


class Net(nn.Module):
    """Three linear layers, one used twice, two sharing a weight."""

    def __init__(self, width: int, middle: int, *, bias: bool, tied: bool) -> None:
        super().__init__()
        self.up, self.down, self.again = nn.Linear(width, middle, bias=bias), nn.Linear(middle, width, bias=bias), nn.Linear(middle, width, bias=bias)
        if tied:
            self.again.weight = self.down.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        middle = torch.tanh(self.up(x))
        return self.down(middle) + self.again(torch.tanh(self.up(self.down(middle))))


class Checkpointed(nn.Module):
    """The same, recomputed in the backward."""

    def __init__(self, net: nn.Module, *, reentrant: bool) -> None:
        super().__init__()
        self.net, self.reentrant = net, reentrant

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return checkpoint(self.net, x, use_reentrant=self.reentrant)


def pair(width: int = 24, middle: int = 40, *, dtype: torch.dtype = torch.float32, bias: bool = True, tied: bool = False, **more: Any) -> tuple[Any, Any]:
    """(stock, fast), equal and trained a little so that no factor is zero."""
    torch.manual_seed(0)
    config = LoraConfig(r=6, lora_alpha=12, use_dora=True, target_modules=["up", "down", "again"], **more)
    stock = get_peft_model(Net(width, middle, bias=bias, tied=tied).to(dtype), config)
    with torch.no_grad():
        for name, parameter in stock.named_parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * (0.1 if "magnitude" not in name else 0.02))
    fast = copy.deepcopy(stock)
    assert dora.install(fast) == 3
    return stock, fast


def run(model: Any, x: torch.Tensor, wrapped: Any = None) -> tuple[torch.Tensor, dict[str, torch.Tensor], torch.Tensor]:
    model.zero_grad()
    x = x.clone().requires_grad_()
    torch.manual_seed(7)
    out = (wrapped or model)(x)
    out.float().square().mean().backward()
    assert x.grad is not None
    return out.detach(), {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}, x.grad


def assert_equal_runs(one: Any, two: Any, tolerance: float) -> None:
    (out1, grads1, x1), (out2, grads2, x2) = one, two
    assert grads1.keys() == grads2.keys() and any("magnitude" in name for name in grads1)
    for name, (left, right) in {"output": (out1, out2), "input": (x1, x2), **{name: (grads1[name], grads2[name]) for name in grads1}}.items():
        worst = float((left.float() - right.float()).abs().max() / left.float().abs().max())
        assert worst <= tolerance, f"{name}: {worst:.2e}"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize(("width", "middle"), [(24, 40), (17, 129), (64, 3), (1, 7)])
def test_outputs_and_gradients_equal_pefts(width: int, middle: int, dtype: torch.dtype) -> None:
    stock, fast = pair(width, middle, dtype=dtype)
    x = torch.randn(3, 5, width).to(dtype)
    assert_equal_runs(run(stock, x), run(fast, x), TOLERANCE[dtype])


def test_in_bf16_we_are_as_near_to_fp64_as_peft_is() -> None:
    stock, fast = pair(96, 160, dtype=torch.bfloat16)
    x = torch.randn(4, 7, 96).bfloat16()
    exact = run(copy.deepcopy(stock).double(), x.double())

    def error(found: Any) -> float:
        pairs = [(exact[0], found[0]), (exact[2], found[2]), *((exact[1][name], found[1][name]) for name in exact[1])]
        return float(torch.stack([(right.double() - left).norm() / left.norm() for left, right in pairs]).mean())

    assert error(run(fast, x)) <= 1.1 * error(run(stock, x))


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_dropout_bias_and_tied_weights(dropout: float, bias: bool, tied: bool) -> None:
    stock, fast = pair(bias=bias, tied=tied, lora_dropout=dropout)
    x = torch.randn(11, 24)
    assert_equal_runs(run(stock, x), run(fast, x), TOLERANCE[torch.float32])


@pytest.mark.parametrize("reentrant", [True, False], ids=["reentrant", "non-reentrant"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_gradient_checkpointing(reentrant: bool, dropout: float) -> None:
    stock, fast = pair(lora_dropout=dropout)
    x = torch.randn(9, 24)
    expected = run(stock, x, Checkpointed(stock, reentrant=reentrant))
    assert_equal_runs(expected, run(fast, x, Checkpointed(fast, reentrant=reentrant)), TOLERANCE[torch.float32])


def test_files_are_pefts(tmp_path: Path) -> None:
    stock, fast = pair()
    stock.save_pretrained(str(tmp_path / "stock"))
    fast.save_pretrained(str(tmp_path / "fast"))
    ours, theirs = (load_file(tmp_path / kind / "adapter_model.safetensors") for kind in ("fast", "stock"))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    torch.manual_seed(0)
    again = PeftModel.from_pretrained(Net(24, 40, bias=True, tied=False), str(tmp_path / "fast"))
    set_peft_model_state_dict(again, ours)
    x = torch.randn(5, 24)
    assert torch.allclose(again(x), fast.eval()(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("size", [1e-6, 1e-2, 1.0])
@pytest.mark.parametrize("units", [True, False], ids=["units for bf16", "none"])
def test_the_norm_against_fp64(dtype: torch.dtype, size: float, units: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """No cancellation that fp32 does not bear, from a hardly trained adapter to one as large as the weight; whatever the CPU multiplies bf16 with."""
    monkeypatch.setattr(precision, "has_bf16_units", lambda: units)
    torch.manual_seed(0)
    weight, a, b = (torch.randn(96, 200) * 0.02).to(dtype), torch.randn(16, 200) / 14, torch.randn(96, 16) * size
    exact = torch.linalg.vector_norm(weight.double() + 2 * b.double() @ a.double(), dim=1)
    found = dora.factored_norm(weight, a, b, 2.0, torch.linalg.vector_norm(weight, dim=1, dtype=torch.float32).square())
    assert float(((found - exact) / exact).abs().max()) < 2e-6


@pytest.mark.parametrize("bias", [True, False])
def test_a_row_of_zeros_has_no_norm_and_still_trains(bias: bool) -> None:
    """Its magnitude is 0 and so is its norm: peft divides 0 by 0, and every loss after it is nothing."""
    torch.manual_seed(0)
    net = Net(8, 6, bias=bias, tied=False)
    with torch.no_grad():
        net.up.weight[2] = 0
    fast = get_peft_model(net, LoraConfig(r=2, use_dora=True, target_modules=["up"]))
    dora.install(fast)
    fast(torch.randn(5, 8)).square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in fast.parameters() if p.requires_grad)


def test_cancellation_is_bounded() -> None:
    """The worst case: the adapter takes the weight away. The error stays a small part of the weight's own norm."""
    torch.manual_seed(0)
    a, b = torch.randn(4, 50), torch.randn(30, 4)
    weight = -(b @ a) * (1 - 1e-3)
    exact = torch.linalg.vector_norm(weight.double() + b.double() @ a.double(), dim=1)
    found = dora.factored_norm(weight, a, b, 1.0, weight.square().sum(1))
    assert float(((found - exact) / weight.norm(dim=1)).abs().max()) < 2e-3


class Operations(TorchDispatchMode):
    """Counts operations (each a kernel on a card) and the largest result."""

    def __init__(self) -> None:
        super().__init__()
        self.count = self.largest_bytes = 0

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = operation(*args, **(kwargs or {}))
        if isinstance(found, torch.Tensor) and operation not in VIEWS:
            self.count, self.largest_bytes = self.count + 1, max(self.largest_bytes, found.numel() * found.element_size())
        return found


VIEWS = (torch.ops.aten.slice.Tensor, torch.ops.aten.t.default)


@pytest.mark.parametrize("out, width", [(5120, 5120), (1024, 5120), (13824, 5120), (5120, 13824)])
def test_a_card_takes_a_matrix_whole(out: int, width: int) -> None:
    """Shapes of the 14B on the meta device, which goes the way of a card: 20 kernels a matrix, 6,720 a step of 336 of them, and no copy of W.

    In blocks of 8 MiB it was 33 blocks for the widest, and about 66,000 kernels a step.
    """
    weight = torch.empty(out, width, device="meta", dtype=torch.bfloat16)
    a, b = torch.empty(128, width, device="meta"), torch.empty(out, 128, device="meta")
    with Operations() as squares:
        base_squared = dora.row_squares(weight)
    with Operations() as norm:
        found = dora.factored_norm(weight, a, b, 2.0, base_squared)
    assert found.shape == (out,) and found.dtype == torch.float32
    assert squares.count <= 3 and squares.largest_bytes == 4 * out
    assert norm.count <= 20 and norm.largest_bytes <= 4 * 256 * max(out, width)
