"""Memory, speed and kernels of the training loop on the largest model that the plan lets onto this card."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from runners.errors import UserError
from runners.planning import session
from runners.planning import training as planned
from runners.training import adapted_model, batches, checkpoint, memory, train
from tests.gpu import card as cards
from tests.gpu.card import Card
from tests.gpu.figures import Table


class Full:
    """The model, and what was needed to make it."""

    def __init__(self, card: Card) -> None:
        self.held_before = torch.cuda.memory_allocated() if card.on_card else 0
        begin = time.perf_counter()
        self.model = cards.adapted(card, card.shape).train()
        card.sync()
        self.seconds = time.perf_counter() - begin
        self.optimizer = cards.optimizer_of(card, self.model)


@pytest.fixture(scope="module")
def full(card: Card) -> Iterator[Full]:
    with cards.released():
        made = Full(card)
        yield made
        del made.model, made.optimizer


def one_step(card: Card, full: Full, lengths: list[int], budget: int) -> dict[str, Any]:
    rows = cards.examples(lengths, card.shape.vocabulary)
    loop = train._Loop(full.model, full.optimizer, card.settings, rows, 100)
    step = batches.plan([len(one) for one in rows], len(rows), 1, budget, 0)[0]
    return loop.step(50, step)


@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "checkpointed"])
def test_memory_of_a_step(checkpointing: bool, card: Card, full: Full, table: Table) -> None:
    try:
        choice = card.choice(checkpointing=checkpointing)
    except UserError as error:
        pytest.skip(error.found)
    if checkpointing:
        adapted_model.checkpoint_activations(full.model)
    try:
        # Two micro-batches, so that the second finds the gradients of the first; two steps, so that the second finds Adam's moments.
        lengths = cards.lengths_that_fill(choice.micro_batch_tokens, 400) * 2
        for _ in range(2):
            if card.on_card:
                torch.cuda.reset_peak_memory_stats()
            row = one_step(card, full, lengths, choice.micro_batch_tokens)
        assert row["loss"] > 0 and row["micro_batches"] >= 2
    finally:
        if checkpointing:
            adapted_model.checkpoint_activations(full.model, on=False)
    if card.on_card:
        how = "checkpointed" if checkpointing else "activations kept"
        table.add(
            f"memory of {choice.micro_batch_tokens:,} tokens, {how}",
            (torch.cuda.max_memory_allocated() - full.held_before) / 1e9,
            "GB",
            choice.memory.total / 1e9,
            f"allocator holds {torch.cuda.max_memory_reserved() / 1e9:.1f}",
        )
        speed = sum(lengths) / row["seconds"]
        flop = memory.flops_per_token(card.shape, card.settings, checkpointing=checkpointing)
        table.add(f"tokens/s of that step, {how}", speed, "tokens/s", note=f"{flop * speed / 1e12:.0f} TFLOP/s")


def test_speed_of_the_projects_own_step(card: Card, full: Full, table: Table) -> None:
    """64 examples as long as the corpus's, in micro-batches of the size that the plan chooses."""
    choice = card.choice()
    lengths = cards.corpus_lengths(64 if card.on_card else 4, card.settings.max_tokens)
    if choice.gradient_checkpointing:
        adapted_model.checkpoint_activations(full.model)
    found = [one_step(card, full, lengths, choice.micro_batch_tokens) for _ in range(4 if card.on_card else 1)]
    assert all(0 < row["loss"] < 20 for row in found)
    if not card.on_card:
        return
    seconds = statistics.median(row["seconds"] for row in found[1:])
    speed, flop = found[-1]["tokens"] / seconds, memory.flops_per_token(card.shape, card.settings, checkpointing=choice.gradient_checkpointing)
    table.add("a step of 64 examples", seconds, "s", note=f"{found[-1]['tokens']:,} tokens in {found[-1]['micro_batches']} micro-batches")
    rate = card.accelerator.tflops * 1e12 if card.accelerator else None
    table.add("tokens/s", speed, "tokens/s", rate and rate * planned.UTILISATION / flop)
    if rate:
        table.add("share of the data sheet's FLOP/s", 100 * speed * flop / rate, "%", 100 * planned.UTILISATION)


def test_seconds_of_each_part_of_a_step(card: Card, full: Full, table: Table) -> None:
    choice = card.choice()
    rows = cards.examples(cards.lengths_that_fill(choice.micro_batch_tokens, 400), card.shape.vocabulary)

    def timed(name: str, work: Any) -> Any:
        card.sync()
        begin = time.perf_counter()
        found = work()
        card.sync()
        parts.setdefault(name, []).append(time.perf_counter() - begin)
        return found

    parts: dict[str, list[float]] = {}
    for _ in range(3 if card.on_card else 1):
        for name in ("forward, norms new", "forward"):
            lost = timed(name, lambda: adapted_model.summed_loss(full.model, rows, packed=True))
            timed("backward", (lost / 1000).backward)
        timed("clip", lambda: torch.nn.utils.clip_grad_norm_(cards.trained(full.model), 1.0))
        timed("AdamW", full.optimizer.step)
        full.optimizer.zero_grad(set_to_none=True)
    middle = {name: statistics.median(values) for name, values in parts.items()}
    assert all(middle.values())
    if card.on_card:
        middle["norms, once a step"] = middle.pop("forward, norms new") - middle["forward"]
        for name, seconds in middle.items():
            table.add(f"part of a step: {name}", 1000 * seconds, "ms", note=f"micro-batch of {choice.micro_batch_tokens:,} tokens")


def test_kernels_of_a_step(card: Card, full: Full, table: Table) -> None:
    from torch.profiler import ProfilerActivity, profile

    choice = card.choice()
    # One micro-batch and the optimizer's step: reading the profile of a whole step takes longer than the step.
    lengths = cards.lengths_that_fill(choice.micro_batch_tokens if card.on_card else 64, 329)
    with profile(activities=[ProfilerActivity.CUDA if card.on_card else ProfilerActivity.CPU]) as found:
        row = one_step(card, full, lengths, choice.micro_batch_tokens)
        card.sync()
    kernels = [event for event in found.events() if not card.on_card or event.device_type == torch.autograd.DeviceType.CUDA]
    assert kernels
    if card.on_card:
        busy = sum(event.device_time for event in kernels) / 1e6
        note = f"norms and AdamW with them; the kernels run for {busy:.2f} s"
        table.add(f"kernels of a micro-batch of {row['tokens']:,} tokens", len(kernels), "", note=note)
        total: dict[str, float] = {}
        for event in kernels:
            total[event.name] = total.get(event.name, 0) + event.device_time
        for name, microseconds in sorted(total.items(), key=lambda pair: -pair[1])[:8]:
            print(f"{microseconds / 1e6:8.3f} s {100 * microseconds / 1e6 / busy:5.1f} %  {name[:110]}")


def test_fifty_mixes_of_lengths_fit(card: Card, full: Full, table: Table) -> None:
    """Whatever the lengths, a micro-batch that keeps to the plan's tokens runs: nothing is found out by running out of memory."""
    choice, chance = card.choice(), random.Random(1)
    if card.on_card:
        torch.cuda.reset_peak_memory_stats()
    for number in range(50):
        longest = chance.randint(16, card.settings.max_tokens)
        size = chance.randint(longest, choice.micro_batch_tokens)
        rows = cards.examples(cards.lengths_that_fill(size, longest, number), card.shape.vocabulary, number)
        lost = adapted_model.summed_loss(full.model, rows, packed=True)
        (lost / 1000).backward()
        if number % 10 == 9:
            torch.nn.utils.clip_grad_norm_(cards.trained(full.model), 1.0)
            full.optimizer.step()
            full.optimizer.zero_grad(set_to_none=True)
        assert torch.isfinite(lost)
    if card.on_card:
        table.add("fifty mixes of lengths, most the allocator held", torch.cuda.max_memory_reserved() / 1e9, "GB", note=f"of {card.total_bytes / 1e9:.1f}")


def test_a_checkpoint_of_the_whole_adapter(card: Card, full: Full, table: Table, tmp_path: Path) -> None:
    begin = time.perf_counter()
    taken = checkpoint.snapshot(checkpoint.State("a run", 1, 1, 1.0, 0, [], []), full.model, full.optimizer, {})
    copied = time.perf_counter() - begin
    folder = checkpoint.save(tmp_path, taken)
    saved = time.perf_counter() - begin - copied
    state, _ = checkpoint.restore(folder, full.model, full.optimizer)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    assert state.step == 1
    if card.on_card:
        waits, behind = (size / 1e9 / rate.expected for rate in (session.CHECKPOINT_GB_S, session.WRITE_GB_S))
        table.add("checkpoint: what the training waits for", copied, "s", waits, f"{size / 1e9:.2f} GB copied from the card", held=False)
        table.add("checkpoint: written behind it", saved, "s", behind, "with its checksums", held=False)
        table.add("checkpoint read", time.perf_counter() - begin - saved - copied, "s")
        table.add("random model and adapter made", full.seconds, "s")


def test_dora_beside_lora_and_beside_peft(card: Card, table: Table) -> None:
    """The same steps on a few layers of the real width."""
    shape, budget = card.slice(8), card.choice().micro_batch_tokens
    rows = cards.examples([length for seed in range(4) for length in cards.lengths_that_fill(budget if card.on_card else 64, 400, seed)], shape.vocabulary)
    step = batches.plan([len(one) for one in rows], len(rows), 1, budget, 0)[0]
    seconds = {}
    for name, how in (("LoRA", {"adapter": "lora"}), ("DoRA", {}), ("peft", {"stock": True})):
        with cards.released():
            model = cards.adapted(card, shape, **how).train()  # type: ignore[arg-type]
            loop = train._Loop(model, cards.optimizer_of(card, model), card.settings, rows, 100)
            times = [loop.step(50, step)["seconds"] for _ in range(4 if card.on_card else 1)]
            seconds[name] = statistics.median(times[1:] or times)
            del model, loop
    assert all(seconds.values())
    if not card.on_card:
        return
    note = f"{shape.layers} layers, {len(step.micro_batches)} micro-batches of {budget:,} tokens a step"
    table.add("DoRA over LoRA, time of a step", seconds["DoRA"] / seconds["LoRA"], "x", planned.DORA_OVER_LORA, note)
    table.add("peft's DoRA over LoRA, time of a step", seconds["peft"] / seconds["LoRA"], "x", planned.PEFT_OVER_LORA, note)
