"""Put an adapter into its base model, and prove that nothing changed.

Weights are merged tensor by tensor in fp32 and written in bf16, without loading the model: the base is read once, the
result written once, and the largest thing in memory is one shard. vLLM cannot apply a DoRA adapter (vllm#10849), so this is
also what a server does that is given one (``merge_streaming``).

Four gates. Every tensor is computed a second time from base and adapter and compared exactly, every file beside them too
(``parity.py``): that sees a matrix, a layer or a shard that is wrong, however little the adapter moved it. The adapter as stock
peft applies it runs beside the merged model on held-out examples: mean KL and top-1 agreement, bound relative to what the
adapter changed and to what rounding alone changes. The adapter must have changed more than rounding does. And it must not have
cost general ability (``forgetting.py``).

    elson merge --spec gs://PROJECT-elson-scratch/specs/<digest>.json --work DIR
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runners import log
from runners.artifacts.record import Gate, Phase, Stopwatch
from runners.errors import UserError
from runners.spec import Spec

if TYPE_CHECKING:
    from runners.compression.layers import Part

_PREFIX = "base_model.model."
_PARTS = ("lora_A.weight", "lora_B.weight", "lora_magnitude_vector")


@dataclass(frozen=True)
class MergeResult:
    """The merged folder, its gates, what was measured, and the time of each phase."""

    merged: Path
    gates: tuple[Gate, ...]
    metrics: dict[str, Any]
    phases: tuple[Phase, ...]


def merge(spec: Spec, base: Path, adapter: Path, dataset: Path, work: Path) -> MergeResult:
    """Write ``work/merged`` (bf16 safetensors and tokenizer) and hold it against base + adapter.

    Raises:
        UserError: an adapter that does not belong to this base, or lacks tensors.
        GateFailed: the merged model answers differently; the folder is left for a look, and is not published.
    """
    from runners.compression import gates

    watch, merged = Stopwatch(), work / "merged"
    with watch.phase("merge"):
        merge_streaming(base, adapter, merged)
    with watch.phase("compare with the adapter"):
        held, metrics = measure(spec, base, adapter, merged, dataset)
    fix = (
        "check that adapter and base belong together; train again: longer where the adapter changes no more than rounding, slower where general ability is lost"
    )
    gates.hold("merge", held, metrics, fix)
    return MergeResult(merged, held, metrics, tuple(watch.phases))


def measure(spec: Spec, base: Path, adapter: Path, merged: Path, dataset: Path) -> tuple[tuple[Gate, ...], dict[str, Any]]:
    """Hold a merged folder, as it is on the disk, against base and adapter: the gates, and what was measured."""
    import torch

    from runners.compression import forgetting, gates, parity
    from runners.compression.layers import Layers, Round
    from runners.training.examples import load_tokenizer, validation_split

    settings, device = spec.merge, "cuda" if torch.cuda.is_available() else "cpu"
    problems = [*parity.unlike_tensors(base, adapter, merged, device), *parity.unlike_files(base, adapter, merged)]
    probes, theirs = (validation_split(spec, dataset, load_tokenizer(folder), settings.probe_examples) for folder in (base, merged))
    problems += [f"{one.id} is other tokens through the merged model's template" for one, two in zip(probes, theirs, strict=True) if one != two]
    for problem in problems[:20]:
        log.warning("the merged model is not what base and adapter say", problem=problem)
    dtype, tokenizer = gates.measuring_dtype(device), load_tokenizer(base)
    general = forgetting.general_questions(spec, tokenizer)
    probing, asking = gates.calls(probes), forgetting.calls(general, dtype)
    # The adapter as stock peft applies it, not our own DoRA, which is part of what is checked.
    adapted, plain = Layers(base, device, dtype, adapter).read(
        Round(probing, partial(adapter_is, on=True)), Round([*probing, *asking], partial(adapter_is, on=False))
    )
    expected = list(gates.log_probabilities(adapted))
    taught = gates.distance(expected, gates.log_probabilities(islice(plain, len(probing))), probes)
    before = forgetting.answered(general, plain)
    written, rounded = Layers(merged, device, dtype).read(Round([*probing, *asking]), Round(probing, round_again))
    merged_probes = list(gates.log_probabilities(islice(written, len(probing))))
    found = gates.distance(expected, merged_probes, probes)
    kept, ability = forgetting.held(settings, before, forgetting.answered(general, written))
    noise = gates.distance(merged_probes, gates.log_probabilities(rounded), probes).mean_kl
    bound = min(settings.max_mean_kl, max(settings.rounding_factor * noise, settings.adapter_share * taught.mean_kl))
    held = (
        Gate(name="tensors and files unlike base and adapter", value=len(problems), bound=0, rule="at most"),
        Gate(name="mean KL, base against adapter", value=taught.mean_kl, bound=settings.rounding_factor * noise, rule="at least"),
        Gate(name="mean KL, merged against adapter", value=found.mean_kl, bound=bound, rule="at most"),
        Gate(name="top-1 agreement, merged against adapter", value=found.top1_agreement, bound=settings.min_top1_agreement, rule="at least"),
        *kept,
    )
    metrics: dict[str, Any] = {
        **found.as_metrics("merged"),
        "adapter_perplexity": round(found.reference_perplexity, 6),
        "probe_tokens": found.tokens,
        "probes": len(probes),
        **ability,
    }
    metrics |= {"adapter_mean_kl": taught.mean_kl, "rounding_mean_kl": noise, "problems": problems[:20]}
    log.event("merged", mean_kl=round(found.mean_kl, 6), top1_agreement=round(found.top1_agreement, 4), tokens_compared=found.tokens)
    return held, metrics


def round_again(part: Part, seed: int = 0) -> None:
    """Move one weight in twelve of the linear layers by a step of bf16, up or down: on average as far as the merge's own rounding moves all of them."""
    import torch

    with torch.no_grad():
        for _, module in part:
            if isinstance(module, torch.nn.Linear):
                generator = torch.Generator(module.weight.device).manual_seed(seed)
                for rows in module.weight.split(1024):
                    chance = torch.rand(rows.shape, generator=generator, device=rows.device)
                    step = rows.float().abs().log2().floor().exp2() * 2**-7
                    rows += (step * ((chance < 1 / 24).float() - (chance > 23 / 24).float())).to(rows.dtype)


def adapter_is(part: Part, on: bool) -> None:
    """Switch the adapter of a part of the model on or off."""
    for _, module in part:
        if hasattr(module, "lora_A"):
            module.enable_adapters(on)


def merge_streaming(base: Path, adapter: Path, dest: Path) -> Path:
    """Merge ``adapter`` into ``base`` shard by shard and write ``dest``, complete or not at all.

    For each adapted layer ``W' = m / ||W + s B A|| * (W + s B A)`` (DoRA; rows of W) or ``W + s B A`` (LoRA), in fp32, rounded
    once to bf16. Equals peft's ``merge_and_unload`` in fp32 (tests/torch/test_merge.py).

    Raises:
        UserError: the adapter is of another kind, has layers the base lacks, or lacks tensors its own config promises.
    """
    import torch
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    config = json.loads((adapter / "adapter_config.json").read_text())
    _refuse_unknown(config, adapter)
    layers = _by_layer(load_file(adapter / "adapter_model.safetensors"), config, adapter)
    scaling = config["lora_alpha"] / (config["r"] ** 0.5 if config.get("use_rslora") else config["r"])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    draft = dest.parent / f".{dest.name}.partial"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    files = sorted(base.glob("*.safetensors"))
    left = set(layers)
    with log.progress("merge", len(layers), "layers") as progress:
        for file in files:
            tensors = {}
            with safe_open(str(file), "pt") as source:
                names: list[str] = source.keys()
                for name in names:
                    tensor = source.get_tensor(name)
                    if layer := layers.get(name):
                        tensor = merged_weight(tensor.to(device), {part: value.to(device) for part, value in layer.items()}, scaling).cpu()
                        left.discard(name)
                        progress.advance()
                    tensors[name] = tensor.to(torch.bfloat16).contiguous() if tensor.is_floating_point() else tensor
            save_file(tensors, draft / file.name, metadata={"format": "pt"})
    if left or not files:
        lacking = ", ".join(sorted(left)[:3])
        raise UserError(f"{base} has no {lacking} ({len(left)} layers of the adapter)", "the base model the adapter was trained on", "check base_model")
    for file in sorted(base.iterdir()):
        if file.is_file() and file.suffix != ".safetensors" and file.name not in ("record.json", "manifest.json"):
            shutil.copyfile(file, draft / file.name)
    # The tokenizer and template the adapter was trained with stand beside it.
    for file in adapter.glob("*"):
        if file.name.startswith(("tokenizer", "chat_template", "special_tokens", "vocab", "merges")):
            shutil.copyfile(file, draft / file.name)
    for file in draft.iterdir():
        file.chmod(0o644)
    values = json.loads((draft / "config.json").read_text())
    (draft / "config.json").write_text(json.dumps({**values, "dtype": "bfloat16"}, indent=2))
    shutil.rmtree(dest, ignore_errors=True)
    draft.rename(dest)
    return dest


def merged_weight(weight: Any, layer: dict[str, Any], scaling: float) -> Any:
    """One layer's merged weight, [out, in] in fp32."""
    import torch

    total = weight.float() + scaling * (layer["lora_B.weight"].float() @ layer["lora_A.weight"].float())
    magnitude = layer.get("lora_magnitude_vector")
    return total if magnitude is None else total * (magnitude.float() / torch.linalg.vector_norm(total, dim=1))[:, None]


def _by_layer(tensors: dict[str, Any], config: dict[str, Any], adapter: Path) -> dict[str, dict[str, Any]]:
    """Adapter tensors by the name of the base weight they change. Raises UserError when a layer is not whole."""
    layers: dict[str, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        layer, part = _split(name)
        layers.setdefault(f"{layer}.weight", {})[part] = tensor
    wanted = _PARTS if config.get("use_dora") else _PARTS[:2]
    if lacking := [(layer, part) for layer, parts in layers.items() for part in wanted if part not in parts]:
        layer, part = lacking[0]
        raise UserError(
            f"the adapter {adapter} lacks {len(lacking)} tensors, such as {part} of {layer}",
            f"{' and '.join(wanted)} for each adapted layer" + (" (without the magnitude a DoRA adapter is another model)" if config.get("use_dora") else ""),
            "train again, or download the adapter again",
        )
    if not layers:
        raise UserError(f"the adapter {adapter} is empty", "at least one adapted layer", "train again")
    return layers


def _split(name: str) -> tuple[str, str]:
    bare = name.removeprefix(_PREFIX)
    for part in _PARTS:
        if bare.endswith(f".{part}"):
            return bare.removesuffix(f".{part}"), part
    raise UserError(f"the adapter has a tensor named {name}", f"{', '.join(_PARTS)} of linear layers", "train it with this project, or merge it with peft")


def _refuse_unknown(config: dict[str, Any], adapter: Path) -> None:
    """What would merge to other numbers than these formulas say."""
    odd = [key for key in _unsupported(config) if config.get(key)]
    if config.get("peft_type") != "LORA" or odd:
        raise UserError(f"the adapter {adapter} uses {', '.join(odd) or config.get('peft_type')}", "plain LoRA or DoRA on linear layers", "merge it with peft")


def _unsupported(config: dict[str, Any]) -> Iterator[str]:
    yield from ("fan_in_fan_out", "rank_pattern", "alpha_pattern", "modules_to_save", "lora_bias", "use_qalora", "layer_replication", "trainable_token_indices")
    if config.get("bias", "none") != "none":
        yield "bias"
