"""The training loop on a tiny model: masks, packing, the loss of a step, resuming, and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from runners import log
from runners.errors import UserError
from runners.spec import Spec
from runners.training import adapted_model, attention, dora, loss, train
from runners.training.examples import messages, training_split

MakeSpec = Callable[..., Spec]


def adapted(spec: Spec, base: Path, implementation: str) -> Any:
    torch.manual_seed(0)
    attention.prepare("cpu")
    model = adapted_model.with_new_adapter(adapted_model.load_base(base, spec.train.precision, "cpu", implementation), spec.train, "tiny")
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return model.train()


def gradients(model: Any) -> torch.Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.requires_grad])


def test_the_mask_covers_the_answer_and_its_end_and_nothing_else(base: Path, dataset: Path, make_spec: MakeSpec) -> None:
    spec = make_spec()
    tokenizer = AutoTokenizer.from_pretrained(base)
    row = json.loads((dataset / "train.jsonl").read_text().splitlines()[0])
    example = training_split(spec, dataset, tokenizer)[0]
    assert tokenizer.decode(example.token_ids[example.answer_start :]) == row["answer"] + "<|im_end|>"
    prompt = tokenizer.apply_chat_template(messages(row, spec.chat.system_prompt), add_generation_prompt=True, tokenize=False)
    assert tokenizer.decode(example.token_ids[: example.answer_start]) == prompt
    assert prompt.count("<|im_start|>") == 5  # system, a turn of history, question, and the answer's opening
    # What a server tokenizes is what was trained on.
    assert tuple(tokenizer(prompt, add_special_tokens=False)["input_ids"]) == example.token_ids[: example.answer_start]


@pytest.mark.parametrize("implementation", [attention.SEGMENTS, "sdpa"])
def test_packing_does_not_change_loss_or_gradients(implementation: str, base: Path, dataset: Path, make_spec: MakeSpec) -> None:
    spec = make_spec()
    model = adapted(spec, base, implementation)
    examples = training_split(spec, dataset, AutoTokenizer.from_pretrained(base))[:7]
    apart = sum(float(adapted_model.summed_loss(model, [one], packed=True).detach()) for one in examples)
    for one in examples:
        adapted_model.summed_loss(model, [one], packed=True).backward()
    expected = gradients(model).clone()
    for packed in (True, False):
        model.zero_grad()
        together = adapted_model.summed_loss(model, examples, packed=packed)
        together.backward()
        assert float(together.detach()) == pytest.approx(apart, rel=1e-5)
        assert float((gradients(model) - expected).norm() / expected.norm()) < 1e-4


@pytest.mark.parametrize("implementation", [attention.SEGMENTS, "sdpa"])
def test_an_example_cannot_see_its_neighbour(implementation: str, base: Path, dataset: Path, make_spec: MakeSpec) -> None:
    spec = make_spec()
    model = adapted(spec, base, implementation).eval().get_base_model()
    first, second, other = training_split(spec, dataset, AutoTokenizer.from_pretrained(base))[:3]
    with torch.no_grad():
        one = adapted_model._hidden_packed(model, [first, second])[1]
        two = adapted_model._hidden_packed(model, [other, second])[1]
    assert torch.allclose(one, two, atol=1e-5)


def test_our_mask_function_is_what_a_plain_model_computes(base: Path, dataset: Path, make_spec: MakeSpec) -> None:
    """One example, no adapter, transformers' own attention and loss."""
    spec = make_spec()
    attention.prepare("cpu")
    example = training_split(spec, dataset, AutoTokenizer.from_pretrained(base))[0]
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    ids = torch.tensor([example.token_ids])
    labels = ids.clone()
    labels[0, : example.answer_start] = -100
    expected = float(plain(input_ids=ids, labels=labels).loss)
    ours = adapted_model.load_base(base, "fp32", "cpu", attention.SEGMENTS)
    with torch.no_grad():
        found = float(adapted_model.summed_loss(ours, [example], packed=True)) / example.answer_tokens
    assert found == pytest.approx(expected, rel=1e-5)


def test_the_loss_of_a_step_is_weighted_by_answer_tokens(base: Path, dataset: Path, make_spec: MakeSpec) -> None:
    """Micro-batches of any size give the step's mean over its tokens, not a mean of means."""
    spec = make_spec()
    examples = training_split(spec, dataset, AutoTokenizer.from_pretrained(base))
    found = []
    for budget in (512, 4096):
        model = adapted(spec, base, attention.SEGMENTS)
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
        loop = train._Loop(model, optimizer, spec.train, examples, 10)
        step = train.batches.plan([len(e) for e in examples], 16, 1, budget, 0)[0]
        row = loop.step(0, step)
        found.append((len(step.micro_batches), row["loss"], row["gradient_norm"]))
    (few, loss_1, norm_1), (many, loss_2, norm_2) = sorted(found)
    assert few < many and loss_1 == pytest.approx(loss_2, rel=1e-5) and norm_1 == pytest.approx(norm_2, rel=1e-4)


@pytest.mark.parametrize("rows_of_chunk", [1, 3, 64, 1000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("biased", [False, True], ids=["no bias", "bias"])
def test_chunked_cross_entropy(rows_of_chunk: int, dtype: torch.dtype, biased: bool) -> None:
    torch.manual_seed(0)
    weight, targets = torch.randn(333, 16, dtype=dtype), torch.randint(0, 333, (101,))
    bias = torch.randn(333, dtype=dtype) if biased else None
    one, two = (torch.randn(101, 16, dtype=dtype, generator=torch.Generator().manual_seed(1)).requires_grad_() for _ in range(2))
    left, right = loss.summed_cross_entropy(one, weight, targets, rows_of_chunk, divisor=7, bias=bias), loss.plain_cross_entropy(two, weight, targets, bias) / 7
    left.backward()
    right.backward()
    assert one.grad is not None and two.grad is not None
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2
    assert float(left) == pytest.approx(float(right), rel=tolerance)
    assert float((one.grad - two.grad).float().norm() / two.grad.float().norm()) < tolerance


@pytest.mark.parametrize("tokens", [127, 129, 257, 1372, 5000])
def test_the_mean_over_tokens_is_not_rounded_to_bf16(tokens: int) -> None:
    """1 / 257 in bf16 is 0.2 % off, for every gradient of the step alike."""
    torch.manual_seed(0)
    weight, targets = torch.randn(64, 256, dtype=torch.bfloat16) / 16, torch.randint(0, 64, (400,))
    hidden = torch.randn(400, 256, dtype=torch.bfloat16).requires_grad_()
    exact = hidden.detach().double().requires_grad_()
    loss.summed_cross_entropy(hidden, weight, targets, divisor=tokens).backward()
    (loss.plain_cross_entropy(exact, weight.double(), targets) / tokens).backward()
    assert hidden.grad is not None and exact.grad is not None
    scale = float((hidden.grad.double() * exact.grad).sum() / exact.grad.square().sum())
    assert scale == pytest.approx(1, abs=3e-4)


@pytest.mark.parametrize("adapter", ["dora", "lora"])
def test_training_lowers_the_loss_and_stock_peft_reads_it(adapter: str, base: Path, dataset: Path, make_spec: MakeSpec, tmp_path: Path) -> None:
    spec = make_spec(adapter=adapter, epochs=4)
    result = train.train(spec, base, dataset, tmp_path)
    metrics = result.metrics
    assert metrics["validation_loss_after"] < 0.8 * metrics["validation_loss_before"]
    assert metrics["steps_done"] == metrics["steps_planned"] == 20 == len(metrics["history"])
    assert "<|im_end|>" in metrics["masks"]["trained_on"] and "What is" in metrics["masks"]["not_trained_on"]
    assert {file.name for file in result.adapter.iterdir()} >= {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "chat_template.jinja"}
    stock = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), str(result.adapter)).eval()
    from runners.training.examples import validation_split

    held_out = validation_split(spec, dataset, AutoTokenizer.from_pretrained(base))
    total = 0.0
    for example in held_out:
        ids = torch.tensor([example.token_ids])
        labels = ids.clone()
        labels[0, : example.answer_start] = -100
        with torch.no_grad():
            total += float(stock(input_ids=ids, labels=labels).loss) * example.answer_tokens
    assert total / sum(e.answer_tokens for e in held_out) == pytest.approx(metrics["validation_loss_after"], rel=1e-4)


def test_unpacked_training_gives_the_same_losses(base: Path, dataset: Path, make_spec: MakeSpec, tmp_path: Path) -> None:
    losses = [
        [row["loss"] for row in train.train(make_spec(packing=packing), base, dataset, tmp_path / str(packing)).metrics["history"]] for packing in (True, False)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=2e-4)


def test_gradient_checkpointing_changes_nothing(base: Path, dataset: Path, make_spec: MakeSpec, tmp_path: Path) -> None:
    losses = [
        [row["loss"] for row in train.train(make_spec(gradient_checkpointing=on), base, dataset, tmp_path / str(on)).metrics["history"]] for on in (True, False)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


RUN = """
import sys, json
from pathlib import Path
from runners import spec
from runners.training import train
settings, folders = spec.parse(json.loads(sys.argv[1])), [Path(name) for name in sys.argv[2:]]
train.train(settings, *folders, save_checkpoint=lambda step, _: print(step, flush=True))
"""


def killed_training(spec: Spec, base: Path, dataset: Path, work: Path, how: signal.Signals, after: int) -> int:
    """Train in a process of its own and send a signal once the checkpoint of step ``after`` is written, in the middle of a later step."""
    values = json.dumps(spec.model_dump(mode="json"))
    command = [sys.executable, "-c", RUN, values, str(base), str(dataset), str(work)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=Path(__file__).parents[2]) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if int(line) >= after:
                time.sleep(0.05)
                os.kill(child.pid, how)
                break
        return child.wait(60)


@pytest.mark.parametrize(("how", "dropout"), [(signal.SIGKILL, 0.0), (signal.SIGKILL, 0.1), (signal.SIGTERM, 0.0)])
def test_a_killed_run_ends_with_the_bits_of_an_uninterrupted_one(
    how: signal.Signals, dropout: float, base: Path, dataset: Path, make_spec: MakeSpec, tmp_path: Path
) -> None:
    spec = make_spec(epochs=4, dropout=dropout, checkpoints_per_epoch=2)
    straight = train.train(spec, base, dataset, tmp_path / "straight")
    code = killed_training(spec, base, dataset, tmp_path / "killed", how, after=7)
    assert code in (-signal.SIGKILL, 1) if how == signal.SIGKILL else code == 1  # an uncaught Stopped, since no command line is around it here
    assert not (tmp_path / "killed" / "adapter").exists()
    resumed = train.train(spec, base, dataset, tmp_path / "killed")
    assert 7 <= resumed.metrics["resumed_from_step"] < 20
    one, two = (load_file(result.adapter / "adapter_model.safetensors") for result in (straight, resumed))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    assert [row["loss"] for row in straight.metrics["history"]] == [row["loss"] for row in resumed.metrics["history"]]
    assert straight.metrics["validation"] == resumed.metrics["validation"]
    assert (straight.adapter / "adapter_config.json").read_bytes() == (resumed.adapter / "adapter_config.json").read_bytes()


def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    base: Path, dataset: Path, make_spec: MakeSpec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = make_spec(epochs=3)
    straight = train.train(spec, base, dataset, tmp_path / "work")
    expected = (straight.adapter / "adapter_model.safetensors").read_bytes()
    places = sorted((tmp_path / "work" / "checkpoints").iterdir())
    assert [place.name for place in places] == ["step-000010", "step-000015"]
    file = places[1] / "optimizer.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    assert (again := train.train(spec, base, dataset, tmp_path / "work")).metrics["resumed_from_step"] == 10
    assert (again.adapter / "adapter_model.safetensors").read_bytes() == expected
    assert "optimizer.safetensors differs from its checksum" in capsys.readouterr().err
    for place in (tmp_path / "work" / "checkpoints").iterdir():
        (place / "manifest.json").unlink()
    assert train.train(spec, base, dataset, tmp_path / "work").metrics["resumed_from_step"] == 0
    assert "training begins again" in capsys.readouterr().err


def test_a_checkpoint_of_another_run_is_not_taken(base: Path, dataset: Path, make_spec: MakeSpec, tmp_path: Path) -> None:
    train.train(make_spec(epochs=1), base, dataset, tmp_path / "one")
    shutil.copytree(tmp_path / "one" / "checkpoints", tmp_path / "brought")
    other = train.train(make_spec(epochs=1, learning_rate=1e-3), base, dataset, tmp_path / "two", resume=tmp_path / "brought")
    assert other.metrics["resumed_from_step"] == 0
    same = train.train(make_spec(epochs=1), base, dataset, tmp_path / "three", resume=tmp_path / "brought" / "step-000005")
    assert same.metrics["resumed_from_step"] == 5


def test_a_checkpoint_is_taken_wherever_the_base_lies_and_whatever_the_card_holds(base: Path, dataset: Path, make_spec: MakeSpec, tmp_path: Path) -> None:
    train.train(make_spec(epochs=1), base, dataset, tmp_path / "work")
    elsewhere = shutil.copytree(base, tmp_path / "elsewhere")
    for changes in ({}, {"micro_batch_tokens": 1024}, {"micro_batch_tokens": None}, {"gradient_checkpointing": True}):
        again = train.train(make_spec(epochs=1, **changes), elsewhere, dataset, tmp_path / "work")
        assert again.metrics["resumed_from_step"] == 5, changes


def test_a_checkpoint_on_a_base_of_other_weights_is_not_taken(base: Path, dataset: Path, make_spec: MakeSpec, tmp_path: Path) -> None:
    train.train(make_spec(epochs=1), base, dataset, tmp_path / "work")
    other = shutil.copytree(base, tmp_path / "other")
    tensors = load_file(other / "model.safetensors")
    save_file({name: tensor * 1.01 for name, tensor in tensors.items()}, other / "model.safetensors", metadata={"format": "pt"})
    assert train.train(make_spec(epochs=1), other, dataset, tmp_path / "work").metrics["resumed_from_step"] == 0


def test_an_adapter_that_never_beat_the_base_is_refused(base: Path, dataset: Path, make_spec: MakeSpec, tmp_path: Path) -> None:
    """B would be 0, both gates would pass with a KL of 0, and the base model would take the new name."""
    said = r"never fell below that of the base model, \d\.\d{4}: it was \d\.\d{4} after step 5, \d\.\d{4} after step 10; training loss: \d\.\d{4} to"
    for _ in range(2):  # the second time from its checkpoint
        with pytest.raises(UserError, match=said) as refused:
            train.train(make_spec(learning_rate=1e-12), base, dataset, tmp_path)
        assert "train.learning_rate" in str(refused.value)
        assert not (tmp_path / "adapter").exists()


def test_the_loop_says_every_write(base: Path, dataset: Path, make_spec: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each norm that is used again is checked against a new one, through evaluation, checkpoints and resuming."""
    spec = make_spec(gradient_checkpointing=True, micro_batch_tokens=256, checkpoints_per_epoch=2)
    plain = train.train(spec, base, dataset, tmp_path / "plain").metrics["history"]
    monkeypatch.setattr(dora, "check", True)
    checked = train.train(spec, base, dataset, tmp_path / "checked").metrics["history"]
    assert [row["loss"] for row in plain] == [row["loss"] for row in checked]


def test_peak_memory_of_a_card_is_the_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    host = train.peak_memory()
    assert host["peak_memory_gib"] == host["peak_host_memory_gib"] > 0.1
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 70 * 2**30)
    assert train.peak_memory()["peak_memory_gib"] == 70.0


def test_the_log_of_a_training_has_what_the_live_page_shows(
    base: Path, dataset: Path, make_spec: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ELSON_LOG_FILE", str(tmp_path / "log.jsonl"))
    monkeypatch.setattr(log.Progress, "every_s", 0.0)
    result = train.train(make_spec(epochs=3), base, dataset, tmp_path / "work")
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    steps = [row for row in rows if row["message"] == "train" and row["done"]]
    assert [row["loss"] for row in steps] == [row["loss"] for row in result.metrics["history"]]
    assert all(row["tokens_per_s"] > 0 and 0.1 < row["peak_memory_gib"] < 64 for row in steps)
    held_out = [(row["step"], row["loss"]) for row in rows if row["message"] == "held-out loss"]
    assert held_out == [(row["step"], round(row["loss"], 4)) for row in result.metrics["validation"][1:]]


def test_early_stop_keeps_the_best(base: Path, make_spec: MakeSpec, make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    """Eight examples learned by heart: the held-out loss turns, training stops, and what is kept is the best that was seen."""
    few = make_dataset(tmp_path / "few", 8, 8)
    result = train.train(make_spec(epochs=60, learning_rate=2e-2, rank=16, alpha=64, early_stop_evaluations=2), base, few, tmp_path)
    seen = {row["step"]: row["loss"] for row in result.metrics["validation"]}
    assert result.metrics["stopped_early"] and result.metrics["best_step"] < result.metrics["steps_done"]
    assert result.metrics["validation_loss_after"] == min(seen.values()) == seen[result.metrics["best_step"]]
    again = train.train(make_spec(epochs=60, learning_rate=2e-2, rank=16, alpha=64, early_stop_evaluations=2), base, few, tmp_path)
    assert again.metrics["resumed_from_step"] == result.metrics["steps_done"]
    assert (again.adapter / "adapter_model.safetensors").read_bytes() == (result.adapter / "adapter_model.safetensors").read_bytes()


def test_what_is_refused(base: Path, dataset: Path, make_spec: MakeSpec, make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train-\d{3} \(\d+ tokens\)") as too_long:
        train.train(make_spec(max_tokens=140), base, dataset, tmp_path)
    assert "train.max_tokens" in str(too_long.value)
    with pytest.raises(UserError, match="40 examples, 8 a step, 2 epochs are 10 optimizer steps"):
        train.train(make_spec(minimum_steps=20), base, dataset, tmp_path)
    with pytest.raises(UserError, match="has no rows"):
        train.train(make_spec(), base, make_dataset(tmp_path / "empty", 0, 2), tmp_path)
    with pytest.raises(UserError, match=r"target_modules names \['nothing'\]"):
        train.train(make_spec(target_modules=["nothing"]), base, dataset, tmp_path)
    with pytest.raises(UserError, match="micro_batch_tokens is 64"):
        train.train(make_spec(micro_batch_tokens=64), base, dataset, tmp_path)
    with pytest.raises(UserError, match="cannot be loaded"):
        broken = shutil.copytree(base, tmp_path / "broken")
        (broken / "config.json").write_text('{"model_type": "nonsense"}')
        train.train(make_spec(), broken, dataset, tmp_path)
