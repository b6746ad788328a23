"""Planted damages against the gates of the merge: what is caught, by which gate, and whether an undamaged model is ever refused.

Tiny models of three architectures, ten seeds each, an adapter trained by the project's loop; then each damage is done to the files (or to the
formula) and the gates judge what lies on the disk. Prints a table in Markdown; ends with 1 when a damage passes or a sound model is refused.

    .elson/envs/train/bin/python tests/benchmarks/training_damage.py make WORK [--seeds 10]
    .elson/envs/train/bin/python tests/benchmarks/training_damage.py merge WORK
"""

from __future__ import annotations

import argparse
import functools
import json
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
from safetensors.torch import load_file, save_file

from runners import spec as declared
from runners.errors import UserError
from runners.spec import Spec

ARCHITECTURES = ("qwen2", "llama", "mistral")
Tensors = dict[str, torch.Tensor]
Damage = Callable[[Path], None]
#: The gates there were before: distances of answers alone, with bounds that know nothing of the model.
OLD = ("mean KL, merged against adapter", "top-1", "mean KL, quantized", "perplexity", "mean KL, below")


def spec_of(seed: int, **quantize: float) -> Spec:
    small = {"rank": 4, "alpha": 8, "epochs": 1, "batch_examples": 8, "learning_rate": 4e-3, "precision": "fp32", "max_tokens": 512, "minimum_steps": 1}
    awq = {"group_size": 64, "calibration_tokens": 1024, "calibration_sequence_tokens": 128, "validation_examples": 8}
    awq |= {"max_mean_kl": 3.0, "max_perplexity_ratio": 3.0, "must_beat_round_to_nearest": False, **quantize}
    sections = {"merge": {"max_mean_kl": 0.05, "min_top1_agreement": 0.9}, "quantize": awq, "base_model": {"name": "tiny"}}
    return declared.parse({"train": {**small, "micro_batch_tokens": 1024, "seed": seed}, **sections})


def make(work: Path, seeds: int) -> None:
    """Base, dataset and adapter of each architecture and seed, and an adapter of another seed for each."""
    from transformers import AutoConfig, AutoModelForCausalLM

    from runners.compression import merge
    from runners.local.base_model import TEXT, make_tiny
    from runners.training import train

    words = TEXT.split()
    for kind in ARCHITECTURES:
        for seed in range(seeds):
            place, chance = work / f"{kind}-{seed}", random.Random(seed)
            if (place / "merged").exists():
                continue
            make_tiny(place / "base", seed=seed)
            if kind != "qwen2":
                given = AutoConfig.from_pretrained(place / "base").to_dict()
                kept = {name: value for name, value in given.items() if name not in ("model_type", "architectures", "layer_types", "use_sliding_window")}
                sizes = {"sliding_window": 4096} if kind == "mistral" else {}
                torch.manual_seed(seed)
                model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**kept, **sizes})).to(torch.bfloat16)
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


def rewritten(change: Callable[[Tensors], Tensors | None]) -> Damage:
    """A change of the tensors of every file of a folder, together, each written back where it was."""

    def damage(folder: Path) -> None:
        files = {file: load_file(file) for file in sorted(folder.glob("*.safetensors"))}
        place = {name: file for file, tensors in files.items() for name in tensors}
        everything = {name: tensor for tensors in files.values() for name, tensor in tensors.items()}
        everything = change(everything) or everything
        for file in files:
            save_file({name: one.contiguous() for name, one in everything.items() if place.get(name, file) == file}, file, metadata={"format": "pt"})

    return damage


def each(part: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Damage:
    """A change of every tensor whose name has ``part`` in it."""
    return rewritten(lambda tensors: {name: change(tensor).to(tensor.dtype) if part in name else tensor for name, tensor in tensors.items()})


def swapped(one: str, two: str) -> Damage:
    """Tensors whose names differ in ``one`` and ``two`` change places."""

    def change(tensors: Tensors) -> Tensors:
        pairs = {name: name.replace(one, two) for name in tensors if one in name and name.replace(one, two) in tensors}
        return {**tensors, **{a: tensors[b] for a, b in pairs.items()}, **{b: tensors[a] for a, b in pairs.items()}}

    return rewritten(change)


def text(name: str, change: Callable[[str], str]) -> Damage:
    """A change of a text file."""

    def damage(folder: Path) -> None:
        (folder / name).write_text(change((folder / name).read_text()))

    return damage


def values(name: str, **changes: Any) -> Damage:
    return text(name, lambda found: json.dumps({**json.loads(found), **changes}))


def two_words_swapped(found: str) -> str:
    tokenizer = json.loads(found)
    vocabulary = tokenizer["model"]["vocab"]
    one, two = list(vocabulary)[-1], list(vocabulary)[-2]
    vocabulary[one], vocabulary[two] = vocabulary[two], vocabulary[one]
    return json.dumps(tokenizer)


def renamed_shards(folder: Path) -> None:
    """Two files change their names; of a single file, the index that names it."""
    files = sorted(folder.glob("*.safetensors"))
    if len(files) == 1:
        (folder / "model.safetensors.index.json").write_text(
            json.dumps({"metadata": {}, "weight_map": dict.fromkeys(load_file(files[0]), "model-2.safetensors")})
        )
        return
    data = [file.read_bytes() for file in files[:2]]
    files[0].write_bytes(data[1])
    files[1].write_bytes(data[0])


TEXTS: dict[str, Damage] = {
    "template: no system prompt": text(
        "chat_template.jinja",
        lambda found: found.replace("{{ message['content'] }}", "{% if message['role'] != 'system' %}{{ message['content'] }}{% endif %}"),
    ),
    "template: of another family": text("chat_template.jinja", lambda found: found.replace("<|im_start|>", "[").replace("<|im_end|>\n", "<|im_end|>")),
    "template: one space more": text("chat_template.jinja", lambda found: found.replace("\n{{", "\n {{")),
    "tokenizer: two words change places": text("tokenizer.json", two_words_swapped),
    "tokenizer: another end token": values("tokenizer_config.json", eos_token="<|endoftext|>"),
    "generation config: it samples": values("generation_config.json", do_sample=True, temperature=1.5),
    "config: rope theta": values("config.json", rope_parameters={"rope_type": "default", "rope_theta": 1000.0}),
    "config: epsilon of the norms": values("config.json", rms_norm_eps=1e-2),
    "shards change places": renamed_shards,
}


def merge_damages(place: Path, other: Path) -> dict[str, Damage]:
    """Of a merged folder; ``other`` is a model of another seed."""
    from runners.compression import merge

    def formula(change: Callable[..., Any], part: str = "") -> Damage:
        """The merge done again, with another formula for the layers whose names have ``part`` in them."""

        def damage(folder: Path) -> None:
            real = merge.merged_weight
            base = {name: tensor for file in (place / "base").glob("*.safetensors") for name, tensor in load_file(file).items()}
            adapter, config = load_file(place / "adapter" / "adapter_model.safetensors"), json.loads((place / "adapter" / "adapter_config.json").read_text())
            layers = merge._by_layer(adapter, config, place / "adapter")
            scaling = config["lora_alpha"] / config["r"]
            made = {name: change(base[name].float(), layer, scaling, real) for name, layer in layers.items() if part in name}
            rewritten(lambda tensors: {**tensors, **{name: one.to(torch.bfloat16) for name, one in made.items()}})(folder)

        return damage

    def left_out(weight: Any, _layer: Any, _scaling: float, _real: Any) -> Any:
        return weight

    def scaled(factor: float) -> Callable[..., Any]:
        return lambda weight, layer, scaling, real: real(weight, layer, factor * scaling)

    def without_magnitude(weight: Any, layer: Any, scaling: float, real: Any) -> Any:
        return real(weight, {name: one for name, one in layer.items() if "magnitude" not in name}, scaling)

    def without_norm(weight: Any, layer: Any, scaling: float, real: Any) -> Any:
        return without_magnitude(weight, layer, scaling, real) * (layer["lora_magnitude_vector"] / weight.norm(dim=1))[:, None]

    def twice(weight: Any, layer: Any, scaling: float, real: Any) -> Any:
        return real(real(weight, layer, scaling), layer, scaling)

    def of(folder: Path) -> Damage:
        return lambda merged: [shutil.copy(file, merged / file.name) for file in folder.glob("*.safetensors")] and None

    def wrong_adapter(merged: Path) -> None:
        shutil.rmtree(merged)
        merge.merge_streaming(place / "base", other / "adapter", merged)

    first, matrix = "layers.0.", "layers.0.self_attn.k_proj.weight"
    scopes = {"k_proj of one layer": matrix, "every k_proj": "k_proj", "one decoder layer": first, "all layers": ""}
    found: dict[str, Damage] = {}
    for scope, part in scopes.items():
        found[f"{scope}: not merged"] = formula(left_out, part)
        found[f"{scope}: alpha / r 10 % off"] = formula(scaled(1.1), part)
        found[f"{scope}: sign of the change"] = formula(scaled(-1.0), part)
        found[f"{scope}: without magnitudes"] = formula(without_magnitude, part)
        found[f"{scope}: norms of the base alone"] = formula(without_norm, part)
        found[f"{scope}: merged twice"] = formula(twice, part)
    found |= {
        "one matrix: 1 % larger": each(matrix, lambda one: one * 1.01),
        "one matrix: rows in reverse order": each(matrix, lambda one: one.flip(0)),
        "one matrix: columns in reverse order": each(matrix, lambda one: one.flip(1)),
        "one matrix: its sign": each(matrix, lambda one: -one),
        "one matrix: one number, one step of bf16": each(
            matrix, lambda one: torch.cat([(one.flatten()[:1].view(torch.int16) + 1).view(torch.bfloat16), one.flatten()[1:]]).view_as(one)
        ),
        "one matrix: rounded twice, through fp8": each(matrix, lambda one: one.to(torch.float8_e4m3fn)),
        "gate and up change places": swapped("layers.0.mlp.gate_proj", "layers.0.mlp.up_proj"),
        "two layers change places": swapped("layers.0.", "layers.1."),
        "embedding: two rows change places": each("embed_tokens", lambda one: one[[1, 0, *range(2, len(one))]]),
        "output layer: a row of zeros": each("lm_head", lambda one: torch.cat([one[:5], 0 * one[5:6], one[6:]])),
        "one norm: 1 % larger": each("layers.0.input_layernorm", lambda one: one * 1.01),
        "last norm: 1 % larger": each("model.norm", lambda one: one * 1.01),
        "a tensor is missing": rewritten(lambda tensors: {name: one for name, one in tensors.items() if not name.endswith(matrix)}),
        "a tensor too many": rewritten(lambda tensors: {**tensors, "model.layers.9.mlp.up_proj.weight": tensors["model.norm.weight"].clone()}),
        "one matrix in fp16": rewritten(lambda tensors: {name: one.half() if name.endswith(matrix) else one for name, one in tensors.items()}),
        "wrong adapter: of another seed": wrong_adapter,
        "wrong base: of another seed": of(other / "merged"),
        "the base itself": lambda merged: rewritten(lambda _: {n: t for f in (place / "base").glob("*.safetensors") for n, t in load_file(f).items()})(merged),
        **TEXTS,
    }
    return found


def judged(measure: Callable[[Path], Any], folder: Path) -> tuple[list[str], float]:
    """Names of the gates that failed (or the error that came first)."""
    try:
        held, _ = measure(folder)
    except (UserError, KeyError, RuntimeError, ValueError, OSError) as error:
        return [f"an error: {type(error).__name__}"], 0.0
    return [gate.name for gate in held if not gate.passed], 0.0


def table(work: Path, stage: str, only: str) -> int:
    """Judge every sound model, and every damage on the first seed of each architecture; returns how many went wrong."""
    from runners.compression import merge

    places = sorted(place for place in work.iterdir() if (place / "merged").exists())
    made, bad, refused = "merged", 0, []

    def measure_of(place: Path) -> Callable[[Path], Any]:
        spec = spec_of(0)
        # Base and adapter are those of the place, whatever is done to the merged folder: loaded once.
        merge._with_adapter = functools.lru_cache(1)(merge._with_adapter) if not hasattr(merge._with_adapter, "cache_info") else merge._with_adapter
        return lambda folder: merge.measure(spec, place / "base", place / "adapter", folder, place / "dataset")

    closest: dict[str, float] = {}
    for place in places:
        held, _ = measure_of(place)(place / made)
        for gate in held:
            name = gate.name.split(" (")[0]
            share = gate.value / gate.bound if gate.rule == "at most" and gate.bound else (gate.bound / gate.value if gate.value and gate.bound else 0.0)
            closest[name] = max(closest.get(name, 0.0), share)
        failed = [gate.name for gate in held if not gate.passed]
        if failed:
            refused.append((place.name, failed))
    print(
        f"\n**{stage}**: {len(places)} sound models, {len(refused)} refused {refused or ''}. Nearest to its bound, as a share of it: ",
        end="",
    )
    print(", ".join(f"{name} {share:.2f}" for name, share in closest.items()))
    print(f"\n| damage to {stage} | {' | '.join(ARCHITECTURES)} | answers alone |\n|---|{'---|' * (len(ARCHITECTURES) + 1)}")
    rows: dict[str, list[str]] = {}
    for kind in ARCHITECTURES:
        place, other = work / f"{kind}-0", work / f"{kind}-1"
        damages = merge_damages(place, other)
        for name, damage in damages.items():
            if only not in name:
                continue
            folder = work / "damaged"
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(place / made, folder)
            damage(folder)
            failed, _ = judged(measure_of(place), folder)
            rows.setdefault(name, []).append(", ".join(sorted({short(one) for one in failed})) or "**passes**")
            old = any(one.startswith((*OLD, "an error")) for one in failed)
            rows[name].append("caught" if old else "passes")
    for name, cells in rows.items():
        new, before = cells[0::2], cells[1::2]
        bad += sum("passes" in cell for cell in new)
        print(f"| {name} | {' | '.join(new)} | {before[0] if len(set(before)) == 1 else 'caught in ' + str(before.count('caught')) + ' of 3'} |")
    print(f"\n{len(rows)} damages, {bad} not caught.")
    return bad + len(refused)


def short(gate: str) -> str:
    for begin, name in {
        "tensors": "exact",
        "error of": "matrix",
        "gain": "gain",
        "mean KL, merged": "KL",
        "mean KL, quant": "KL",
        "top-1": "top-1",
        "perplexity": "perplexity",
    }.items():
        if gate.startswith(begin):
            return name
    return gate.replace("mean KL, base against adapter", "adapter")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=["make", "merge"])
    parser.add_argument("work", type=Path)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--only", default="", help="damages with this in their name; 'none' judges sound models alone")
    given = parser.parse_args()
    if given.stage == "make":
        make(given.work, given.seeds)
    else:
        sys.exit(1 if table(given.work, given.stage, given.only) else 0)


if __name__ == "__main__":
    main()
