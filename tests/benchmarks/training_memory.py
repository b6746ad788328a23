"""The plan's prediction of peak memory and step time against models of growing size, each in a process of its own.

    PYTHONPATH=. .elson/envs/train/bin/python tests/benchmarks/training_memory.py

Memory is predicted from the shape alone. Time needs two rates of this machine (products, passes over memory), which are those that
fit the three smallest models; the plan's arithmetic carries them to the larger ones. fp32 is measured for its memory.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

#: hidden, layers, intermediate, vocabulary, micro-batch tokens, checkpointing, precision
CASES = [
    (384, 6, 1024, 8192, 1024, False, "bf16"),
    (512, 8, 1536, 8192, 1024, False, "bf16"),
    (768, 8, 2048, 16384, 1024, False, "bf16"),
    (1024, 8, 2816, 16384, 1024, False, "bf16"),
    (1024, 12, 2816, 32768, 2048, False, "bf16"),
    (1024, 12, 2816, 32768, 2048, True, "bf16"),
    (1536, 10, 4096, 32768, 1024, False, "bf16"),
    (768, 8, 2048, 16384, 1024, False, "fp32"),
    (1024, 8, 2816, 16384, 1024, True, "fp32"),
]
LENGTH, ANSWER, RANK, REPEATS, FITTED = 256, 128, 64, 3, 3


def measure(case: tuple[Any, ...]) -> dict[str, float]:
    """In a fresh process: build, train a few micro-batches, and look at the peak."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from runners.spec import TrainSpec
    from runners.training import adapted_model, attention
    from runners.training.examples import Example
    from runners.training.train import _Loop

    hidden, layers, inner, vocabulary, tokens, checkpointing, precision = case
    settings = TrainSpec(rank=RANK, alpha=2 * RANK, precision=precision)
    config = Qwen2Config(
        hidden_size=hidden, num_hidden_layers=layers, intermediate_size=inner, vocab_size=vocabulary, num_attention_heads=hidden // 64,
        num_key_value_heads=hidden // 128, max_position_embeddings=4096, tie_word_embeddings=False, attn_implementation=attention.prepare("cpu"),
    )  # fmt: skip
    torch.set_default_dtype(torch.bfloat16 if precision == "bf16" else torch.float32)
    model = Qwen2ForCausalLM(config).requires_grad_(False)
    torch.set_default_dtype(torch.float32)
    model = adapted_model.with_new_adapter(model, settings, "benchmark")
    if checkpointing:
        adapted_model.checkpoint_activations(model)
    chance = torch.Generator().manual_seed(0)
    rows = [Example(str(n), tuple(torch.randint(0, vocabulary, (LENGTH,), generator=chance).tolist()), LENGTH - ANSWER) for n in range(tokens // LENGTH)]
    best = {name: value.clone() for name, value in model.named_parameters() if value.requires_grad}  # as training keeps its best adapter
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], fused=True)
    loop = _Loop(model, optimizer, settings, rows, 10)
    from runners.training.batches import Step

    step = Step(0, (tuple(range(len(rows))),))
    times = [loop.step(number, step)["seconds"] for number in range(REPEATS + 1)][1:]
    assert best
    return {"peak": peak_bytes(), "seconds": min(times)}


def peak_bytes() -> int:
    # Not ru_maxrss: a child starts with its parent's.
    return next(int(line.split()[1]) * 1024 for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))


def work(case: tuple[Any, ...]) -> tuple[float, float]:
    """(operations, bytes) of a step, as the plan counts them."""
    from runners.training import memory

    shape, settings = planned(case)
    known = {"checkpointing": case[5], "answer_share": ANSWER / LENGTH, "context_tokens": LENGTH / 2}
    rates = ((1.0, float("inf")), (float("inf"), 1.0))
    operations, moved = (memory.step_seconds(shape, settings, case[4], flops_per_s=flops, bytes_per_s=passed, **known) for flops, passed in rates)
    return operations, moved


def planned(case: tuple[Any, ...]) -> tuple[Any, Any]:
    """The planner's shape and settings of a case."""
    from runners.spec import TrainSpec
    from runners.training.shape import Shape

    hidden, layers, inner, vocabulary, _, _, precision = case
    return Shape(hidden, layers, hidden // 64, hidden // 128, 64, inner, vocabulary), TrainSpec(rank=RANK, alpha=2 * RANK, precision=precision)


def main() -> None:
    import numpy as np

    from runners.training import memory

    measured = []
    for case in CASES:
        found = subprocess.run([sys.executable, __file__, json.dumps(case)], capture_output=True, text=True)
        if found.returncode:
            raise SystemExit(found.stderr)
        measured.append(json.loads(found.stdout.splitlines()[-1]))
        print(case, measured[-1], file=sys.stderr, flush=True)
    bf16 = [number for number, case in enumerate(CASES) if case[-1] == "bf16"]
    amounts = np.array([work(CASES[number]) for number in bf16])
    seconds = np.array([measured[number]["seconds"] for number in bf16])
    # Least squares of the relative error.
    inverse = np.linalg.lstsq(amounts[:FITTED] / seconds[:FITTED, None], np.ones(FITTED), rcond=None)[0]
    print("| hidden x layers, tokens | checkpointed | precision | predicted GiB | measured GiB | error | predicted s | measured s | error |")
    print("|---|---|---|---|---|---|---|---|---|")
    for number, case in enumerate(CASES):
        shape, settings = planned(case)
        predicted, peak = memory.training_memory(shape, settings, case[4], checkpointing=case[5], on_cpu=True).total, measured[number]["peak"]
        row = f"| {case[0]} x {case[1]}, {case[4]} | {'yes' if case[5] else 'no'} | {case[6]} "
        row += f"| {predicted / 2**30:.2f} | {peak / 2**30:.2f} | {predicted / peak - 1:+.0%} "
        if number in bf16:
            found_s, planned_s = seconds[bf16.index(number)], float(amounts[bf16.index(number)] @ inverse)
            row += f"| {planned_s:.2f} | {found_s:.2f} | {planned_s / found_s - 1:+.0%}{' (fitted)' if number < FITTED else ''} |"
        else:
            row += f"| - | {measured[number]['seconds']:.2f} | - |"
        print(row, flush=True)
    print(f"\nFitted rates: {1 / inverse[0] / 1e12:.2f} TFLOP/s of products, {1 / inverse[1] / 1e9:.2f} GB/s of passes")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(tuple(json.loads(sys.argv[1])))))
    else:
        main()
