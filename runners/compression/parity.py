"""Whether a merged folder is exactly what base and adapter say: each tensor computed a second time, each file compared.

A measured distance cannot see a layer that was left out, when the adapter moved it less than rounding moves the rest. Here nothing is
measured: a merged number is right when no bf16 number is nearer to the one that base and adapter give. The formula is written a second time,
and the files are read back, a tensor at a time, on the card where there is one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

#: Files that come from the adapter where it has them, and from the base otherwise.
TEXT_FILES = ("tokenizer", "chat_template", "special_tokens", "vocab", "merges")
INDEX = "model.safetensors.index.json"
_DTYPES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32"}


class Tensors:
    """The tensors of a folder of safetensors files by name, read when asked for."""

    def __init__(self, folder: Path) -> None:
        self._files = [safe_open(str(file), "pt") for file in sorted(folder.glob("*.safetensors"))]
        self.file_of = {name: file for file in self._files for name in sorted(file.keys())}

    def __getitem__(self, name: str) -> torch.Tensor:
        found: torch.Tensor = self.file_of[name].get_tensor(name)
        return found

    def kinds(self) -> set[str]:
        """The number types in the files, as safetensors writes them: F16, I32."""
        return {file.get_slice(name).get_dtype() for name, file in self.file_of.items()}


def unlike_tensors(base: Path, adapter: Path, merged: Path, device: str = "cpu") -> list[str]:
    """What is wrong with each tensor that is not the one that base and adapter give; empty when all are.

    Args:
        base: folder of the base model.
        adapter: folder of the adapter (LoRA or DoRA on linear layers).
        merged: folder with the merged model in bf16.
        device: where the products are taken.
    """
    source, result, factors = Tensors(base), Tensors(merged), Tensors(adapter)
    config = json.loads((adapter / "adapter_config.json").read_text())
    scaling = config["lora_alpha"] / (config["r"] ** 0.5 if config.get("use_rslora") else config["r"])
    problems = [f"{name} is missing" for name in sorted(source.file_of.keys() - result.file_of.keys())]
    problems += [f"{name} is not in the base model" for name in sorted(result.file_of.keys() - source.file_of.keys())]
    adapted = {name.removeprefix("base_model.model.").removesuffix(".lora_A.weight") for name in factors.file_of if name.endswith(".lora_A.weight")}
    targets = set(config.get("target_modules") or ())
    for name in sorted(source.file_of.keys() & result.file_of.keys()):
        layer = name.removesuffix(".weight")
        found, expected = result[name], source[name].to(device)
        if layer in adapted:
            parts = [factors.file_of.get(f"base_model.model.{layer}.{part}") for part in ("lora_A.weight", "lora_B.weight", "lora_magnitude_vector")]
            a, b, magnitude = (
                None if file is None else file.get_tensor(f"base_model.model.{layer}.{part}").to(device)
                for file, part in zip(parts, ("lora_A.weight", "lora_B.weight", "lora_magnitude_vector"), strict=True)
            )
            if (magnitude is not None) != bool(config.get("use_dora")):
                problems.append(f"{name}: the adapter's magnitude does not belong to its config")
                continue
            expected = _adapted(expected, a, b, magnitude, scaling)
        elif name.endswith(".weight") and layer.rpartition(".")[2] in targets and not config.get("layers_to_transform"):
            problems.append(f"{name}: the adapter's config names its layer, and the adapter lacks it")
        if found.shape != expected.shape:
            problems.append(f"{name} is {list(found.shape)} and not {list(expected.shape)}")
        elif wrong := _not_nearest(found.to(device), expected):
            problems.append(f"{name}: {wrong} of {found.numel()} numbers are not the nearest to base and adapter")
    return problems


def _adapted(weight: torch.Tensor, a: Any, b: Any, magnitude: Any, scaling: float) -> torch.Tensor:
    """``m / ||W + s B A|| (W + s B A)``, [out, in] in fp32, the norms in fp64."""
    total = torch.addmm(weight.float(), b.float(), a.float(), alpha=scaling)
    if magnitude is None:
        return total
    squares = torch.cat([rows.double().square().sum(1) for rows in total.split(1024)])
    return total.mul_((magnitude.double() / squares.sqrt()).float()[:, None])


def _not_nearest(found: torch.Tensor, exact: torch.Tensor) -> int:
    """How many bf16 numbers are further from ``exact`` than the nearest one is, by more than fp32 can tell."""
    if not exact.is_floating_point():
        return int((found != exact).sum())
    if found.dtype != torch.bfloat16:
        return int(found.numel())
    exact = exact.float()
    nearest = exact.bfloat16()
    odd = found != nearest
    if not bool(odd.any()):
        return 0
    scale = exact.abs().amax(-1, keepdim=True) if exact.ndim else exact.abs()
    allowed = 1.01 * (nearest.float() - exact).abs() + 4e-6 * scale
    return int((odd & ~((found.float() - exact).abs() <= allowed)).sum())


def unlike_files(base: Path, adapter: Path, merged: Path) -> list[str]:
    """What is wrong with the files beside the tensors: config, tokenizer, template, index of the shards."""
    return list(_file_problems(base, adapter, merged))


def _file_problems(base: Path, adapter: Path, merged: Path) -> Iterator[str]:
    names = {file.name for folder in (base, adapter) for file in folder.iterdir() if file.name.startswith(TEXT_FILES)}
    names |= {file.name for file in merged.iterdir() if file.name.startswith(TEXT_FILES)}
    if (base / "generation_config.json").exists():
        names.add("generation_config.json")
    for name in sorted(names):
        source = adapter / name if name.startswith(TEXT_FILES) and (adapter / name).exists() else base / name
        if not source.exists() or not (merged / name).exists() or source.read_bytes() != (merged / name).read_bytes():
            yield f"{name} is not that of the {'adapter' if source.parent == adapter else 'base model'}"
    yield from _config_problems(base, merged, ("torch_dtype", "dtype"))
    yield from _index_problems(merged, (base / INDEX).exists())


def unlike_copies(merged: Path, quantized: Path, packing: dict[str, Any]) -> list[str]:
    """What is wrong with the files beside a quantized model's tensors: all are the merged model's, but for what config.json says of the packing.

    Args:
        merged: folder of the merged model.
        quantized: folder of the quantized one.
        packing: ``quantization_config`` as it must be.
    """
    return list(_copy_problems(merged, quantized, packing))


def _copy_problems(merged: Path, quantized: Path, packing: dict[str, Any]) -> Iterator[str]:
    own = {"config.json", INDEX, "record.json", "manifest.json"}
    here, there = ({file.name for file in folder.iterdir() if file.suffix != ".safetensors"} - own for folder in (merged, quantized))
    for name in sorted(here | there):
        if not all((folder / name).is_file() for folder in (merged, quantized)) or (merged / name).read_bytes() != (quantized / name).read_bytes():
            yield f"{name} is not that of the merged model"
    yield from _config_problems(merged, quantized, ("dtype", "quantization_config"))
    try:
        config = json.loads((quantized / "config.json").read_text())
    except (OSError, ValueError):
        return
    said = config.get("quantization_config") or {}
    if _meant(said) != _meant(packing):
        yield f"config.json says of the packing {json.dumps(_meant(said))[:300]}, and it is {json.dumps(_meant(packing))[:300]}"
    written = {_DTYPES.get(kind, kind) for kind in Tensors(quantized).kinds()} - {"I32", "I64"}
    if written != {config.get("dtype")}:
        yield f"config.json says {config.get('dtype')}, and the tensors are {', '.join(sorted(written))}"
    yield from _index_problems(quantized, False)


def _meant(value: Any) -> Any:
    """Without what says nothing: null, false, empty. The version is that of compressed-tensors where that is the format."""
    if not isinstance(value, dict):
        return value
    free = {"version"} if value.get("quant_method") == "compressed-tensors" else set()
    return {key: meant for key, meant in ((key, _meant(one)) for key, one in value.items() if key not in free) if meant not in (None, False, {})}


def _config_problems(one: Path, two: Path, apart: tuple[str, ...]) -> Iterator[str]:
    try:
        configs = [json.loads((folder / "config.json").read_text()) for folder in (one, two)]
    except (OSError, ValueError) as error:
        yield f"config.json cannot be read: {error}"
        return
    names = sorted((configs[0].keys() | configs[1].keys()) - set(apart))
    if differing := [name for name in names if configs[0].get(name) != configs[1].get(name)]:
        yield f"config.json differs in {', '.join(differing)}"


def _index_problems(folder: Path, expected: bool) -> Iterator[str]:
    """The index must name the file that each tensor is in: two shards that changed places fail to load, or load as each other."""
    held = {name: file.name for file in folder.glob("*.safetensors") for name in sorted(safe_open(str(file), "pt").keys())}
    if not (folder / INDEX).exists():
        if expected or len(set(held.values())) > 1:
            yield f"{INDEX} is missing"
        return
    named = json.loads((folder / INDEX).read_text())["weight_map"]
    if wrong := sorted(name for name in named.keys() | held.keys() if named.get(name) != held.get(name)):
        yield f"{INDEX} names another file for {len(wrong)} tensors, such as {wrong[0]}"
