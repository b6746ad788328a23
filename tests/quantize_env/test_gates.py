"""Each tensor of a quantized folder against the merged model's. tests/benchmarks/training_damage.py has the whole table of damages."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from runners.compression import awq_autoawq, gates, matrices, packed, parity, quantize
from runners.spec import Spec
from runners.training.examples import load_tokenizer, validation_split

Tensors = dict[str, torch.Tensor]
DOWN, UP, V = (f"model.layers.0.{name}" for name in ("mlp.down_proj", "mlp.up_proj", "self_attn.v_proj"))


@pytest.fixture(scope="module")
def made(spec: Spec, merged: Path, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return quantize.quantize(spec, merged, dataset, tmp_path_factory.mktemp("gates")).quantized


def changed(made: Path, copy: Path, change: Callable[[Tensors], Tensors]) -> Path:
    shutil.copytree(made, copy)
    save_file({name: one.contiguous() for name, one in change(load_file(made / "model.safetensors")).items()}, copy / "model.safetensors")
    return copy


def one_step(words: torch.Tensor) -> torch.Tensor:
    """The first 4-bit value of the first word, a step up or down."""
    found = words.clone()
    found[0, 0] += 1 if int(found[0, 0]) & 15 < 15 else -1
    return found


def part(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Tensors], Tensors]:
    """A change of the tensors whose names have ``name`` in them."""
    return lambda tensors: {key: change(one).to(one.dtype) if name in key else one for key, one in tensors.items()}


def without(name: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {key: one for key, one in tensors.items() if name not in key}


DAMAGES: dict[str, tuple[Callable[[Tensors], Tensors], str]] = {
    "scales 5 % off": (part(f"{DOWN}.scales", lambda one: one * 1.05), "down_proj"),
    # Which scales the search chooses depends on the CPU; with some, a single channel tells it before the median of all does.
    "scales 1 % off": (part(f"{DOWN}.scales", lambda one: one * 1.01), r"down_proj: (its columns are [+]|\d+ of 256 columns do not have )"),
    "all scales 5 % off": (part(".scales", lambda one: one * 1.05), "half a step"),
    "groups in reverse order": (part(f"{DOWN}.qweight", lambda one: one.unflatten(0, (-1, 64)).flip(0).flatten(0, 1)), "down_proj"),
    "a zero point off by one": (part(f"{V}.qzeros", one_step), "v_proj: .* numbers are more than half a step"),
    "rows of up_proj alone": (part(f"{UP}.scales", lambda one: one * 1.05), "up_proj"),
    "a negative scale": (part(f"{V}.scales", lambda one: -one), "scales that are not positive"),
    "a norm 5 % larger": (part("0.input_layernorm", lambda one: one * 1.05), "q_proj: .* half a step"),
    "the sign of a norm": (part("0.input_layernorm", lambda one: -one), "changed its sign"),
    "the bias of v": (part(f"{V}.bias", lambda one: one + 0.01), "v_proj.bias"),
    "rows of the embedding": (part("embed", lambda one: one.roll(1, 0)), "embed_tokens.weight: .* are not the merged model's"),
    "a matrix is missing": (without(DOWN), "down_proj.weight is missing"),
    "a matrix too many": (lambda tensors: {**tensors, "model.extra.weight": torch.zeros(2).half()}, "extra.weight is not in the merged model"),
    "zero points are missing": (without(f"{V}.qzeros"), "cannot be read"),
    "a matrix is cut": (part(f"{V}.qweight", lambda one: one[:64]), "cannot be read"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_tensor_that_is_not_the_merged_model_in_4_bits(name: str, made: Path, merged: Path, tmp_path: Path) -> None:
    change, said = DAMAGES[name]
    found = matrices.compare(merged, changed(made, tmp_path / "awq", change), 64, {})
    assert any(re.search(said, problem) for problem in found.problems), found.problems


def test_a_sound_folder_has_no_problems(made: Path, merged: Path, spec: Spec) -> None:
    found = matrices.compare(merged, made, 64, {})
    assert found.readable and found.problems == [] and len(found.matrices) == 14
    assert parity.unlike_copies(merged, made, quantize.packing(spec.quantize)) == []


def test_files_beside_the_tensors(made: Path, merged: Path, spec: Spec, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(made, tmp_path / "awq"))
    (copy / "chat_template.jinja").write_text((copy / "chat_template.jinja").read_text() + " ")
    (copy / "tokenizer.json").unlink()
    (copy / "added_tokens.json").write_text("{}")
    config = json.loads((copy / "config.json").read_text())
    config |= {"rms_norm_eps": 1e-3, "dtype": "bfloat16", "quantization_config": {**config["quantization_config"], "zero_point": False}}
    (copy / "config.json").write_text(json.dumps(config))
    found = parity.unlike_copies(merged, copy, quantize.packing(spec.quantize))
    assert [problem.split(" ")[0] for problem in found[:3]] == ["added_tokens.json", "chat_template.jinja", "tokenizer.json"]
    assert found[3] == "config.json differs in rms_norm_eps" and found[4].startswith("config.json says of the packing")
    assert found[5] == "config.json says bfloat16, and the tensors are float16"
    (copy / "config.json").unlink()
    assert any("config.json cannot be read" in problem for problem in parity.unlike_copies(merged, copy, quantize.packing(spec.quantize)))


def test_a_folder_that_no_server_can_load_gives_one_gate(made: Path, merged: Path, dataset: Path, spec: Spec, tmp_path: Path) -> None:
    cut = changed(made, tmp_path / "awq", DAMAGES["a matrix is cut"][0])
    held, metrics = quantize.measure(spec, merged, cut, validation_split(spec, dataset, load_tokenizer(merged)))
    assert len(held) == 1 and not held[0].passed and "v_proj" in metrics["problems"][0]


def test_a_matrix_clipped_far_too_much_fails_by_its_outputs(made: Path, merged: Path, dataset: Path, spec: Spec, tmp_path: Path) -> None:
    """Every number is where rounding may put it; the outputs are not."""
    held_out = validation_split(spec, dataset, load_tokenizer(merged))
    weight = load_file(merged / "model.safetensors")["model.layers.1.self_attn.q_proj.weight"].float()
    norms = [load_file(folder / "model.safetensors")["model.layers.1.input_layernorm.weight"].float() for folder in (merged, made)]
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    scaled = weight * (norms[0] / norms[1])
    bound = scaled.unflatten(1, (-1, 64)).abs().amax(-1).repeat_interleave(64, 1) * 0.55
    layer.weight.data = scaled.clamp(-bound, bound)
    found = awq_autoawq.packed(layer, 4, 64)
    parts = {f"model.layers.1.self_attn.q_proj.{part}": getattr(found, part) for part in packed.GEMM}
    held, _ = quantize.measure(spec, merged, changed(made, tmp_path / "awq", lambda tensors: {**tensors, **parts}), held_out)
    assert held[0].passed and held[1].name.endswith("(model.layers.1.self_attn.q_proj)") and not held[1].passed


def test_a_scale_between_v_and_o(tmp_path: Path) -> None:
    """As many heads for values as for queries: AWQ moves a scale from o's columns into v's rows, and its bias."""
    torch.manual_seed(0)
    v, o, bias, scale = torch.randn(128, 128).bfloat16(), torch.randn(128, 128).bfloat16(), torch.randn(128).bfloat16(), torch.rand(128) * 3 + 0.2
    place = "model.layers.0.self_attn"
    for folder in ("merged", "awq"):
        (tmp_path / folder).mkdir()
    save_file({f"{place}.v_proj.weight": v, f"{place}.v_proj.bias": bias, f"{place}.o_proj.weight": o}, tmp_path / "merged" / "model.safetensors")

    def written(of_rows: torch.Tensor, of_columns: torch.Tensor, dtype: torch.dtype = torch.float32) -> list[str]:
        tensors = {f"{place}.v_proj.bias": (bias.float() / of_rows).half()}
        for name, weight in (("v_proj", v / of_rows[:, None].to(dtype)), ("o_proj", o * of_columns.to(dtype))):
            layer = torch.nn.Linear(128, 128, bias=False)
            layer.weight.data = weight.float()
            found = awq_autoawq.packed(layer, 4, 64)
            tensors |= {f"{place}.{name}.{part}": getattr(found, part) for part in packed.GEMM}
        save_file(tensors, tmp_path / "awq" / "model.safetensors")
        return matrices.compare(tmp_path / "merged", tmp_path / "awq", 64, {}).problems

    assert written(scale, scale) == []
    assert written(torch.ones(128), torch.ones(128)) == []
    # On a card the scales and what they are multiplied with are rounded to bf16.
    assert written(scale, scale, torch.bfloat16) == []
    for share in (0.99, 1.01):
        for dtype in (torch.float32, torch.bfloat16):
            assert re.search(r"o_proj: .*columns .* the scale of the rows of v_proj", "".join(written(scale, scale * share, dtype)))
    off = scale.clone()
    off[5] *= 1.1
    assert written(scale, off) == [f"{place}.o_proj: 1 of 128 columns do not have the scale of the rows of v_proj"]
    # A scale of nearly 1 may be left out: rounding hides it.
    far = int(((scale - 1).abs() > 0.06).sum())
    (said,) = written(scale, torch.ones(128))
    assert said.endswith("columns do not have the scale of the rows of v_proj") and far > 120 and int(said.split()[1]) >= far


def test_round_to_nearest_has_an_error_of_one(merged: Path, tmp_path: Path) -> None:
    """The measure itself: what is compared with itself."""
    weight = load_file(merged / "model.safetensors")["model.layers.0.self_attn.q_proj.weight"].float()
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight.data = weight
    found = awq_autoawq.packed(layer, 4, 64)
    name = "model.layers.0.self_attn.q_proj"
    for folder, tensors in {"one": {f"{name}.weight": weight.bfloat16()}, "two": {f"{name}.{part}": getattr(found, part) for part in packed.GEMM}}.items():
        (tmp_path / folder).mkdir()
        save_file(tensors, tmp_path / folder / "model.safetensors")
    (only,) = matrices.compare(tmp_path / "one", tmp_path / "two", 64, {f"{name}.weight": [torch.randn(50, weight.shape[1])]}).matrices
    assert only.error == pytest.approx(1.0, abs=0.02)
    # A stored scale has 16 bits: of 16,384 numbers, those in the middle between two steps may go to the other one.
    written = packed.from_gemm(found.qweight, found.qzeros, found.scales)
    steps = (gates.round_to_nearest(weight, 64) - written.plain()).abs() / written.each(written.scales)
    assert float(steps.max()) < 1.01 and int((steps > 0.02).sum()) < 33
