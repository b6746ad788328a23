"""One layer of the 14B's shapes under LoRA, peft's DoRA and ours: time of an optimizer step, and peak memory beyond LoRA.

    PYTHONPATH=. OMP_NUM_THREADS=1 .elson/envs/train/bin/python tests/benchmarks/training_dora.py [--micro-batches 1 4 16] [--precision float32]

bf16 weights, fp32 adapters of rank 128, autocast: as in training (or all fp32). The three kinds take turns, round by round, and the best
of the rounds counts, so that what else runs on the machine falls on all of them. A step of n micro-batches is the first (which
takes the norm), n - 1 further ones, and the optimizer's update.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

SHAPES = [(5120, 5120), (5120, 13824), (5120, 1024)]
#: Sequences of a micro-batch, of the corpus's mean length.
MICRO_BATCHES, LENGTH = (1, 4, 16), 175
ACCUMULATIONS = (4, 16)
KINDS = ("LoRA", "peft DoRA", "ours")


def layer(kind: str, width: int, out: int, precision: str) -> Any:
    import torch
    from peft import LoraConfig, get_peft_model

    from runners.training import dora

    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(width, out, bias=False, dtype=getattr(torch, precision)))
    found = get_peft_model(net, LoraConfig(r=128, lora_alpha=256, use_dora=kind != "LoRA", target_modules=["0"]))
    if kind != "peft DoRA":
        for module in found.modules():
            if hasattr(module, "lora_A"):
                module.cast_input_dtype_enabled = False
    if kind == "ours":
        assert dora.install(found) == 1
    return found


def one(model: Any, x: Any) -> float:
    """Seconds of a micro-batch, forward and backward."""
    import torch

    begin = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=x.dtype == torch.bfloat16):
        out = model(x)
    out.backward(out.detach())
    return time.perf_counter() - begin


def times(width: int, out: int, sequences: int, rounds: int, precision: str) -> dict[str, dict[str, float]]:
    """Best seconds of the first micro-batch of a step, of a further one, and of the update."""
    import torch

    x = torch.randn(1, sequences * LENGTH, width).to(getattr(torch, precision)).requires_grad_()
    models = {kind: layer(kind, width, out, precision) for kind in KINDS}
    optimizers = {kind: torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-6, fused=True) for kind, model in models.items()}
    best: dict[str, dict[str, float]] = {kind: {} for kind in KINDS}
    for number in range(rounds + 1):
        for kind in KINDS:
            begin = {"first": one(models[kind], x), "further": one(models[kind], x)}
            start = time.perf_counter()
            optimizers[kind].step()
            begin["update"] = time.perf_counter() - start
            optimizers[kind].zero_grad()
            if number:  # the first round warms up
                best[kind] = {part: min(seconds, best[kind].get(part, seconds)) for part, seconds in begin.items()}
    return best


def peak(kind: str, width: int, out: int) -> int:
    """Bytes by which a step of 16 tokens raises the peak of a fresh process."""
    import torch

    model = layer(kind, width, out, "bfloat16")
    x = torch.randn(1, 16, width).bfloat16().requires_grad_()
    # One pass through the frozen layer alone, so that libraries are loaded and buffers made.
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        model.base_model.model[0].base_layer(x)
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak of resident memory
    before = resident("VmRSS")
    one(model, x)
    return resident("VmHWM") - before


def resident(field: str) -> int:
    return next(int(line.split()[1]) * 1024 for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--micro-batches", type=int, nargs="+", default=list(MICRO_BATCHES))
    parser.add_argument("--precision", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--peak", nargs=3)
    given = parser.parse_args()
    if given.peak:
        print(json.dumps(peak(given.peak[0], int(given.peak[1]), int(given.peak[2]))))
        return
    print(f"{given.precision}: step time over LoRA's (first number peft, second ours)\n")
    print("| layer | " + " | ".join(f"micro-batch {m}, x {a}" for m in given.micro_batches for a in ACCUMULATIONS) + " |")
    print("|---" * (1 + len(given.micro_batches) * len(ACCUMULATIONS)) + "|")
    for width, out in SHAPES:
        cells = []
        for sequences in given.micro_batches:
            found = times(width, out, sequences, rounds=3 if sequences < 16 else 2, precision=given.precision)
            for accumulation in ACCUMULATIONS:
                step = {kind: t["first"] + (accumulation - 1) * t["further"] + t["update"] for kind, t in found.items()}
                cells.append(f"{step['peft DoRA'] / step['LoRA']:.2f} / {step['ours'] / step['LoRA']:.2f}")
        print(f"| {width} x {out} | " + " | ".join(cells) + " |", flush=True)
    print("\n| layer | LoRA MiB | peft, beyond LoRA | ours, beyond LoRA |\n|---|---|---|---|")
    for width, out in SHAPES:
        rows = {}
        for kind in KINDS:
            command = [sys.executable, __file__, "--peak", kind, str(width), str(out)]
            rows[kind] = min(int(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1]) for _ in range(2)) / 2**20
        print(f"| {width} x {out} | {rows['LoRA']:.0f} | {rows['peft DoRA'] - rows['LoRA']:.0f} | {rows['ours'] - rows['LoRA']:.0f} |", flush=True)
    print(f"\nPeak of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB")


if __name__ == "__main__":
    main()
