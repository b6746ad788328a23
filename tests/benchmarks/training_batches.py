"""Padded, length-grouped and packed micro-batches on the project's corpus: tokens wasted, and useful tokens a second.

    PYTHONPATH=. .elson/envs/train/bin/python tests/benchmarks/training_batches.py SMOLLM2 CORPUS [--time]

And the peak of the output layer and loss at 152,064 words, whole and in chunks (--loss).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from runners import spec as declared
from runners.training import batches
from runners.training.examples import Example, load_tokenizer, read_rows, tokenize

Arrange = Callable[[Sequence[int], Sequence[int], int], tuple[batches.MicroBatch, ...]]
WAYS: dict[str, tuple[Arrange, bool]] = {
    "padded, shuffled": (batches.in_order, False),
    "padded, grouped by length": (batches.group_by_length, False),
    "packed": (batches.pack, True),
}


def examples_of(base: Path, corpus: Path) -> list[Example]:
    return tokenize(read_rows(corpus, "train"), load_tokenizer(base), declared.Spec().chat.system_prompt, 8192, "training")


def waste(examples: Sequence[Example]) -> None:
    lengths = [len(one) for one in examples]
    answers = sum(one.answer_tokens for one in examples) / sum(lengths)
    print(f"{len(lengths)} examples, {sum(lengths)} tokens, {min(lengths)} to {max(lengths)}, {answers:.0%} of them answers\n")
    print("| | micro-batch of 4 examples | 1,024 tokens | 3,072 tokens | 8,192 tokens |\n|---|---|---|---|---|")
    steps = batches.plan(lengths, 64, 1, 100_000, 0)
    for name, (arrange, packed) in WAYS.items():
        cells = []
        for budget in (None, 1024, 3072, 8192):
            if budget is None:
                if packed:
                    cells.append("-")
                    continue
                order = [list(step.examples) if name.endswith("length") else sorted(step.examples, key=lambda i: (i * 7919) % 1009) for step in steps]
                order = [sorted(one, key=lambda i: lengths[i]) if name.endswith("length") else one for one in order]
                made = [tuple(one[begin : begin + 4]) for one in order for begin in range(0, len(one), 4)]
            else:
                shuffled = [sorted(step.examples, key=lambda i: (i * 7919) % 1009) for step in steps]
                made = [one for step in shuffled for one in arrange(step, lengths, budget)]
            seen = sum(sum(lengths[i] for i in one) if packed else batches.padded_tokens(one, lengths) for one in made)
            cells.append(f"{seen / sum(lengths) - 1:+.1%} in {len(made)}")
        print(f"| {name} | " + " | ".join(cells) + " |")


def speed(base: Path, examples: Sequence[Example], budget: int = 1024, rounds: int = 2) -> None:
    """Useful tokens a second of a real step's forward and backward; the ways take turns and the best round counts."""
    import torch

    from runners.training import adapted_model, attention

    chosen = list(examples[:24])
    lengths = [len(one) for one in chosen]
    best: dict[str, float] = {}
    models = {
        packed: adapted_model.with_new_adapter(
            adapted_model.load_base(base, "bf16", "cpu", attention.prepare("cpu") if packed else "sdpa"), declared.TrainSpec(rank=16), "x"
        )
        for packed in (True, False)
    }
    ways = {**WAYS, "packed, block mask (sdpa)": (batches.pack, True)}
    masked = adapted_model.with_new_adapter(adapted_model.load_base(base, "bf16", "cpu", "sdpa"), declared.TrainSpec(rank=16), "x")
    for _ in range(rounds):
        for name, (arrange, packed) in ways.items():
            model = masked if "mask" in name else models[packed]
            begin = time.perf_counter()
            for one in arrange(range(len(chosen)), lengths, budget):
                adapted_model.summed_loss(model, [chosen[i] for i in one], packed=packed).backward()
            best[name] = min(best.get(name, 1e9), time.perf_counter() - begin)
            for parameter in model.parameters():
                parameter.grad = None
    slowest = best["padded, shuffled"]
    print("\n| | useful tokens/s, over padded |\n|---|---|")
    for name, seconds in best.items():
        print(f"| {name} | {slowest / seconds:.2f} |")
    assert torch.is_grad_enabled()


def loss_peak(kind: str, tokens: int, vocabulary: int) -> None:
    """In a fresh process: the peak above the hidden states and the weight."""
    import torch

    from runners.training import loss

    hidden = torch.randn(tokens, 512).bfloat16().requires_grad_()
    weight, targets = torch.randn(vocabulary, 512).bfloat16(), torch.randint(0, vocabulary, (tokens,))
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak; ru_maxrss would count the parent's
    (loss.summed_cross_entropy if kind == "chunked" else loss.plain_cross_entropy)(hidden, weight, targets).backward()
    print(json.dumps(resident("VmHWM") - before))


def resident(field: str) -> int:
    return next(int(line.split()[1]) * 1024 for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=Path, nargs="?")
    parser.add_argument("corpus", type=Path, nargs="?")
    parser.add_argument("--time", action="store_true")
    parser.add_argument("--loss", action="store_true")
    parser.add_argument("--loss-peak", nargs=3)
    given = parser.parse_args()
    if given.loss_peak:
        loss_peak(given.loss_peak[0], int(given.loss_peak[1]), int(given.loss_peak[2]))
        return
    if given.base and given.corpus:
        examples = examples_of(given.base, given.corpus)
        waste(examples)
        if given.time:
            speed(given.base, examples)
    if given.loss:
        print("\n| answer tokens x words | whole logits, MiB | chunked, MiB |\n|---|---|---|")
        for tokens in (512, 1024, 2048, 16 * 2048):
            # Whole, the last would take some 50 GB.
            kinds = ("whole", "chunked") if tokens <= 2048 else ("chunked",)
            commands = [[sys.executable, __file__, "--loss-peak", kind, str(tokens), "152064"] for kind in kinds]
            peaks = [f"{int(subprocess.run(one, stdout=subprocess.PIPE, text=True, check=True).stdout) / 2**20:.0f}" for one in commands]
            print(f"| {tokens} x 152,064 | {peaks[0] if len(peaks) > 1 else '-'} | {peaks[-1]} |", flush=True)


if __name__ == "__main__":
    main()
