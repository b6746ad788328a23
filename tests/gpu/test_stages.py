"""The stages on the device, on a few layers of the real width: load, train, be killed and resume, merge with its gate, AWQ with its gate."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from runners import spec as declared
from runners.planning import session
from runners.spec import Spec
from tests.gpu import card as cards
from tests.gpu.card import Card
from tests.gpu.figures import Table
from tests.torch.conftest import rows, write_dataset

ROOT = Path(__file__).parents[2]
LAYERS = 2
RUN = """
import sys, json
from pathlib import Path
from runners import spec
from runners.training import train
settings, folders = spec.parse(json.loads(sys.argv[1])), [Path(name) for name in sys.argv[2:]]
train.train(settings, *folders, save_checkpoint=lambda step, _: print(step, flush=True))
"""


@pytest.fixture(scope="module")
def places(card: Card, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A base model, a dataset, and a folder for results."""
    work = tmp_path_factory.mktemp("stages")
    with cards.released():
        base = cards.write_base(card, card.slice(LAYERS), work / "base")
    return {"base": base, "dataset": write_dataset(work / "dataset", rows(40, "train"), rows(8, "validation")), "work": work}


@pytest.fixture(scope="module")
def spec(card: Card) -> Spec:
    """The card's settings, 10 steps, and dropout, so that the random states matter."""
    train = card.settings.model_dump() | {"epochs": 2, "batch_examples": 8, "max_tokens": 512, "dropout": 0.1, "checkpoints_per_epoch": 2}
    group = 128 if card.on_card else 64
    return declared.parse(
        {
            "train": train | {"learning_rate": 1e-3, "micro_batch_tokens": 1024},
            "base_model": {"name": "random"},
            # The bounds of a real model mean nothing for random weights; that it beats round-to-nearest does.
            "quantize": {
                "max_mean_kl": 2.0,
                "max_perplexity_ratio": 3.0,
                "group_size": group,
                "calibration_tokens": 16384 if card.on_card else 2048,
                "calibration_sequence_tokens": 512 if card.on_card else 256,
            },
        }
    )


def seconds_of(result: Any, name: str) -> float:
    return sum(phase.seconds for phase in result.phases if phase.name.startswith(name))


def test_killed_and_resumed(card: Card, spec: Spec, places: dict[str, Path], table: Table) -> None:
    """SIGKILL after the first checkpoint; the same call goes on, and ends with the losses of an uninterrupted run."""
    from runners.training import train

    base, dataset, work = places["base"], places["dataset"], places["work"]
    with cards.released():
        straight = train.train(spec, base, dataset, work)
    values = json.dumps(spec.model_dump(mode="json"))
    command = [sys.executable, "-c", RUN, values, str(base), str(dataset), str(work / "killed")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT) as child:
        assert child.stdout is not None
        child.stdout.readline()
        os.kill(child.pid, signal.SIGKILL)
        assert child.wait(120) == -signal.SIGKILL
    with cards.released():
        resumed = train.train(spec, base, dataset, work / "killed")
    assert 2 <= resumed.metrics["resumed_from_step"] < 10
    one, two = ([row["loss"] for row in result.metrics["history"]] for result in (straight, resumed))
    # Flash attention's backward adds in no fixed order: a card gives the same losses to a few thousandths, a CPU to the bit.
    assert one == pytest.approx(two, rel=5e-3) if card.on_card else one == two
    assert straight.metrics["validation_loss_after"] < straight.metrics["validation_loss_before"]
    worst = max(abs(a / b - 1) for a, b in zip(one, two, strict=True))
    table.add("resumed after SIGKILL, worst loss against uninterrupted", worst, "relative")
    if card.on_card:
        size = sum(file.stat().st_size for file in base.glob("*.safetensors")) / 1e9
        table.add(
            "load onto the card", size / seconds_of(straight, "load model"), "GB/s", session.LOAD_GB_S.expected, f"{size:.1f} GB just written", held=False
        )


def test_merged_and_held_against_the_adapter(card: Card, spec: Spec, places: dict[str, Path], table: Table) -> None:
    from runners.compression import merge

    adapter = places["work"] / "adapter"
    if not adapter.exists():
        pytest.skip("no adapter was trained")
    with cards.released():
        result = merge.merge(spec, places["base"], adapter, places["dataset"], places["work"])
    assert all(gate.passed for gate in result.gates)
    for gate in result.gates:
        table.add(f"gate: {gate.name}", gate.value, "", note=f"{gate.rule} {gate.bound:.3g}")
    if card.on_card:
        size = sum(file.stat().st_size for file in places["base"].glob("*.safetensors")) / 1e9
        rates = {"merge": session.MERGE_S_PER_GB, "compare with the adapter": session.COMPARE_S_PER_GB}
        for phase in result.phases:
            rate = rates.get(phase.name)
            table.add(f"merge: {phase.name}", phase.seconds, "s", rate and size * rate.expected, f"{size:.1f} GB", held=False)


def test_awq_of_two_layers(card: Card, spec: Spec, places: dict[str, Path], table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("awq")
    from runners.compression import awq_autoawq, packed, quantize
    from runners.compression.parity import Tensors

    ends: list[float] = []
    pack: Callable[..., None] = awq_autoawq.MendedQuantizer._apply_quant

    def noted(self: Any, *arguments: Any) -> None:
        pack(self, *arguments)
        card.sync()
        ends.append(time.perf_counter())

    monkeypatch.setattr(awq_autoawq.MendedQuantizer, "_apply_quant", noted)
    with cards.released():
        result = quantize.quantize(spec, places["base"], places["dataset"], places["work"])
    assert all(gate.passed for gate in result.gates)
    assert len(packed.stems(Tensors(result.quantized))) == 7 * card.slice(LAYERS).layers
    for gate in result.gates:
        table.add(f"gate: {gate.name}", gate.value, "", note=f"{gate.rule} {gate.bound:.3g}")
    if card.on_card:
        table.add(
            "AWQ of one layer",
            ends[-1] - ends[-2],
            "s",
            session.AWQ_LAYER_S.expected,
            held=False,
            note=f"{spec.quantize.calibration_tokens:,} calibration tokens",
        )
        for phase in result.phases:
            table.add(f"quantize: {phase.name}", phase.seconds, "s", note=f"{card.slice(LAYERS).layers} layers")


def test_packed_weights_multiply_as_they_are_read_back(card: Card) -> None:
    """autoawq's own kernel on the card against our dequantization of the same words."""
    pytest.importorskip("awq")
    from runners.compression import awq_autoawq
    from runners.compression.packed import from_gemm

    torch.manual_seed(0)
    layer = torch.nn.Linear(1024, 512, bias=False, device=card.device, dtype=torch.float16 if card.on_card else torch.float32)
    with torch.no_grad():
        packed = awq_autoawq.packed(layer, 4, 128)
        x = torch.randn(3, 1024, device=card.device, dtype=torch.float16)
        weight = from_gemm(packed.qweight, packed.qzeros, packed.scales).plain()
        found, expected = packed(x).float(), x.float() @ weight.T
    assert float((found - expected).norm() / expected.norm()) < 2e-3
    plain = layer.weight.detach().float()
    assert float((weight - plain).norm() / plain.norm()) < 0.12
