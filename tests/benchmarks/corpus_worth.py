"""What each source of the project's corpus is worth on a small real model: trained with all of them, and with each left out in turn.

    .elson/envs/train/bin/python -m runners base make smollm2 --out /tmp/smollm2
    .venv/bin/elson data build --out /tmp/corpus
    PYTHONPATH=. OMP_NUM_THREADS=1 .elson/envs/train/bin/python tests/benchmarks/corpus_worth.py run /tmp/smollm2 /tmp/corpus /tmp/worth
    PYTHONPATH=. .venv/bin/python tests/benchmarks/corpus_worth.py table /tmp/worth

    PYTHONPATH=. .elson/envs/train/bin/python tests/benchmarks/corpus_worth.py run /tmp/smollm2 /tmp/corpus /tmp/worth --keep /tmp/models
    PYTHONPATH=. .venv/bin/python tests/benchmarks/corpus_worth.py answers /tmp/models /tmp/corpus /tmp/runs
    .venv/bin/elson compare /tmp/runs/questions-0 /tmp/runs/all-0

Each finished training is a file in the last folder and is not repeated, so a run can be stopped; ``--seeds 1`` runs one seed.
Within a seed all trainings start from the same adapter and have the same number of steps and examples. Where a source is left out, each of its places is
taken by the next unused pair of the other sources; all other places keep their pair. Examples are drawn with the shares that the sources have.

Measured on pairs that no training sees: the loss of the answers, by source. And on benchmark cases: whether a right answer is likelier by token than a wrong
one; the two models' cases are compared with the test of `elson compare`. ``answers`` serves each kept model with vLLM and runs `elson evaluate` on three cases
of each domain, for `elson compare`; a model of this size concludes next to nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from runners.evaluation.statistics import compare, student_t

ROOT = Path(__file__).parents[2]
#: As in data/sources.yaml, with the questions divided: those with earlier turns, or with a passage or table in the prompt, are a source of their own here.
SOURCES = ("questions", "turns and tables", "guides", "problems", "catalogue")
#: Small, so that a run takes about a minute of one core. Pairs of more tokens (template included) are left out.
EXAMPLES, BATCH, LONGEST, HELD_OUT, CASES = 32, 4, 320, 6, 24
#: The plan's adapter and learning rate, at a rank that fits a model of 135M parameters.
CHANGES = {"rank": 32, "alpha": 64, "learning_rate": 4e-4, "batch_examples": BATCH, "epochs": 1, "precision": "bf16"}

#: Three cases of each domain. Few tokens: a model of this size goes on for ever.
EVALUATION = {"profile": "worth", "evaluate": {"concurrency": 32, "max_cases": 3, "max_tokens": 96, "request_timeout_s": 600}}


def source_of(row: dict[str, Any]) -> str:
    """The source of a pair, one of SOURCES."""
    if row["source"] == "questions" and (row.get("history") or "\n" in row["question"].strip()):
        return "turns and tables"
    return str(row["source"])


def draw(sources: Sequence[str], count: int, seed: int, without: str | None) -> list[int]:
    """Indexes of ``count`` training pairs in their order. The same seed gives the same pairs in the same places, but for those of the source left out.

    Raises:
        ValueError: fewer than ``count`` pairs are left.
    """
    order = list(range(len(sources)))
    random.Random(f"examples {seed}").shuffle(order)
    spare = iter([index for index in order[count:] if sources[index] != without])
    try:
        return [index if sources[index] != without else next(spare) for index in order[:count]]
    except StopIteration:
        raise ValueError(f"fewer than {count} pairs without {without}") from None


def hold_out(validation: Sequence[str], training: Sequence[str], count: int) -> tuple[list[int], list[int]]:
    """Of each source ``count`` pairs that no training sees: of the validation split, and where it has too few, of the training split. Indexes into both."""
    kept: list[int] = []
    taken: list[int] = []
    for source in SOURCES:
        have = [index for index, one in enumerate(validation) if one == source][:count]
        more = [index for index, one in enumerate(training) if one == source]
        kept += have
        taken += random.Random(f"held out {source}").sample(more, min(len(more), count - len(have)))
    return kept, sorted(taken)


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and its 95 % interval (Student's t), of two values or more."""
    mean, reach = statistics.fmean(values), student_t(len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return mean, mean - reach, mean + reach


def losses(run: dict[str, Any], group: str | None, key: str) -> float:
    """Mean loss per answer token of a run's held-out pairs whose ``key`` is ``group`` (None: of all)."""
    rows = [row for row in run["held_out"] if group is None or row[key] == group]
    return float(sum(row["loss"] for row in rows) / sum(row["tokens"] for row in rows))


def by_seed(runs: Iterable[dict[str, Any]]) -> dict[str | None, dict[int, dict[str, Any]]]:
    """Runs by the source left out (None: the whole corpus), then by seed."""
    found: dict[str | None, dict[int, dict[str, Any]]] = {}
    for run in runs:
        found.setdefault(run["without"], {})[run["seed"]] = run
    return found


def cell(with_all: dict[int, dict[str, Any]], left_out: dict[int, dict[str, Any]], group: str | None, key: str = "source") -> str:
    """Loss without a source less the loss with all, seed by seed: mean and range. Above 0, the source helps."""
    pairs = [losses(left_out[seed], group, key) - losses(with_all[seed], group, key) for seed in sorted(left_out.keys() & with_all.keys())]
    return f"{statistics.fmean(pairs):+.3f} ({min(pairs):+.3f} to {max(pairs):+.3f})"


def chosen_cases(run: dict[str, Any]) -> dict[str, bool]:
    """Of each case, whether the right answer was likelier by token than the wrong one."""
    return {case: margin > 0 for case, margin in run["margins"].items()}


def verdict(with_all: dict[int, dict[str, Any]], left_out: dict[int, dict[str, Any]]) -> str:
    """Cases of all seeds, with all sources against without one: McNemar's test, and the change of the margin with its interval over the cases."""
    seeds = sorted(left_out.keys() & with_all.keys())
    this = {f"{seed} {case}": right for seed in seeds for case, right in chosen_cases(with_all[seed]).items()}
    other = {f"{seed} {case}": right for seed in seeds for case, right in chosen_cases(left_out[seed]).items()}
    found = compare(this, other)
    # Seeds ask the same cases, so a case is one observation: its mean over the seeds.
    cases = with_all[seeds[0]]["margins"]
    changes = [statistics.fmean(with_all[seed]["margins"][case] - left_out[seed]["margins"][case] for seed in seeds) for case in cases]
    mean, low, high = interval(changes)
    return f"{found.only_this} / {found.only_other} of {found.cases}, p = {found.p_value:.2f} | {mean:+.4f} ({low:+.4f} to {high:+.4f})"


def table(runs: list[dict[str, Any]]) -> str:
    """The page's tables from the runs that are there."""
    found = by_seed(runs)
    base, whole = found["base"][0], found[None]
    left = [source for source in SOURCES if source in found]
    after = statistics.fmean(losses(run, None, "source") for run in whole.values())
    right = [sum(chosen_cases(run).values()) for run in whole.values()]
    lines = [
        f"Held-out loss {losses(base, None, 'source'):.3f} before, {after:.3f} after with all sources; "
        f"{sum(chosen_cases(base).values())} of {len(base['margins'])} cases before, {min(right)} to {max(right)} after.",
        "",
        f"| left out | pairs replaced, of {EXAMPLES} | all | {' | '.join(SOURCES)} |",
        f"|---|---|{'---|' * (len(SOURCES) + 1)}",
    ]
    for source in left:
        replaced = "; ".join(str(whole[seed]["drawn"].get(source, 0)) for seed in sorted(whole.keys() & found[source].keys()))
        cells = [cell(whole, found[source], group) for group in (None, *SOURCES)]
        lines.append(f"| {source} | {replaced} | {' | '.join(cells)} |")
    lines += ["", "| left out | cases gained / lost with the source, exact McNemar | margin in nats a token with the source, less without (95 % over cases) |"]
    lines += ["|---|---|---|", *(f"| {source} | {verdict(whole, found[source])} |" for source in left)]
    categories = sorted({row["category"] for row in base["held_out"]})
    lines += ["", f"| domain (held-out pairs) | {' | '.join(f'without {source}' for source in left)} |", f"|---|{'---|' * len(left)}"]
    for category in categories:
        count = sum(row["category"] == category for row in base["held_out"])
        lines.append(f"| {category} ({count}) | {' | '.join(cell(whole, found[source], category, 'category') for source in left)} |")
    return "\n".join(lines)


def train(base: Path, material: tuple[list[Any], list[Any], list[Any]], without: str | None, seed: int, keep: Path | None = None) -> dict[str, Any]:
    """One training and what is measured of it. ``without`` "base" measures the base model; ``keep`` is a folder for the trained model, adapter merged."""
    import torch

    from runners import spec as declared
    from runners.compression import forgetting, merge
    from runners.training import adapted_model, attention, batches
    from runners.training.train import _Loop

    pool, held_out, cases = material
    settings = declared.parse({"train": {**CHANGES, "seed": seed}}).train
    chosen = [pool[index] for index in draw([source_of(row) for row, _ in pool], EXAMPLES, seed, without)]
    examples, begin = [example for _, example in chosen], time.process_time()
    torch.manual_seed(seed)
    model = adapted_model.load_base(base, settings.precision, "cpu", attention.prepare("cpu"))
    model = adapted_model.with_new_adapter(model, settings, "smollm2")
    steps = batches.plan([len(one) for one in examples], BATCH, 1, 1024, seed) if without != "base" else []
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=settings.learning_rate, fused=True)
    loop = _Loop(model, optimizer, settings, examples, len(steps))
    history = [loop.step(number, step) for number, step in enumerate(steps)]
    trained_s = time.process_time() - begin
    if keep:
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder, save_embedding_layers=False)
            merge.merge_streaming(base, Path(folder), keep)
    measured = [
        {"source": source_of(row), "category": row["category"], "loss": loop.evaluate([one], 1024) * one.answer_tokens, "tokens": one.answer_tokens}
        for row, one in held_out
    ]
    model.set_attn_implementation("sdpa")
    # As the loop does it: the adapter is in fp32, the frozen weights are not.
    with torch.autocast("cpu", dtype=model.dtype, enabled=model.dtype != torch.float32):
        able = forgetting.ability(model, [question for _, question in cases])
    margins = {
        id: scores[0] / len(question.answers[0]) - scores[1] / len(question.answers[1]) for (id, question), scores in zip(cases, able.scores, strict=True)
    }
    drawn = {source: sum(source_of(row) == source for row, _ in chosen) for source in SOURCES}
    shown = {"drawn": drawn, "steps": len(steps), "tokens": sum(row["tokens"] for row in history), "answer_tokens": sum(r["answer_tokens"] for r in history)}
    spent = {"train_processor_s": round(trained_s, 1), "processor_s": round(time.process_time() - begin, 1)}
    return {"without": without, "seed": seed, "held_out": measured, "margins": margins, "train_loss": [row["loss"] for row in history], **shown, **spent}


def material(base: Path, corpus: Path) -> tuple[list[Any], list[Any], list[Any]]:
    """Training pairs and held-out pairs, each a (row, Example), and benchmark cases as (id, Question with the right answer first)."""
    from runners import spec as declared
    from runners.compression.forgetting import Question
    from runners.evaluation import cases
    from runners.training.examples import load_tokenizer, read_rows, tokenize

    tokenizer, chat = load_tokenizer(base), declared.Spec().chat

    def fitting(split: str) -> list[Any]:
        rows = read_rows(corpus, split)
        return [both for both in zip(rows, tokenize(rows, tokenizer, chat.system_prompt, 8192, split), strict=True) if len(both[1]) <= LONGEST]

    pool, validation = fitting("train"), fitting("validation")
    kept, taken = hold_out([source_of(row) for row, _ in validation], [source_of(row) for row, _ in pool], HELD_OUT)
    held_out = [*(validation[index] for index in kept), *(pool[index] for index in taken)]
    answers = yaml.safe_load((ROOT / "tests/data/benchmark_answers.yaml").read_text())
    ids = functools.partial(tokenizer, add_special_tokens=False)
    asked = []
    for case in cases.load(ROOT / "data/benchmark").cases:
        if both := [answers[case.id][name] for name in ("right", "wrong") if name in answers[case.id]]:
            prompt = tokenizer.apply_chat_template(cases.messages(case, chat), tokenize=False, add_generation_prompt=True)
            question = Question(tuple(ids(prompt)["input_ids"]), tuple(tuple(ids(one)["input_ids"]) for one in both), case.category)
            if len(both) == 2 and len(question.prompt) + sum(map(len, question.answers)) <= LONGEST:
                asked.append((case.id, question))
    asked = random.Random("cases").sample(asked, min(len(asked), CASES))
    return [both for index, both in enumerate(pool) if index not in set(taken)], held_out, sorted(asked, key=lambda one: one[0])


def answers(models: Path, corpus: Path, runs: Path, port: int) -> None:
    """Serve each model of a folder as `elson serve` does on a CPU, and evaluate it into ``runs/<its name>``. A finished run is not repeated."""
    from runners import environments
    from runners.serving import group, serve
    from runners.spec import ServeSpec

    runs.mkdir(parents=True, exist_ok=True)
    spec, interpreter = runs / "answers.yaml", environments.python("serve")
    spec.write_text(json.dumps(EVALUATION))
    for folder in sorted(models.iterdir()):
        out = runs / folder.name
        if (out / "results.json").exists():
            continue
        settings = ServeSpec(served_model_name=folder.name, max_model_tokens=2048, max_sequences=32, cpu_kv_cache_mib=1024)
        arguments = serve.vllm_arguments(settings, folder, device="cpu", quantized=False, port=port)
        command = [str(interpreter), str(interpreter.parent / "vllm"), *arguments]
        with group.running(command, serve.vllm_environment("worth", device="cpu", work=runs), runs / f"{folder.name}.log") as server:
            while not _healthy(port):
                if server.poll() is not None:
                    raise SystemExit(f"vLLM ended with {server.returncode}: see {runs / folder.name}.log")
                time.sleep(1)
            asked = ["--api-url", f"http://127.0.0.1:{port}", "--model", folder.name, "--dataset", str(corpus), "--spec", str(spec), "--out", str(out)]
            found = subprocess.run([sys.executable, "-m", "runners", "evaluate", *asked], env=os.environ | {"ELSON_API_KEY": "worth"}, check=False)
        # 1: measured, and below the bars.
        if found.returncode not in (0, 1):
            raise SystemExit(f"elson evaluate ended with {found.returncode}")


def _healthy(port: int) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
        return bool(answer.status == 200)
    return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run")
    run.add_argument("base", type=Path)
    run.add_argument("corpus", type=Path)
    run.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    run.add_argument("--left-out", nargs="+", choices=("base", "none", *SOURCES), default=("base", "none", *SOURCES), help="which trainings")
    run.add_argument("--keep", type=Path, help="folder for the trained models, one folder each; what is not there is trained again")
    for command in (run, commands.add_parser("table")):
        command.add_argument("results", type=Path)
    serving = commands.add_parser("answers")
    for name in ("models", "corpus", "runs"):
        serving.add_argument(name, type=Path)
    serving.add_argument("--port", type=int, default=18711)
    given = parser.parse_args()
    if given.command == "answers":
        answers(given.models.resolve(), given.corpus, given.runs.resolve(), given.port)
        return
    if given.command == "table":
        print(table([json.loads(file.read_text()) for file in sorted(given.results.glob("*.json"))]))
        return
    given.results.mkdir(parents=True, exist_ok=True)
    found = material(given.base, given.corpus)
    for seed in given.seeds:
        for without in [None if one == "none" else one for one in given.left_out if one != "base" or seed == 0]:
            name = f"{without or 'all'}-{seed}".replace(" ", "-")
            file, kept = given.results / f"{name}.json", given.keep / name if given.keep and without != "base" else None
            if not file.exists() or (kept and not kept.exists()):
                row = train(given.base, found, without, seed, kept)
                file.with_suffix(".part").write_text(json.dumps(row))
                file.with_suffix(".part").rename(file)
                print(file.stem, f"{losses(row, None, 'source'):.4f}", row["drawn"], row["tokens"], row["train_processor_s"], row["processor_s"], flush=True)


if __name__ == "__main__":
    main()
