"""What a training choice is worth on a small real model: held-out loss after the same number of steps, several seeds.

    .elson/envs/train/bin/python -m runners base make smollm2 --out /tmp/smollm2
    .venv/bin/python -m runners data build --out /tmp/corpus
    PYTHONPATH=. .elson/envs/train/bin/python tests/benchmarks/training_quality.py /tmp/smollm2 /tmp/corpus /tmp/quality.jsonl

One line of JSON a run is appended to the last argument; runs that are there already are not repeated, so it can be stopped. ``--table`` prints what is there.
Every variant of a seed starts from the same adapter, sees the same examples in the same order, and is judged on the same held-out answers.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

#: Changes to the plan's own settings (DoRA, rank 128, alpha 256, 2e-4, packed, answers only).
VARIANTS: dict[str, dict[str, Any]] = {
    "plan (DoRA r=128, 2e-4, answers only, packed)": {},
    "LoRA r=128": {"adapter": "lora"},
    "learning rate x 0.5": {"learning_rate": 1e-4},
    "learning rate x 2": {"learning_rate": 4e-4},
    "loss on the whole sequence": {"whole": True},
    # The same arithmetic in another order: one seed shows it.
    "unpacked (padded)": {"packing": False},
}
#: The longest of the corpus are left out and the number is small, so that a run ends here in minutes.
EXAMPLES, HELD_OUT, BATCH, EPOCHS, LONGEST = 48, 16, 8, 2, 180


def run(base: Path, corpus: Path, changes: dict[str, Any], seed: int) -> dict[str, Any]:
    import torch

    from runners import spec as declared
    from runners.training import adapted_model, attention, batches
    from runners.training.examples import load_tokenizer, read_rows, tokenize
    from runners.training.train import _Loop

    whole = changes.get("whole", False)
    settings = declared.parse({"train": {key: value for key, value in changes.items() if key != "whole"} | {"seed": seed}}).train
    settings = settings.model_copy(update={"batch_examples": BATCH, "epochs": EPOCHS})
    tokenizer, prompt = load_tokenizer(base), declared.Spec().chat.system_prompt
    rows, held_out_rows = read_rows(corpus, "train"), read_rows(corpus, "validation")
    chosen = [one for one in tokenize(rows, tokenizer, prompt, 8192, "training") if len(one) <= LONGEST]
    # Another slice of the corpus for each seed: what is compared is the variants within a seed.
    examples = chosen[seed * EXAMPLES : (seed + 1) * EXAMPLES]
    held_out = [one for one in tokenize(held_out_rows, tokenizer, prompt, 8192, "validation") if len(one) <= LONGEST][:HELD_OUT]
    if whole:
        examples = [replace(one, answer_start=1) for one in examples]
    torch.manual_seed(seed)
    implementation = attention.prepare("cpu") if settings.packing else "sdpa"
    model = adapted_model.with_new_adapter(adapted_model.load_base(base, settings.precision, "cpu", implementation), settings, "smollm2")
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=settings.learning_rate, fused=True)
    steps = batches.plan([len(one) for one in examples], BATCH, EPOCHS, 1024, seed, packing=settings.packing)
    loop = _Loop(model, optimizer, settings, examples, len(steps))
    begin, losses = time.monotonic(), [loop.evaluate(held_out, 1024)]
    history = []
    for number, step in enumerate(steps):
        history.append(loop.step(number, step))
        if (number + 1) % (len(steps) // EPOCHS) == 0:
            losses.append(loop.evaluate(held_out, 1024))
    shown = {"examples": len(examples), "held_out": len(held_out), "steps": len(steps), "tokens": sum(row["tokens"] for row in history)}
    return {"held_out_loss": losses, "train_loss": [row["loss"] for row in history], "seconds": round(time.monotonic() - begin, 1), **shown}


def table(results: list[dict[str, Any]]) -> str:
    """Mean and spread over seeds; the difference to the plan is taken seed by seed."""
    by_variant: dict[str, dict[int, float]] = {}
    for row in results:
        by_variant.setdefault(row["variant"], {})[row["seed"]] = row["held_out_loss"][-1]
    before = statistics.mean(row["held_out_loss"][0] for row in results)
    plan = by_variant[next(iter(VARIANTS))]
    lines = [f"Held-out loss before: {before:.4f}", "", "| | held-out loss after | difference to the plan, seed by seed | seeds |", "|---|---|---|---|"]
    for name in VARIANTS:
        found = by_variant.get(name, {})
        if not found:
            continue
        pairs = [found[seed] - plan[seed] for seed in found if seed in plan]
        spread = f" ± {statistics.stdev(found.values()):.4f}" if len(found) > 1 else ""
        difference = "-" if name == next(iter(VARIANTS)) else f"{statistics.mean(pairs):+.4f} ({min(pairs):+.4f} to {max(pairs):+.4f})"
        lines.append(f"| {name} | {statistics.mean(found.values()):.4f}{spread} | {difference} | {len(found)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=Path)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    done = [json.loads(line) for line in given.results.read_text().splitlines()] if given.results.exists() else []
    if given.table:
        print(table(done))
        return
    for seed in range(given.seeds):
        for name, changes in VARIANTS.items():
            if any(row["variant"] == name and row["seed"] == seed for row in done) or (name.startswith("unpacked") and seed):
                continue
            row = {"variant": name, "seed": seed, **run(given.base, given.corpus, changes, seed)}
            with given.results.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(name, seed, [round(loss, 4) for loss in row["held_out_loss"]], row["seconds"], flush=True)


if __name__ == "__main__":
    main()
