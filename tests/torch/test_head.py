"""An EAGLE-3 head: what it computes, what training adds, and damages that its gates find."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from runners.artifacts.record import Gate
from runners.compression import gates, head, packed, packed_head
from runners.errors import UserError
from runners.local.base_model import make_tiny
from runners.planning.serving import head_bytes, head_parameters
from runners.training import eagle
from runners.training.examples import Example
from runners.training.shape import Shape
from tests.torch import taught
from tests.torch.conftest import rows, write_dataset

HEAD = taught.make_spec().head
assert HEAD


class Made:
    """A taught model with its head and what the gate measured, made once."""

    def __init__(self, work: Path, dataset: Path) -> None:
        self.work, self.dataset, self.merged = work, dataset, taught.teach(work / "merged", dataset)
        self.result = head.train_head(taught.make_spec(), self.merged, dataset, work)
        self.model = gates.load_plain(self.merged, "cpu", torch.float32)
        probes = head.validation_split(taught.make_spec(), dataset, head.load_tokenizer(self.merged), HEAD.probe_examples)
        self.written = head.answers(self.model, probes, HEAD.probe_tokens)

    def held(self, folder: Path) -> dict[str, Gate]:
        trained, untrained = (self.result.metrics[name] for name in ("tokens_a_step", "tokens_a_step_untrained"))
        found, _ = head.measure(HEAD, self.model, folder, self.written, trained=trained, untrained=untrained)
        return {gate.name: gate for gate in found}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    work = tmp_path_factory.mktemp("head")
    torch.set_num_threads(1)  # matrices of 128 columns: a second thread only waits, and on a busy machine it waits long
    return Made(work, write_dataset(work / "data", rows(40, "train"), rows(8, "validation")))


def test_a_trained_head_drafts_and_its_files_pass_every_gate(made: Made) -> None:
    assert made.result.metrics["tokens_a_step"] > 1.5 > made.result.metrics["tokens_a_step_untrained"]
    losses = [row["loss"] for row in made.result.metrics["history"]]
    assert losses == sorted(losses, reverse=True) and len(losses) == HEAD.epochs
    assert all(gate.passed for gate in made.held(made.result.head).values())


def test_the_files_are_what_a_server_loads(made: Made) -> None:
    config, tensors = json.loads((made.result.head / "config.json").read_text()), load_file(made.result.head / eagle.WEIGHTS)
    assert config["architectures"] == ["LlamaForCausalLMEagle3"] and config["eagle_aux_hidden_state_layer_ids"] == [0, 1, 2]
    assert config["draft_vocab_size"] == len(tensors["d2t"]) == int(tensors["t2d"].sum()) == HEAD.draft_vocabulary
    assert tensors["midlayer.self_attn.q_proj.weight"].shape == (128, 256) and "embed_tokens.weight" not in tensors
    norms = 4 * 128
    counted = sum(tensor.numel() for name, tensor in tensors.items() if name not in ("d2t", "t2d")) - norms
    assert counted == head_parameters(Shape.of_config(made.model.config.to_dict()), HEAD.draft_vocabulary), "the planner's count"


def test_a_draft_is_what_the_head_says_one_token_after_the_other(made: Made) -> None:
    """The unrolled form against a draft that is fed its own last token and state, as a server does it, from every place of an answer."""
    drafting, problems = packed_head.read(made.result.head, made.model)
    assert drafting and not problems
    example = made.written[0]
    embeddings, states, _ = head._seen(made.model, example, drafting.config["eagle_aux_hidden_state_layer_ids"])
    start = example.answer_start - 1
    with torch.no_grad():
        whole = list(drafting(embeddings, states, start, 3))
        for place in range(start, len(example) - 5, 7):
            # Cut off behind what a server knows: the tokens up to place + 1; then one more for each token that is drafted.
            for step in range(3):
                cut = list(drafting(embeddings[: place + 2 + step], states[: place + 2 + step], place, step + 1))
                assert torch.allclose(cut[step][0], whole[step][place - start], atol=1e-4), (place, step)


def test_what_lies_ahead_is_not_seen(made: Made) -> None:
    drafting, _ = packed_head.read(made.result.head, made.model)
    assert drafting
    one = made.written[0]
    other = Example(one.id, (*one.token_ids[:-4], *reversed(one.token_ids[-4:])), one.answer_start)
    layers = drafting.config["eagle_aux_hidden_state_layer_ids"]
    with torch.no_grad():
        (first, *_), (second, *_) = (list(drafting(*head._seen(made.model, each, layers)[:2], each.answer_start - 1, 2)) for each in (one, other))
    # Position j reads token j + 1 and no later one.
    assert torch.equal(first[:-5], second[:-5]) and not torch.equal(first, second)


def _swapped_layers(tensors: dict[str, Any], _: dict[str, Any]) -> None:
    first, middle, last = tensors["fc.weight"].chunk(3, 1)
    tensors["fc.weight"] = torch.cat([last, middle, first], 1).contiguous()


def _shifted_words(tensors: dict[str, Any], _: dict[str, Any]) -> None:
    tensors["d2t"] = tensors["d2t"] + 1
    tensors["t2d"] = tensors["t2d"].roll(1)


def _words_without_their_mask(tensors: dict[str, Any], _: dict[str, Any]) -> None:
    tensors["d2t"][5:] += 1


def _other_layers(_: dict[str, Any], config: dict[str, Any]) -> None:
    config["eagle_aux_hidden_state_layer_ids"] = [2, 1, 0]


def _missing(tensors: dict[str, Any], _: dict[str, Any]) -> None:
    del tensors["midlayer.mlp.up_proj.weight"]


def _not_a_number(tensors: dict[str, Any], _: dict[str, Any]) -> None:
    tensors["norm.weight"][3] = float("nan")


def _other_rope(_: dict[str, Any], config: dict[str, Any]) -> None:
    config["rope_parameters"] = {"rope_theta": 5.0, "rope_type": "default"}


def _no_attention(tensors: dict[str, Any], _: dict[str, Any]) -> None:
    tensors["midlayer.self_attn.o_proj.weight"] *= -1


DAMAGES = [_swapped_layers, _shifted_words, _words_without_their_mask, _other_layers, _missing, _not_a_number, _other_rope, _no_attention]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__.strip("_"))
def test_a_damaged_head_is_caught(damage: Callable[[dict[str, Any], dict[str, Any]], None], made: Made, tmp_path: Path) -> None:
    folder = shutil.copytree(made.result.head, tmp_path / "damaged")
    tensors, config = load_file(folder / eagle.WEIGHTS), json.loads((folder / "config.json").read_text())
    damage(tensors, config)
    save_file(tensors, folder / eagle.WEIGHTS)
    (folder / "config.json").write_text(json.dumps(config))
    assert not all(gate.passed for gate in made.held(folder).values())


def test_a_head_that_was_not_trained_and_one_of_another_model_are_caught(made: Made, tmp_path: Path) -> None:
    drafting = packed_head.read(made.result.head, made.model)[0]
    assert drafting
    untrained = eagle.write(eagle.new(made.model, drafting.words.tolist()), tmp_path / "untrained")
    assert not made.held(untrained)["tokens a step, above an untrained head's"].passed
    other = gates.load_plain(make_tiny(tmp_path / "other", seed=1), "cpu", torch.float32)
    found, _ = head.measure(HEAD, other, made.result.head, head.answers(other, made.written[:2], 24), trained=1.0, untrained=1.0)
    assert not all(gate.passed for gate in found), "it has the same shapes"


def _four_bits(made: Made, work: Path) -> Path:
    return packed_head.write(made.result.head, work / "small", 128)


def test_a_head_in_four_bits_is_the_head_but_for_rounding(made: Made, tmp_path: Path) -> None:
    whole, small = (load_file(folder / eagle.WEIGHTS) for folder in (made.result.head, _four_bits(made, tmp_path)))
    stems = sorted(name.removesuffix(".qweight") for name in small if name.endswith(".qweight"))
    assert len(stems) == 8 and "fc" in stems, "the projection and the layer's seven matrices"
    for stem in stems:
        matrix = packed.from_gemm(*(small[f"{stem}.{part}"] for part in packed.GEMM))
        weight = whole.pop(f"{stem}.weight").float()
        assert matrix.group_size == 128 and matrix.codes.shape == weight.shape
        wrong, inside = (matrix.plain() - weight).abs() / matrix.each(matrix.scales), (matrix.codes > 0) & (matrix.codes < packed.LARGEST_CODE)
        assert wrong[inside].max() < 0.51 and wrong.max() < 1.01, f"{stem}: half a step, and another where a group ends, since its zero is rounded too"
    assert all(torch.equal(tensor, small[name]) for name, tensor in whole.items()) and "lm_head.weight" in whole
    counted = sum(t.numel() * t.element_size() for name, t in small.items() if name.rpartition(".")[2] in packed.GEMM or name == "lm_head.weight")
    settings = HEAD.model_copy(update={"bits": 4})
    assert counted == head_bytes(Shape.of_config(made.model.config.to_dict()), settings), "the planner's count"


@pytest.mark.parametrize(("kept", "bits"), [(0.0, 4), (9.0, 16)])
def test_a_head_goes_into_four_bits_where_it_keeps_enough(kept: float, bits: int, made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """How much this small a head loses is a matter of luck: the share is set to what any keeps, and to what none does."""
    folder = shutil.copytree(made.result.head, tmp_path / "head")
    before = head.measure(HEAD, made.model, folder, made.written, trained=1.0, untrained=1.0)
    monkeypatch.setattr(head, "_KEPT", kept)
    held, metrics = head.quantized(HEAD, made.model, folder, made.written, before)
    assert metrics["bits"] == bits and all(gate.passed for gate in held) and metrics["tokens_a_step"] > 1.3
    assert ("quantization_config" in json.loads((folder / "config.json").read_text())) == (bits == 4)
    assert {"tokens_a_step_16_bit", "tokens_a_step_4_bit"} & metrics.keys() == {f"tokens_a_step_{20 - bits}_bit"}
    assert [file.name for file in tmp_path.iterdir()] == ["head"]
    with monkeypatch.context() as other:
        other.setattr(packed_head, "group_size", lambda _: None)
        shutil.copytree(made.result.head, folder, dirs_exist_ok=True)
        assert head.quantized(HEAD, made.model, folder, made.written, before)[1]["bits"] == 16, "no groups fit"


def _other_zeros(tensors: dict[str, Any], _: dict[str, Any]) -> None:
    tensors["fc.qzeros"] = tensors["fc.qzeros"] + 0x33333333


def _other_order(tensors: dict[str, Any], _: dict[str, Any]) -> None:
    tensors["fc.qweight"] = (tensors["fc.qweight"] >> 4 & 0x0F0F0F0F) | (tensors["fc.qweight"] & 0x0F0F0F0F) << 4


def _no_scale(tensors: dict[str, Any], _: dict[str, Any]) -> None:
    tensors["midlayer.mlp.up_proj.scales"][0, 3] = float("nan")


def _no_zeros(tensors: dict[str, Any], _: dict[str, Any]) -> None:
    del tensors["midlayer.self_attn.k_proj.qzeros"]


def _cut_off(tensors: dict[str, Any], _: dict[str, Any]) -> None:
    tensors["fc.qweight"] = tensors["fc.qweight"][:-128].contiguous()


def _left_out(tensors: dict[str, Any], _: dict[str, Any]) -> None:
    for part in packed.GEMM:
        del tensors[f"fc.{part}"]
    tensors["fc.weight"] = torch.zeros(128, 384, dtype=torch.bfloat16)


def _other_groups(_: dict[str, Any], config: dict[str, Any]) -> None:
    config["quantization_config"]["group_size"] = 64


def _unsaid(_: dict[str, Any], config: dict[str, Any]) -> None:
    del config["quantization_config"]


@pytest.mark.parametrize(
    "damage",
    [_other_zeros, _other_order, _no_scale, _no_zeros, _cut_off, _left_out, _other_groups, _unsaid, _other_layers, _words_without_their_mask],
    ids=lambda damage: damage.__name__.strip("_"),
)
def test_a_damaged_head_in_four_bits_is_caught(damage: Callable[[dict[str, Any], dict[str, Any]], None], made: Made, tmp_path: Path) -> None:
    folder = _four_bits(made, tmp_path)
    tensors, config = load_file(folder / eagle.WEIGHTS), json.loads((folder / "config.json").read_text())
    whole = head.measure(HEAD, made.model, folder, made.written, trained=1.0, untrained=1.0)[1]["tokens_a_step"]
    damage(tensors, config)
    save_file(tensors, folder / eagle.WEIGHTS)
    (folder / "config.json").write_text(json.dumps(config))
    found, _ = head.measure(HEAD, made.model, folder, made.written, trained=whole, untrained=made.result.metrics["tokens_a_step_untrained"])
    assert not all(gate.passed for gate in found)


@pytest.mark.parametrize(
    ("hidden", "inner", "heads", "size", "fits"),
    [
        (5120, 13824, 40, 128, 128),
        (128, 256, 2, 64, 128),
        (960, 2560, 15, 64, 64),
        (576, 1536, 9, 64, 64),
        (96, 160, 3, 32, 32),
        (100, 256, 2, 64, None),
        (128, 256, 2, 20, None),
    ],
)
def test_a_heads_groups_are_the_largest_that_fit(hidden: int, inner: int, heads: int, size: int, fits: int | None) -> None:
    config = {"hidden_size": hidden, "intermediate_size": inner, "num_attention_heads": heads, "num_key_value_heads": 1, "head_dim": size}
    assert packed_head.group_size(config) == fits


def test_a_model_without_three_layers_to_look_at_has_no_head() -> None:
    with pytest.raises(UserError, match="reads three hidden states"):
        eagle.config_of({"num_hidden_layers": 1}, 64)
    assert [eagle.layers_of(count) for count in (2, 8, 48)] == [(0, 1, 2), (2, 4, 5), (2, 24, 45)]
