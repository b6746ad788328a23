"""The gate on forgetting, on a real model of 135M parameters: usual trainings and the base itself must pass, a wrong learning rate must not.

Trains adapters with the demo's settings, 8 steps of 4 examples each, at the demo's learning rate and at multiples of it, and asks base and merged models the
general questions. Noise is the base itself in bf16, with the rounding of a merge under five seeds, and read in other portions; for comparison,
the base in 4 bits by round-to-nearest. ``--demo`` is the merged model of a whole `elson run`.
Writes WORK/forgetting.json, from which ``page`` fills in GATES.md. ``judge`` ends with 1 when a sound model is refused or a damaged one passes.

    elson base make smollm2 --out BASE; elson data build --out CORPUS
    .elson/envs/train/bin/python tests/benchmarks/training_forgetting.py train WORK --base BASE --corpus CORPUS [--only x30]
    .elson/envs/train/bin/python tests/benchmarks/training_forgetting.py judge WORK --base BASE [--demo MERGED]
    .elson/envs/train/bin/python tests/benchmarks/training_forgetting.py page WORK
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import os
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from runners.processes import QUIET_THREADS

os.environ.update(QUIET_THREADS)

import torch

from runners import spec as declared
from runners.compression import forgetting, gates, merge
from runners.compression.general import AREAS
from runners.spec import Spec
from runners.training.examples import load_tokenizer, messages

PAGE = Path(__file__).with_name("GATES.md")
#: Multiples of the demo's learning rate, each with the seeds it is trained with.
TRAININGS = {1: (0, 1), 3: (0,), 10: (0,), 30: (1,), 100: (0,)}
NAMES = [(f"x{factor}-{seed}", factor, seed) for factor, seeds in TRAININGS.items() for seed in seeds]
#: From so many times the right learning rate on, a model is damaged: its answers in the table show it.
DAMAGED = 30
SHOWN = ("What is the capital of France?", "How does compound interest work?")


def spec_of(factor: float, seed: int) -> Spec:
    """The demo's settings with another learning rate, and fewer examples."""
    spec = declared.load(Path(__file__).parents[2] / "runners" / "profiles" / "local.yaml")
    few = {"batch_examples": 4, "max_train_examples": 16, "max_validation_examples": 6, "minimum_steps": 8}
    changes = {**few, "learning_rate": spec.train.learning_rate * factor, "seed": seed}
    return spec.model_copy(update={"train": spec.train.model_copy(update=changes)})


def train_all(work: Path, base: Path, corpus: Path, only: str) -> None:
    """One merged model for each learning rate and seed; those that are there are kept."""
    from runners.training import train

    def last(state: Any, loss: float) -> Any:
        """The last adapter is kept, not the best: what is held here is the merge's gate alone."""
        return replace(kept(state, loss), best_step=state.step, bad_evaluations=0)

    kept, train.judge = train.judge, last
    for name, factor, seed in NAMES:
        if name.startswith(only) and not (work / name / "merged").exists():
            result = train.train(spec_of(factor, seed), base, corpus, work / name)
            losses = [row["loss"] for row in result.metrics["validation"]]
            (work / name / "losses.json").write_text(json.dumps(losses))
            merge.merge_streaming(base, result.adapter, work / name / "merged")
            shutil.rmtree(work / name / "checkpoints", ignore_errors=True)
            print(name, losses, file=sys.stderr, flush=True)


def judge(work: Path, base: Path, demo: Path | None) -> int:
    """Every row of the table; returns how many are on the wrong side of the gate."""
    tokenizer, spec = load_tokenizer(base), spec_of(1, 0)
    questions = forgetting.general_questions(spec, tokenizer)
    plain = gates.load_plain(base, "cpu", torch.float32)
    begin = time.process_time()
    before = forgetting.ability(plain, questions)
    found: dict[str, Any] = {"seconds": time.process_time() - begin, "right": sum(before.right), "areas": areas(before), "nats": before.nats, "rows": []}

    def row(name: str, kind: str, model: Any, losses: list[float] | None = None) -> None:
        after = forgetting.ability(model, questions)
        held, measured = forgetting.held(spec.merge, before, after)
        said = [answer(model, tokenizer, question, spec) for question in SHOWN] if kind != "noise" else []
        values = {gate.name: [gate.value, gate.passed] for gate in held}
        found["rows"].append({"name": name, "kind": kind, "gates": values, "areas": areas(after), "losses": losses, "said": said, **measured})
        print(name, values, said, file=sys.stderr, flush=True)

    row("base in bf16", "noise", gates.load_plain(base, "cpu", torch.bfloat16))
    for seed in range(5):
        rounded = copy.deepcopy(plain)
        merge.round_again(list(rounded.named_modules()), seed)
        row(f"base, rounded as by a merge, seed {seed}", "noise", rounded)
    portion, forgetting._PASS_TOKENS = forgetting._PASS_TOKENS, 300
    row("base, read in smaller portions", "noise", plain)
    forgetting._PASS_TOKENS = portion
    row("base itself", "sound", plain)
    with torch.no_grad():
        for module in rounded.model.modules():
            if isinstance(module, torch.nn.Linear):
                module.weight.copy_(gates.round_to_nearest(module.weight, 64))
    row("base in 4 bits, round-to-nearest", "shown", rounded)
    if demo:
        row("demo, learning rate x 1", "sound", gates.load_plain(demo, "cpu", torch.float32))
    for name, factor, seed in NAMES:
        if (place := work / name).exists():
            kind = "damaged" if factor >= DAMAGED else "sound" if factor == 1 else "shown"
            model = gates.load_plain(place / "merged", "cpu", torch.float32)
            row(f"8 steps, learning rate x {factor}, seed {seed}", kind, model, json.loads((place / "losses.json").read_text()))
    (work / "forgetting.json").write_text(json.dumps(found, indent=1))
    passed = {"sound": True, "noise": True, "damaged": False}
    return sum(all(ok for _, ok in one["gates"].values()) != passed[one["kind"]] for one in found["rows"] if one["kind"] in passed)


def areas(able: forgetting.Ability) -> dict[str, int]:
    """Right answers of each area."""
    left = iter(able.right)
    return {area: sum(itertools.islice(left, len(items))) for area, items in AREAS.items()}


def answer(model: Any, tokenizer: Any, question: str, spec: Spec) -> str:
    """The first words of a greedy answer."""
    asked = messages({"question": question}, spec.chat.system_prompt)
    ids = tokenizer(tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True), add_special_tokens=False, return_tensors="pt")
    with torch.no_grad():
        whole = model.generate(**ids, do_sample=False, max_new_tokens=24, pad_token_id=0)[0]
    return str(tokenizer.decode(whole[ids["input_ids"].shape[1] :], skip_special_tokens=True)).strip()


def page(work: Path) -> None:
    """Put the table of the record into GATES.md, between its marks."""
    text, (begin, end) = PAGE.read_text(), ("<!-- forgetting: from the record -->\n", "<!-- forgetting: end -->")
    before, rest = text.split(begin)
    PAGE.write_text(before + begin + table(json.loads((work / "forgetting.json").read_text())) + end + rest.split(end)[1])


def table(found: dict[str, Any]) -> str:
    """The record in Markdown, and what the models that say something say."""
    lines = [
        f"The base answers {found['right']} of 96 right ({by_area(found['areas'])}; guessing gives 24), at {found['nats']:.3f} nats a token.",
        f"Reading the set once took {found['seconds']:.1f} processor seconds (under load).",
        "",
        "| model | nats a token lost | in the worst area | share lost, 95 % interval | right: knowledge, arithmetic, instructions | held-out loss | gate |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in found["rows"]:
        (nats, _), (share, _), (worst, _) = row["gates"].values()
        passed = all(ok for _, ok in row["gates"].values())
        interval = f"{share:.3f} ({row['general_share_lost_from']:.3f} to {row['general_share_lost_to']:.3f})"
        losses = f"{row['losses'][0]:.2f}, {row['losses'][-1]:.2f}" if row["losses"] else ""
        verdict = "passes" if passed else "**refused**"
        lines.append(
            f"| {row['name']} | {nats:.3f} | {worst:.3f} | {interval} | {row['general_right_after']}: {by_area(row['areas'])} | {losses} | {verdict} |"
        )
    lines += ["", *(f"| model | {' | '.join(SHOWN)} |\n|---|{'---|' * len(SHOWN)}".split("\n"))]
    lines += [f"| {row['name']} | {' | '.join(quoted(said) for said in row['said'])} |" for row in found["rows"] if row["said"]]
    return "\n".join(lines) + "\n"


def by_area(right: dict[str, int]) -> str:
    """Right answers of each area."""
    return ", ".join(str(count) for count in right.values())


def quoted(said: str) -> str:
    """An answer's beginning as a cell of a table."""
    return " ".join(said.replace("|", "/").replace("`", "'").split())[:90]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["train", "judge", "page"])
    parser.add_argument("work", type=Path)
    parser.add_argument("--base", type=Path)
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--demo", type=Path)
    parser.add_argument("--only", default="", help="trainings whose name begins with this, such as x30 or x1-0")
    given = parser.parse_args()
    if given.command == "train":
        train_all(given.work, given.base, given.corpus, given.only)
    elif given.command == "judge":
        sys.exit(1 if judge(given.work, given.base, given.demo) else 0)
    else:
        page(given.work)


if __name__ == "__main__":
    main()
