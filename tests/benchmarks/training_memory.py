"""The plan's prediction of peak memory and step time against models of growing size, each in a process of its own.

    PYTHONPATH=. .elson/envs/train/bin/python tests/benchmarks/training_memory.py

Memory is predicted from the shape alone. Time needs this machine's rates: a product of matrices and a pass over memory are
timed first, at the size of the smallest model, and carried to the others by the plan's arithmetic.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
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
LENGTH, ANSWER, RANK, REPEATS = 256, 128, 64, 3


def measure(case: tuple[Any, ...]) -> dict[str, float]:
    """In a fresh process: build, train a few micro-batches, and look at the peak."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from runners import adapted_model, attention
    from runners.examples import Example
    from runners.spec import TrainSpec
    from runners.train import _Loop

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
        model.get_base_model().activation_checkpointing_enable({"use_reentrant": False})
    chance = torch.Generator().manual_seed(0)
    rows = [Example(str(n), tuple(torch.randint(0, vocabulary, (LENGTH,), generator=chance).tolist()), LENGTH - ANSWER) for n in range(tokens // LENGTH)]
    best = {name: value.clone() for name, value in model.named_parameters() if value.requires_grad}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], fused=True)
    loop = _Loop(model, optimizer, settings, rows, 10)
    from runners.batches import Step

    step = Step(0, (tuple(range(len(rows))),))
    times = [loop.step(number, step)["seconds"] for number in range(REPEATS + 1)][1:]
    assert best
    return {"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, "seconds": min(times)}


def rates(precision: str) -> tuple[float, float]:
    """(operations/s of a product, bytes/s of a pass over memory) here and now."""
    import torch

    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    left, right = torch.randn(1024, 768).to(dtype), torch.randn(768, 2048).to(dtype)
    wide = torch.randn(1024, 4096)

    def best(work: Any, count: int = 12) -> float:
        found = []
        for _ in range(count):
            begin = time.perf_counter()
            work()
            found.append(time.perf_counter() - begin)
        return min(found)

    return 2 * 1024 * 768 * 2048 / best(lambda: left @ right), 2 * wide.nbytes / best(lambda: wide * 1.5)


def main() -> None:
    from runners import memory
    from runners.planning.shape import Shape
    from runners.spec import TrainSpec

    print("| hidden x layers, tokens | checkpointed | precision | predicted GiB | measured GiB | error | predicted s | measured s | error |")
    print("|---|---|---|---|---|---|---|---|---|")
    factor: dict[str, float] = {}
    for case in CASES:
        hidden, layers, inner, vocabulary, tokens, checkpointing, precision = case
        shape = Shape(hidden, layers, hidden // 64, hidden // 128, 64, inner, vocabulary)
        settings = TrainSpec(rank=RANK, alpha=2 * RANK, precision=precision)
        predicted = memory.training_memory(shape, settings, tokens, checkpointing=checkpointing, on_cpu=True).total
        arithmetic, copying = rates(precision)
        found = subprocess.run([sys.executable, __file__, json.dumps(case)], capture_output=True, text=True)
        if found.returncode:
            raise SystemExit(found.stderr)
        measured = json.loads(found.stdout.splitlines()[-1])
        plain = memory.step_seconds(
            shape,
            settings,
            tokens,
            checkpointing=checkpointing,
            flops_per_s=arithmetic,
            bytes_per_s=copying,
            answer_share=ANSWER / LENGTH,
            context_tokens=LENGTH / 2,
        )
        # One factor a precision, from the first case: what the two rates do not know of this machine.
        seconds = plain * factor.setdefault(precision, measured["seconds"] / plain)
        errors = [predicted / measured["peak"] - 1, seconds / measured["seconds"] - 1]
        size = f"{hidden} x {layers}, {tokens}"
        print(
            f"| {size} | {'yes' if checkpointing else 'no'} | {precision} | {predicted / 2**30:.2f} | {measured['peak'] / 2**30:.2f} | {errors[0]:+.0%} "
            f"| {seconds:.2f} | {measured['seconds']:.2f} | {errors[1]:+.0%} |",
            flush=True,
        )
    print(f"\nFactors of time: { ({name: round(value, 2) for name, value in factor.items()}) }")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(tuple(json.loads(sys.argv[1])))))
    else:
        main()
