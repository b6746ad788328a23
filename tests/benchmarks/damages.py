"""What is done to a sound model's files: to the merged ones, and to the quantized ones. training_damage.py judges each."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from runners.compression import packed

Tensors = dict[str, torch.Tensor]
Damage = Callable[[Path], None]


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


def quantize_damages(place: Path, other: Path) -> dict[str, Damage]:
    """Of a quantized folder (AWQ GEMM); ``other`` is a model of another seed."""
    merged = {name: tensor for file in (place / "merged").glob("*.safetensors") for name, tensor in load_file(file).items()}
    written = json.loads((place / "awq" / "config.json").read_text())
    packing, down, k = written["quantization_config"], "layers.0.mlp.down_proj", "layers.1.self_attn.k_proj"
    scopes = {"one matrix": down, "k_proj of one layer": k, "one decoder layer": "layers.0.", "all layers": "layers."}

    def kind(part: str, ends: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Damage:
        return rewritten(lambda tensors: {name: change(one).to(one.dtype) if part in name and name.endswith(ends) else one for name, one in tensors.items()})

    def of_values(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
        """A change of packed 4-bit values, in their plain order."""

        def words(given: torch.Tensor) -> torch.Tensor:
            values = change(packed.unpack(given, packed.GEMM_ORDER)).to(torch.int64).reshape(len(given), -1, 8)
            total = sum(values[..., where] << (4 * index) for index, where in enumerate(packed.GEMM_ORDER))
            return torch.where(total >= 2**31, total - 2**32, total).to(torch.int32)

        return words

    def without_awq_scale(part: str) -> Damage:
        return rewritten(lambda tensors: {n: merged[n].to(one.dtype) if part in n and "layernorm" in n else one for n, one in tensors.items()})

    def one_number(values: torch.Tensor) -> torch.Tensor:
        """One value in the middle of the range, three steps off."""
        changed, where = values.clone(), ((values > 4) & (values < 11)).nonzero()[0]
        changed[where[0], where[1]] += 3
        return changed

    def said(**changes: Any) -> Damage:
        return values("config.json", quantization_config={**packing, **changes})

    one_up = of_values(lambda found: torch.where(found < 15, found + 1, 14))
    found: dict[str, Damage] = {}
    for scope, part in scopes.items():
        found[f"{scope}: scales 5 % off"] = kind(part, ".scales", lambda one: one * 1.05)
        found[f"{scope}: groups in reverse order"] = kind(part, ".qweight", lambda one: one.unflatten(0, (-1, 64)).flip(0).flatten(0, 1))
        found[f"{scope}: zero points off by one"] = kind(part, ".qzeros", one_up)
        found[f"{scope}: sign"] = kind(part, ".scales", lambda one: -one)
        found[f"{scope}: order of the 4-bit values"] = kind(
            part, ".qweight", of_values(lambda found: found.unflatten(1, (-1, 8))[..., list(packed.GEMM_ORDER)].flatten(1))
        )
    found |= {
        "one group: scale 5 % off": kind(down, ".scales", lambda one: torch.cat([(one.flatten()[:1] * 1.05).to(one.dtype), one.flatten()[1:]]).view_as(one)),
        "one group: zero point off by two": kind(
            down, ".qzeros", of_values(lambda found: torch.cat([(found.flatten()[:1] + 2) % 16, found.flatten()[1:]]).view_as(found))
        ),
        "one number: three steps off": kind(down, ".qweight", of_values(one_number)),
        "one matrix: all values one step up": kind(down, ".qweight", one_up),
        "one matrix: scales of the next row": kind(down, ".scales", lambda one: one.roll(1, 1)),
        "one matrix: scales 1 % off": kind(down, ".scales", lambda one: one * 1.01),
        "one matrix: rows moved by one": kind(down, ".qweight", of_values(lambda found: found.roll(1, 1))),
        "one matrix: a scale that is not a number": kind(
            down, ".scales", lambda one: torch.cat([one.flatten()[:1] * torch.nan, one.flatten()[1:]]).view_as(one)
        ),
        "one matrix: of the other layer": rewritten(
            lambda t: {n: t[n.replace("layers.0.", "layers.1.")].clone() if down in n else one for n, one in t.items()}
        ),
        "one matrix: clipped to half": kind(down, ".scales", lambda one: one * 0.5),
        "one matrix: is missing": rewritten(lambda t: {n: one for n, one in t.items() if down not in n}),
        "one matrix: not packed": rewritten(
            lambda t: {n: one for n, one in t.items() if down not in n} | {f"model.{down}.weight": merged[f"model.{down}.weight"].half()}
        ),
        "up_proj: rows 5 % larger, down_proj as it was": kind("layers.0.mlp.up_proj", ".scales", lambda one: one * 1.05),
        "v_proj: rows 5 % larger, o_proj as it was": kind("layers.0.self_attn.v_proj", ".scales", lambda one: one * 1.05),
        "one norm without AWQ's scale": without_awq_scale("layers.0.input_layernorm"),
        "all norms without AWQ's scale": without_awq_scale("layers."),
        "one norm: 5 % larger": each("layers.1.post_attention_layernorm", lambda one: one * 1.05),
        "one norm: its sign": each("layers.1.post_attention_layernorm", lambda one: -one),
        "gate and up change places": swapped("layers.0.mlp.gate_proj", "layers.0.mlp.up_proj"),
        "two layers change places": swapped("layers.0.", "layers.1."),
        "embedding: two rows change places": each("embed_tokens", lambda one: one[[1, 0, *range(2, len(one))]]),
        "output layer: 1 % larger": each("lm_head", lambda one: one * 1.01),
        "last norm: 1 % larger": each("model.norm", lambda one: one * 1.01),
        "config: another group size": said(group_size=128),
        "config: no zero points": said(zero_point=False),
        "config: 8 bits": said(bits=8),
        "config: another layout": said(version="gemv"),
        "config: down_proj is not packed": said(modules_to_not_convert=["down_proj"]),
        "config: bf16": values("config.json", dtype="bfloat16"),
        "another model's weights": lambda folder: [shutil.copy(file, folder / file.name) for file in (other / "awq").glob("*.safetensors")] and None,
        "a file of tensors is missing": lambda folder: sorted(folder.glob("*.safetensors"))[0].unlink(),
        "the tokenizer is missing": lambda folder: (folder / "tokenizer.json").unlink(),
        "a tokenizer file too many": lambda folder: (folder / "added_tokens.json").write_text('{"<|im_end|>": 7}') and None,
        **TEXTS,
    }
    return found
