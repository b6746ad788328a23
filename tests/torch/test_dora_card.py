"""The card's form of a DoRA layer: the numbers of stock peft, and few kernels. Run here on the CPU; tests/gpu runs it on a card."""

from __future__ import annotations

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from runners.training import dora, dora_card


def layers(bias: bool, dtype: torch.dtype) -> tuple[nn.Module, nn.Module]:
    """(stock, ours in the card's form): two adapted layers with factors that are not zero."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(48, 80, bias=bias), nn.Linear(80, 32, bias=bias)).to(dtype)
    stock = get_peft_model(net, LoraConfig(r=8, lora_alpha=24, use_dora=True, target_modules=["0", "1"]))
    with torch.no_grad():
        for name, parameter in stock.named_parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * (0.1 if "magnitude" not in name else 0.02))
    ours = copy.deepcopy(stock)
    assert dora.install(ours) == 2
    for module in ours.modules():
        if hasattr(module, "lora_A"):
            module.cast_input_dtype_enabled = False
    return stock, ours


def run(model: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    model.zero_grad()
    x = x.detach().clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=x.dtype == torch.bfloat16):
        out = model(x)
    out.float().square().sum().backward()
    assert x.grad is not None
    return [out.detach(), x.grad, *(parameter.grad for parameter in model.parameters() if parameter.grad is not None)]


@pytest.fixture
def as_on_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dora_card, "applies", lambda module, adapter, x, base: True)


@pytest.mark.usefixtures("as_on_a_card")
@pytest.mark.parametrize("bias", [True, False])
def test_it_gives_the_numbers_of_stock_peft(bias: bool) -> None:
    stock, ours = layers(bias, torch.float32)
    x = torch.randn(2, 7, 48)
    for one, two in zip(run(stock, x), run(ours, x), strict=True):
        assert float((one - two).norm() / one.norm()) < 2e-6


@pytest.mark.usefixtures("as_on_a_card")
@pytest.mark.parametrize("bias", [True, False])
def test_in_bf16_it_is_no_further_from_the_truth_than_stock_peft(bias: bool) -> None:
    stock, ours = layers(bias, torch.bfloat16)
    truth = copy.deepcopy(stock).float()
    x = torch.randn(2, 70, 48, dtype=torch.bfloat16)
    exact = run(truth, x.float())
    for right, theirs, mine in zip(exact, run(stock, x), run(ours, x), strict=True):
        errors = [float((one.float() - right).norm() / right.norm()) for one in (theirs, mine)]
        assert errors[1] < 1.1 * errors[0] + 1e-3


@pytest.mark.usefixtures("as_on_a_card")
def test_an_update_of_each_factor_is_noticed() -> None:
    stock, ours = layers(True, torch.float32)
    optimizers = [torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.05, fused=True) for model in (stock, ours)]
    x = torch.randn(3, 48)
    for _ in range(3):
        found = [run(model, x)[0] for model in (stock, ours)]
        assert torch.allclose(*found, rtol=1e-4, atol=1e-5)
        for optimizer in optimizers:
            optimizer.step()
    with torch.no_grad():
        for model in (stock, ours):
            for name, parameter in model.named_parameters():
                if "magnitude" in name:
                    parameter.mul_(1.5)
    assert torch.allclose(run(stock, x)[0], run(ours, x)[0], rtol=1e-4, atol=1e-5)


#: Operations that run no kernel.
VIEWS = {"view", "t", "detach", "_unsafe_view", "reshape", "transpose", "permute", "expand", "alias", "empty_like", "_reshape_alias", "unsqueeze"}


class Counted(TorchDispatchMode):
    """Counts the operations that would be kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function, types, arguments=(), more=None):  # type: ignore[no-untyped-def]
        name = function.overloadpacket.__name__
        if name not in VIEWS:
            self.names.append(name)
        return function(*arguments, **(more or {}))


@pytest.mark.usefixtures("as_on_a_card")
def test_a_layer_and_micro_batch_are_at_most_fifteen_kernels() -> None:
    """54 before: 377 of a decoder layer's kernels were the seven adapted matrices'."""
    torch.manual_seed(0)
    model = get_peft_model(nn.Sequential(nn.Linear(48, 80, bias=False)), LoraConfig(r=8, lora_alpha=16, use_dora=True, target_modules=["0"]))
    dora.install(model)
    x = torch.randn(2, 7, 48, requires_grad=True)
    with dora.declared_writes():  # as in the training loop: one norm a step
        run(model, x)
        with Counted() as counted:
            out = model(x)
            out.backward(torch.ones_like(out))
    assert len(counted.names) <= 15 + 4, counted.names  # four gradients are added to those of the micro-batch before
