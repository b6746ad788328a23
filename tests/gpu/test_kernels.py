"""The parts that run another code path on a card than on a CPU: attention, loss, optimizer, autocast, random states."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from runners.training import adapted_model, attention, checkpoint, dora, loss
from tests.gpu import card as cards
from tests.gpu.card import Card
from tests.gpu.figures import Table

#: Relative error that bf16 products may have (2^-8, over a few roundings).
BF16 = 2e-2


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.double() - expected.double()).norm() / expected.double().norm())


def test_the_two_ceilings(card: Card, table: Table) -> None:
    """The fastest matrix product and the fastest copy of this very card: what every other figure is a share of."""
    if not card.on_card:
        pytest.skip("a CPU's ceilings say nothing of the plan")
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    found = {}
    for name, work, amount in (("product", lambda: a @ b, 2 * 8192**3), ("copy", a.clone, 2 * a.numel() * 2)):
        times = []
        for _ in range(20):
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            work()
            end.record()
            torch.cuda.synchronize()
            times.append(begin.elapsed_time(end) / 1000)
        found[name] = amount / sorted(times)[10]
    accelerator = card.accelerator
    table.add("bf16 product of 8192 x 8192", found["product"] / 1e12, "TFLOP/s", accelerator and accelerator.tflops, "data sheet", held=False)
    table.add("copy on the card, read and written", found["copy"] / 1e9, "GB/s", accelerator and accelerator.bandwidth_gb_s, "data sheet", held=False)
    assert all(found.values())


def gradient(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([parameter.grad.flatten().float() for parameter in cards.trained(model) if parameter.grad is not None])


def test_packed_attention_is_that_of_each_example_alone(card: Card, table: Table) -> None:
    """Losses and gradients of a packed micro-batch, against transformers' eager attention one example at a time, and both against fp32."""
    implementation = attention.prepare(card.device)
    if card.on_card and torch.cuda.get_device_capability() >= (8, 0):
        assert implementation == attention.VARLEN, "the fast attention does not run on this card"
    rows = cards.examples([17, 150, 61, 5], card.shape.vocabulary)
    found = []
    for name, dtype in ((implementation, card.dtype), ("eager", card.dtype), ("eager", torch.float32)):
        with cards.released():
            model = cards.adapted(card, card.slice(2), implementation=name, dtype=dtype).train()
            total = 0.0
            for group in [[one] for one in rows] if name == "eager" else [rows]:
                lost = adapted_model.summed_loss(model, group, packed=name != "eager")
                lost.backward()
                total += float(lost.detach())
            found.append((total, gradient(model)))
            del model, lost
    (one, ours), (_, theirs), (exact, truth) = found
    errors = [relative(ours, truth), relative(theirs, truth)]
    table.add(f"gradient, {implementation} packed, against fp32", errors[0], "relative", note=f"eager, one by one: {errors[1]:.2g}")
    assert one == pytest.approx(exact, rel=2e-3 if card.on_card else 1e-5)
    assert errors[0] < 1.2 * errors[1] + 1e-4


def test_the_cards_form_of_a_dora_layer(card: Card, table: Table) -> None:
    """The gradient of two layers is as near to fp32 as stock peft's."""
    rows, found = cards.examples([300, 150, 61], card.shape.vocabulary), []
    implementation = attention.prepare(card.device)
    for stock, dtype in ((False, card.dtype), (True, card.dtype), (True, torch.float32)):
        with cards.released():
            model = cards.adapted(card, card.slice(2), stock=stock, dtype=dtype, implementation=implementation).train()
            adapted_model.summed_loss(model, rows, packed=True).backward()
            found.append(gradient(model))
            del model
    errors = [relative(one, found[2]) for one in found[:2]]
    table.add("gradient, our DoRA, against fp32", errors[0], "relative", note=f"stock peft: {errors[1]:.2g}")
    assert errors[0] < 1.2 * errors[1] + 1e-4


def test_the_chunked_loss(card: Card, table: Table) -> None:
    torch.manual_seed(0)
    rows, width = (2048, card.shape.hidden) if card.on_card else (101, 16)
    weight = torch.randn(card.shape.vocabulary, width, device=card.device, dtype=card.dtype) * 0.02
    targets = torch.randint(0, len(weight), (rows,), device=card.device)
    hidden = torch.randn(rows, width, device=card.device, dtype=card.dtype)
    found, peaks = [], []
    for function in (loss.summed_cross_entropy, loss.plain_cross_entropy):
        with cards.released():
            states = hidden.clone().requires_grad_()
            if card.on_card:
                torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated() if card.on_card else 0
            total = function(states, weight, targets)
            (total / rows).backward()
            assert states.grad is not None
            peaks.append(torch.cuda.max_memory_allocated() - before if card.on_card else 0)
            found.append((float(total.detach()), states.grad))
    (one, ours), (two, theirs) = found
    assert one == pytest.approx(two, rel=1e-3 if card.on_card else 1e-5)
    assert relative(ours, theirs) < (BF16 if card.on_card else 1e-5)
    if card.on_card:
        table.add(f"loss of {rows} rows, chunked", peaks[0] / 1e6, "MB")
        table.add(f"loss of {rows} rows, whole logits", peaks[1] / 1e6, "MB")
        assert peaks[0] < peaks[1] / 2


def test_the_norm_from_factors(card: Card, table: Table) -> None:
    torch.manual_seed(0)
    out, width, rank = (13824, 5120, 128) if card.on_card else (96, 64, 4)
    weight = (torch.randn(out, width, device=card.device) * 0.02).to(card.dtype)
    a, b = torch.randn(rank, width, device=card.device) * 0.01, torch.randn(out, rank, device=card.device) * 0.01
    expected = torch.linalg.vector_norm(weight.double() + 2 * b.double() @ a.double(), dim=1)
    found = dora.factored_norm(weight, a, b, 2.0, dora.row_squares(weight))
    error = relative(found, expected)
    table.add("norm of a DoRA layer, against fp64", error, "relative")
    assert error < 1e-5


def test_the_fused_optimizer_leaves_no_stale_norm(card: Card) -> None:
    """Three steps with kept norms, and three with norms dropped before each: the same losses, and the norm has changed."""
    rows = cards.examples([60, 33, 90], card.shape.vocabulary)
    runs = []
    for drop in (False, True):
        with cards.released():
            model = cards.adapted(card, card.slice(2)).train()
            optimizer = torch.optim.AdamW(cards.trained(model), lr=2e-2, fused=True)
            losses = []
            for _ in range(3):
                if drop:
                    dora.written()
                lost = adapted_model.summed_loss(model, rows, packed=True)
                (lost / 100).backward()
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                losses.append(float(lost.detach()))
            runs.append(losses)
            del model, optimizer, lost
    assert runs[0] == pytest.approx(runs[1], rel=1e-4)
    assert runs[0][0] != pytest.approx(runs[0][2], rel=1e-3)


def test_checkpointing_changes_nothing(card: Card) -> None:
    rows = cards.examples([60, 33, 90], card.shape.vocabulary)
    found = []
    for on in (False, True):
        with cards.released():
            model = cards.adapted(card, card.slice(2)).train()
            if on:
                adapted_model.checkpoint_activations(model)
            adapted_model.summed_loss(model, rows, packed=True).backward()
            found.append(gradient(model))
            del model
    assert relative(found[1], found[0]) < (1e-2 if card.on_card else 1e-5)


def test_random_states_come_back(card: Card, tmp_path: Path) -> None:
    """A checkpoint holds the card's random state too: what dropout draws after a resume is what it would have drawn."""
    model = cards.adapted(card, card.slice(1))
    optimizer = cards.optimizer_of(card, model)
    adapted_model.summed_loss(model, cards.examples([40], card.shape.vocabulary), packed=True).backward()
    optimizer.step()
    torch.manual_seed(3)
    torch.rand(5, device=card.device)
    folder = checkpoint.save(tmp_path, checkpoint.snapshot(checkpoint.State("a run", 1, 0, 1.0, 0, [], []), model, optimizer, {}))
    expected = torch.rand(64, device=card.device)
    torch.manual_seed(4)
    before = [parameter.detach().clone() for parameter in cards.trained(model)]
    with torch.no_grad():
        for parameter in cards.trained(model):
            parameter.zero_()
    checkpoint.restore(folder, model, optimizer)
    assert torch.equal(torch.rand(64, device=card.device), expected)
    assert all(torch.equal(one, two) for one, two in zip(before, cards.trained(model), strict=True))
