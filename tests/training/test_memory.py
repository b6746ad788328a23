"""The memory plan against the published figures, and what it chooses."""

from __future__ import annotations

import pytest

from runners.errors import UserError
from runners.spec import TrainSpec
from runners.training import memory
from runners.training.shape import QWEN2_14B

#: What nvidia-smi calls 81559 MiB.
H100 = 81_559 << 20


def test_the_14b_in_numbers() -> None:
    assert QWEN2_14B.parameters / 1e9 == pytest.approx(14.77, abs=0.01)
    assert QWEN2_14B.linear_parameters / 1e9 == pytest.approx(13.21, abs=0.01)
    plain = TrainSpec(adapter="lora")
    assert QWEN2_14B.adapter_parameters(plain.rank, plain.target_modules) / 1e6 == pytest.approx(552.7, abs=0.1)
    assert memory.flops_per_token(QWEN2_14B, plain, checkpointing=False) / 1e9 == pytest.approx(59.3, abs=0.1)
    assert memory.flops_per_token(QWEN2_14B, plain, checkpointing=True) / 1e9 == pytest.approx(86.8, abs=0.1)


def test_published_peaks() -> None:
    """38.4 GB without activations; 67 to 73 GB at 16 x 2048 checkpointed with chunked logits."""
    found = memory.training_memory(QWEN2_14B, TrainSpec(), 16 * 2048, checkpointing=True)
    fixed = found.weights + found.gradients + found.optimizer + 4 * 552.7e6
    assert fixed / 1e9 == pytest.approx(38.4, abs=0.2)
    assert found.activations / 1e9 == pytest.approx(16.1, abs=0.1)
    assert 67 <= found.total / 1e9 <= 90


def test_what_it_chooses_for_an_h100() -> None:
    choice = memory.choose(QWEN2_14B, TrainSpec(), 2048, H100)
    assert not choice.gradient_checkpointing and choice.micro_batch_tokens >= 2048
    assert choice.memory.total <= choice.available_bytes
    long = memory.choose(QWEN2_14B, TrainSpec(max_tokens=8192), 8192, H100)
    assert long.gradient_checkpointing and long.micro_batch_tokens == 8192


def test_the_spec_has_the_last_word() -> None:
    choice = memory.choose(QWEN2_14B, TrainSpec(micro_batch_tokens=1024, gradient_checkpointing=True), 900, H100)
    assert (choice.micro_batch_tokens, choice.gradient_checkpointing) == (1024, True)


def test_what_does_not_fit_is_said_before_it_runs() -> None:
    with pytest.raises(UserError, match=r"training needs \d+\.\d GB, and 21\.\d GB"):
        memory.choose(QWEN2_14B, TrainSpec(), 512, 24_000_000_000)


def test_more_of_anything_takes_more() -> None:
    small = memory.training_memory(QWEN2_14B, TrainSpec(), 1024, checkpointing=False).total
    assert memory.training_memory(QWEN2_14B, TrainSpec(), 2048, checkpointing=False).total > small
    assert memory.training_memory(QWEN2_14B, TrainSpec(rank=256), 1024, checkpointing=False).total > small
    assert memory.training_memory(QWEN2_14B, TrainSpec(precision="fp32"), 1024, checkpointing=False).total > small
    assert memory.training_memory(QWEN2_14B, TrainSpec(adapter="lora"), 1024, checkpointing=False).total < small
    assert memory.training_memory(QWEN2_14B, TrainSpec(), 1024, checkpointing=True).total < small


def test_cards_share_out_what_grows_and_keep_the_rest() -> None:
    whole, shared = (memory.training_memory(QWEN2_14B, TrainSpec(), 2048, checkpointing=True, parts=parts) for parts in (1, 4))
    adapter = QWEN2_14B.adapter_parameters(128, TrainSpec().target_modules)
    assert whole.gathered == 0 and (shared.activations, shared.logits) == (whole.activations, whole.logits)
    assert shared.optimizer == pytest.approx(whole.optimizer / 4, rel=1e-6) and shared.gradients == pytest.approx(whole.gradients / 4, rel=1e-6)
    assert whole.weights - shared.weights == pytest.approx(0.75 * 2 * QWEN2_14B.linear_parameters, rel=1e-6)
    # The bf16 copies of a step are whole everywhere.
    assert shared.adapter == pytest.approx(4 * adapter / 4 + 2 * adapter, rel=1e-6)
    layer = (2 * QWEN2_14B.linear_parameters + 4 * adapter) / QWEN2_14B.layers
    assert 3 * layer < shared.gathered < 4 * layer


def test_a_model_is_shared_out_only_where_it_must_be() -> None:
    assert memory.choose(QWEN2_14B, TrainSpec(), 2048, H100, parts=(1, 8)).parts == 1
    small = 40 << 30  # not even one example, checkpointed, fits beside the whole model
    assert memory.choose(QWEN2_14B, TrainSpec(), 2048, small, parts=(1, 2)).is_sharded
    with pytest.raises(UserError, match=r"training needs \d+\.\d GB on each of 2 cards, and 15\.\d GB"):
        memory.choose(QWEN2_14B, TrainSpec(), 2048, 16 << 30, parts=(1, 2))


def test_each_card_gets_a_part_of_a_step() -> None:
    """12,800 tokens a step are not two micro-batches for eight cards, and a step that is longer than most is not nine."""
    one, eight = (memory.choose(QWEN2_14B, TrainSpec(), 1024, H100, parts=(1, cards), step_tokens=12_800) for cards in (1, 8))
    assert eight.micro_batch_tokens == 2048 < one.micro_batch_tokens
