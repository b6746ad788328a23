"""Quantize the merged model to 4 bits, and hold the result against what it was made from.

Calibration text comes from the training split only, through the chat template, with answers: what the server will see.
The validation split is kept for the gate: KL and perplexity against the merged model, and against plain round-to-nearest,
which an activation-aware method must beat. What is measured is read back from the files that were written.

The work is a backend's: ``awq_autoawq`` (AWQ's GEMM layout; archived upstream; patched here) or
``awq_llmcompressor`` (compressed-tensors; maintained, in an environment of its own). Which is the default, and why:
tests/benchmarks/TRAINING.md.

    elson quantize --spec gs://PROJECT-elson-scratch/specs/<digest>.json --work DIR
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from runners import log
from runners.artifacts.record import Gate, Phase, Stopwatch
from runners.errors import UserError
from runners.spec import QuantizeSpec, Spec
from runners.training.examples import Example, load_tokenizer, training_split, validation_split


@dataclass(frozen=True)
class QuantizeResult:
    """The quantized folder, its gates, what was measured, and the time of each phase."""

    quantized: Path
    gates: tuple[Gate, ...]
    metrics: dict[str, Any]
    phases: tuple[Phase, ...]


def quantize(spec: Spec, merged: Path, dataset: Path, work: Path) -> QuantizeResult:
    """Write ``work/awq`` and hold it against ``merged``.

    Raises:
        UserError: a width that the group size does not divide, or too little calibration text.
        GateFailed: the quantized model is too far from the merged one; the folder is left for a look, and is not published.
    """
    import torch

    from runners.compression import gates

    settings, watch, device = spec.quantize, Stopwatch(), "cuda" if torch.cuda.is_available() else "cpu"
    check_widths(gates.read_config(merged), settings.group_size)
    tokenizer = load_tokenizer(merged)
    blocks = calibration_blocks(training_split(spec, dataset, tokenizer), settings)
    held_out = validation_split(spec, dataset, tokenizer, settings.validation_examples)
    log.event("quantizing", backend=settings.backend, group_size=settings.group_size, calibration_tokens=sum(map(len, blocks)), device=device)

    quantized, draft = work / "awq", work / ".awq.partial"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    with watch.phase(f"quantize with {settings.backend}"):
        if settings.backend == "autoawq":
            from runners.compression import awq_autoawq

            awq_autoawq.run(merged, draft, blocks, settings, device)
        else:
            from runners.compression import awq_llmcompressor

            awq_llmcompressor.run(merged, draft, blocks, settings, device)
    _copy_beside(merged, draft)
    shutil.rmtree(quantized, ignore_errors=True)
    draft.rename(quantized)

    with watch.phase("measure"):
        held, metrics = measure(spec, merged, quantized, held_out)
    metrics |= {"calibration_tokens": sum(map(len, blocks)), "backend": settings.backend}
    fix = "raise quantize.calibration_tokens, use a smaller quantize.group_size, or serve the merged model"
    gates.hold("quantize", held, metrics, fix)
    return QuantizeResult(quantized, held, metrics, tuple(watch.phases))


def measure(spec: Spec, merged: Path, quantized: Path, held_out: Sequence[Example]) -> tuple[tuple[Gate, ...], dict[str, Any]]:
    """Hold a quantized folder, as it is on the disk, against the merged one: the gates, and what was measured.

    A folder that cannot be put into a model at all gives the first gate alone.
    """
    import torch

    from runners.compression import gates, matrices, packed, parity
    from runners.compression.layers import Layers, Round, put

    settings, device = spec.quantize, "cuda" if torch.cuda.is_available() else "cpu"
    layers = Layers(merged, device, gates.measuring_dtype(device))
    inputs = matrices.real_inputs(layers, held_out)
    found = matrices.compare(merged, quantized, settings.group_size, inputs, device)
    problems = [*found.problems, *parity.unlike_copies(merged, quantized, packing(settings))]
    for problem in problems[:20]:
        log.warning("the quantized model is not the merged one in 4 bits", problem=problem)
    held = [Gate(name="tensors and files unlike the merged model", value=len(problems), bound=0, rule="at most")]
    metrics: dict[str, Any] = {"problems": problems[:20]}
    if not found.readable:
        return tuple(held), metrics
    calls, source = gates.calls(held_out), parity.Tensors(merged)

    def rounded(name: str) -> torch.Tensor:
        weight = source[name].to(device)
        return gates.round_to_nearest(weight, settings.group_size) if name.endswith("_proj.weight") else weight

    rounds = [Round(calls), *(Round(calls, partial(put, weight=weight)) for weight in (packed.Plain(quantized, device).weight, rounded))]
    expected, *others = layers.read(*rounds)
    reference = list(gates.log_probabilities(expected))
    answers, nearest = (gates.distance(reference, gates.log_probabilities(other), held_out) for other in others)
    worst = max(found.matrices, key=lambda one: one.error, default=matrices.Matrix("none", 0.0))
    held += [
        Gate(name=f"error of a matrix over that of round-to-nearest ({worst.name})", value=worst.error, bound=settings.max_matrix_error, rule="at most"),
        Gate(name="mean KL, quantized against merged", value=answers.mean_kl, bound=settings.max_mean_kl, rule="at most"),
        Gate(name="perplexity ratio, quantized to merged", value=answers.perplexity_ratio, bound=settings.max_perplexity_ratio, rule="at most"),
    ]
    if settings.must_beat_round_to_nearest:
        held.append(Gate(name="mean KL, below that of round-to-nearest", value=answers.mean_kl, bound=nearest.mean_kl, rule="at most"))
    metrics |= {
        **answers.as_metrics("quantized"),
        **nearest.as_metrics("round_to_nearest"),
        "merged_perplexity": round(answers.reference_perplexity, 6),
        "validation_tokens": answers.tokens,
        "bytes": sum(file.stat().st_size for file in quantized.glob("*.safetensors")),
        "merged_bytes": sum(file.stat().st_size for file in merged.glob("*.safetensors")),
        "worst_matrix_error": round(worst.error, 5),
    }
    log.event(
        "quantized", mean_kl=round(answers.mean_kl, 4), round_to_nearest_kl=round(nearest.mean_kl, 4), perplexity_ratio=round(answers.perplexity_ratio, 4)
    )
    return tuple(held), metrics


def packing(settings: QuantizeSpec) -> dict[str, Any]:
    """``quantization_config`` as a server must read it for what the backend writes."""
    if settings.backend == "autoawq":
        return {"quant_method": "awq", "zero_point": True, "group_size": settings.group_size, "bits": settings.bits, "version": "gemm"}
    weights = {"num_bits": settings.bits, "group_size": settings.group_size, "strategy": "group", "type": "int"}
    weights |= {"observer": "memoryless_minmax", "zp_dtype": "torch.int8"}
    group = {"format": "pack-quantized", "targets": ["Linear"], "weights": weights}
    said = {"quant_method": "compressed-tensors", "format": "pack-quantized", "quantization_status": "compressed"}
    return {**said, "ignore": ["lm_head"], "config_groups": {"group_0": group}}


def check_widths(config: dict[str, Any], group_size: int) -> None:
    """Refuse a group size that does not divide the width of every linear layer, and say which would."""
    heads = config["num_attention_heads"]
    head_size = config.get("head_dim") or config["hidden_size"] // heads
    widths = {"hidden_size": config["hidden_size"], "intermediate_size": config["intermediate_size"], "attention width": heads * head_size}
    if wrong := {name: width for name, width in widths.items() if width % group_size}:
        fitting = [size for size in (128, 64, 32) if not any(width % size for width in widths.values())]
        raise UserError(
            f"groups of {group_size} do not divide {', '.join(f'{name} {width}' for name, width in wrong.items())}",
            f"quantize.group_size of {' or '.join(map(str, fitting))}" if fitting else "widths that 128, 64 or 32 divides",
            f"set quantize.group_size: {fitting[0]}" if fitting else "this model cannot be quantized to AWQ: serve the merged model",
        )


def calibration_blocks(examples: Sequence[Example], settings: QuantizeSpec) -> list[list[int]]:
    """Rows of exactly ``calibration_sequence_tokens`` ids, examples one after the other in a shuffled order.

    autoawq drops a sample that is longer than its limit without a word, and what is left over of its last row: rows of the
    very length lose nothing. An example that crosses the end of a row goes on in the next.

    Raises:
        UserError: the training split does not fill one row.
    """
    length = settings.calibration_sequence_tokens
    rows = max(1, settings.calibration_tokens // length)
    order = list(range(len(examples)))
    random.Random(f"calibration {settings.seed}").shuffle(order)
    stream: list[int] = []
    for index in order:
        stream += examples[index].token_ids
        if len(stream) >= rows * length:
            break
    blocks = [stream[begin : begin + length] for begin in range(0, min(len(stream), rows * length) - length + 1, length)]
    if not blocks:
        expected = f"at least {length} (quantize.calibration_sequence_tokens)"
        raise UserError(f"the training split has {len(stream)} tokens for calibration", expected, "add data, or lower that setting")
    if len(blocks) < rows:
        log.warning("less calibration text than asked for", found=len(blocks) * length, wanted=rows * length)
    return blocks


def _copy_beside(merged: Path, quantized: Path) -> None:
    """Tokenizer, template, config and generation settings as they were: backends write their own, autoawq with sampling.

    Of what a backend wrote beside the tensors, their number type and the way they are packed is kept.
    """
    own = ("record.json", "manifest.json", "model.safetensors.index.json")
    written = json.loads((quantized / "config.json").read_text())
    for file in quantized.iterdir():
        if file.suffix != ".safetensors" and file.name not in own:
            file.unlink()
    for file in merged.iterdir():
        if file.is_file() and file.suffix != ".safetensors" and file.name not in own:
            shutil.copyfile(file, quantized / file.name)
    kept = {"dtype": written.get("dtype") or written["torch_dtype"], "quantization_config": written["quantization_config"]}
    (quantized / "config.json").write_text(json.dumps({**json.loads((merged / "config.json").read_text()), **kept}, indent=2))
    for file in quantized.iterdir():
        file.chmod(0o644)
