"""Planted damages against the gates of merge and quantize: what is caught, by which gate, and whether an undamaged model is ever refused.

Tiny models of three architectures, ten seeds each, an adapter trained by the project's loop; then each damage is done to the files (or to the
formula) and the gates judge what lies on the disk. Writes WORK/merge.json or WORK/quantize.json, from which ``page`` fills in GATES.md.
Ends with 1 when a damage passes or a sound model is refused.

    .elson/envs/train/bin/python tests/benchmarks/training_damage.py make WORK [--seeds 10]
    .elson/envs/train/bin/python tests/benchmarks/training_damage.py merge WORK
    .elson/envs/quantize/bin/python tests/benchmarks/training_damage.py quantize WORK
    .elson/envs/train/bin/python tests/benchmarks/training_damage.py page WORK
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch

from runners import spec as declared
from runners.errors import UserError
from runners.spec import Spec
from runners.training.examples import load_tokenizer, validation_split
from tests.benchmarks import damages

#: What each differs in from the tiny Qwen2 (biases of q, k and v; fewer heads for keys than for queries; one file). The others are in several files;
#: Qwen3 has norms of each head and as many heads for values as for queries, where AWQ scales v and o too.
ARCHITECTURES: dict[str, dict[str, int]] = {
    "qwen2": {},
    "llama": {},
    "qwen3": {"head_dim": 32, "num_attention_heads": 4, "num_key_value_heads": 4, "intermediate_size": 320, "num_hidden_layers": 3},
}
PAGE = Path(__file__).with_name("GATES.md")
#: Gates that compare answers alone; beside them, an error while loading.
ANSWERS = ("mean KL, merged against adapter", "top-1", "mean KL, quantized", "perplexity", "mean KL, below", "an error")
SHORT = {
    "tensors": "exact",
    "error of": "matrix",
    "mean KL, merged": "KL",
    "mean KL, q": "KL",
    "mean KL, below": "nearest",
    "top-1": "top-1",
    "mean KL, base": "adapter",
}


def spec_of(seed: int) -> Spec:
    small = {"rank": 4, "alpha": 8, "epochs": 1, "batch_examples": 8, "learning_rate": 4e-3, "precision": "fp32", "max_tokens": 512, "minimum_steps": 1}
    awq = {"group_size": 64, "calibration_tokens": 1024, "calibration_sequence_tokens": 128, "validation_examples": 8}
    sections = {"merge": {"max_mean_kl": 0.05, "min_top1_agreement": 0.9}, "quantize": awq, "base_model": {"name": "tiny"}}
    return declared.parse({"train": {**small, "micro_batch_tokens": 1024, "seed": seed}, **sections})


def make(work: Path, seeds: int) -> None:
    """Base, dataset and adapter of each architecture and seed, and an adapter of another seed for each."""
    from transformers import AutoConfig, AutoModelForCausalLM

    from runners.compression import merge
    from runners.local.base_model import TEXT, make_tiny
    from runners.training import train

    words = TEXT.split()
    for kind, sizes in ARCHITECTURES.items():
        for seed in range(seeds):
            place, chance = work / f"{kind}-{seed}", random.Random(seed)
            if (place / "merged").exists():
                continue
            make_tiny(place / "base", seed=seed)
            if kind != "qwen2":
                given = AutoConfig.from_pretrained(place / "base").to_dict()
                kept = {name: value for name, value in given.items() if name not in ("model_type", "architectures", "layer_types", "use_sliding_window")}
                torch.manual_seed(seed)
                model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**kept, **sizes})).to(torch.bfloat16)
                with torch.no_grad():
                    for layer in model.model.layers:
                        layer.input_layernorm.weight[::32] *= 8
                        layer.post_attention_layernorm.weight[::32] *= 8
                (place / "base" / "model.safetensors").unlink()
                model.save_pretrained(place / "base", max_shard_size="300KB")
            for split, count in (("train", 40), ("validation", 8)):
                lines = [
                    {
                        "id": f"{split}-{n}",
                        "question": " ".join(chance.choices(words, k=8)),
                        "answer": " ".join(chance.choices(words, k=chance.randint(10, 40))),
                    }
                    for n in range(count)
                ]
                (place / "dataset").mkdir(exist_ok=True)
                (place / "dataset" / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
            train.train(spec_of(seed), place / "base", place / "dataset", place / "work")
            shutil.move(place / "work" / "adapter", place / "adapter")
            merge.merge_streaming(place / "base", place / "adapter", place / "merged")
            print(place.name, file=sys.stderr, flush=True)


def judged(measure: Callable[[Path], Any], folder: Path) -> list[str]:
    """Names of the gates that failed, or the error that came first."""
    try:
        held, _ = measure(folder)
    except (UserError, KeyError, RuntimeError, ValueError, OSError) as error:
        return [f"an error: {type(error).__name__}"]
    return [gate.name for gate in held if not gate.passed] + (["an error while loading"] if len(held) == 1 else [])


def judge(work: Path, stage: str, only: str) -> int:
    """Judge every sound model, and every damage on the first seed of each architecture; returns how many went wrong."""
    places = sorted(place for place in work.iterdir() if (place / "merged").exists())
    made = "merged" if stage == "merge" else "awq"
    if stage == "quantize":
        quantize_all(places)
    closest: dict[str, float] = {}
    refused: dict[str, list[str]] = {}
    for place in places:
        held, _ = measure_of(stage, place)(place / made)
        for gate in held:
            name = gate.name.split(" (")[0]
            share = gate.value / gate.bound if gate.rule == "at most" and gate.bound else (gate.bound / gate.value if gate.value and gate.bound else 0.0)
            closest[name] = max(closest.get(name, 0.0), share)
        if failed := [gate.name for gate in held if not gate.passed]:
            refused[place.name] = failed
        print(place.name, failed or "sound", file=sys.stderr, flush=True)
    caught: dict[str, dict[str, list[str]]] = {}
    for kind in ARCHITECTURES:
        place, other = work / f"{kind}-0", work / f"{kind}-1"
        measure, planted = measure_of(stage, place), (damages.merge_damages if stage == "merge" else damages.quantize_damages)(place, other)
        for name, damage in planted.items():
            if only not in name:
                continue
            folder = work / "damaged"
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(place / made, folder)
            damage(folder)
            caught.setdefault(name, {})[kind] = judged(measure, folder)
            print(kind, name, caught[name][kind] or "NOT CAUGHT", file=sys.stderr, flush=True)
    missed = sum(not failed for kinds in caught.values() for failed in kinds.values())
    (work / f"{stage}.json").write_text(
        json.dumps({"taken": taken(), "sound": len(places), "refused": refused, "closest": closest, "caught": caught}, indent=1)
    )
    print(f"{stage}: {len(caught)} damages on {len(ARCHITECTURES)} models, {missed} not caught; {len(places)} sound models, {len(refused)} refused")
    return missed + len(refused)


def taken() -> str:
    """When and on what, for the page: which of equally good scales AWQ finds depends on the CPU."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return f"{datetime.now(UTC):%Y-%m-%d}, {cpu[1].strip() if cpu else 'a CPU'} ({torch.backends.cpu.get_cpu_capability()}), torch {torch.__version__}"


def measure_of(stage: str, place: Path) -> Callable[[Path], Any]:
    """What the stage itself calls to judge a folder."""
    spec = spec_of(0)
    if stage == "quantize":
        from runners.compression import quantize

        held_out = validation_split(spec, place / "dataset", load_tokenizer(place / "merged"))
        return lambda folder: quantize.measure(spec, place / "merged", folder, held_out)
    from runners.compression import merge

    return lambda folder: merge.measure(spec, place / "base", place / "adapter", folder, place / "dataset")


def quantize_all(places: list[Path]) -> None:
    """The sound folders are kept as the stage wrote them, whatever its gates say: they are judged in the table."""
    from runners.compression import quantize
    from runners.compression.gates import GateFailed

    for place in places:
        if not (place / "awq").exists():
            try:
                quantize.quantize(spec_of(0), place / "merged", place / "dataset", place)
            except GateFailed as error:
                print(place.name, error, file=sys.stderr)


def page(work: Path) -> None:
    """Put the tables of both records into GATES.md, each between its marks."""
    text = PAGE.read_text()
    for stage in ("merge", "quantize"):
        begin, end = f"<!-- {stage}: from the record -->\n", f"<!-- {stage}: end -->"
        before, rest = text.split(begin)
        text = before + begin + table(stage, json.loads((work / f"{stage}.json").read_text())) + end + rest.split(end)[1]
    PAGE.write_text(text)


def table(stage: str, found: dict[str, Any]) -> str:
    """A record in Markdown."""
    caught = found["caught"]
    missed = sum(not failed for kinds in caught.values() for failed in kinds.values())
    nearest = "; ".join(f"{name} {share:.2f}" for name, share in found["closest"].items())
    refused, about = len(found["refused"]), f"{found['taken']}: {len(caught)} damages on {len(ARCHITECTURES)} models"
    lines = [
        f"{about}, {missed} missed. {found['sound']} sound models, {refused} refused. Of those, the",
        f"nearest to each bound, as a share of it: {nearest}.",
        "",
        f"| damage to {'the merged model' if stage == 'merge' else 'the quantized model'} | {' | '.join(ARCHITECTURES)} | answers alone |",
        f"|---|{'---|' * (len(ARCHITECTURES) + 1)}",
    ]
    for name, kinds in caught.items():
        cells = [", ".join(sorted({short(one) for one in failed})) or "**passes**" for failed in kinds.values()]
        seen = sum(any(one.startswith(ANSWERS) for one in failed) for failed in kinds.values())
        alone = "caught" if seen == len(kinds) else f"caught in {seen} of {len(kinds)}" if seen else "passes"
        lines.append(f"| {name} | {' | '.join(cells)} | {alone} |")
    return "\n".join(lines) + "\n"


def short(gate: str) -> str:
    """The word of a gate in the table."""
    return next((word for begin, word in SHORT.items() if gate.startswith(begin)), gate.split(",")[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=["make", "merge", "quantize", "page"])
    parser.add_argument("work", type=Path)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--only", default="", help="damages with this in their name; 'none' judges sound models alone")
    given = parser.parse_args()
    if given.stage == "make":
        make(given.work, given.seeds)
    elif given.stage == "page":
        page(given.work)
    else:
        sys.exit(1 if judge(given.work, given.stage, given.only) else 0)


if __name__ == "__main__":
    main()
