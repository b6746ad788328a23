"""Plans of one training and of one server, which the tests change."""

from __future__ import annotations

from typing import Any

import pytest

from runners.errors import UserError
from runners.fields import HeadSpec
from runners.planning.machines import load_prices
from runners.planning.parts import Plan
from runners.planning.plan import make_plan
from runners.planning.serving import ANSWERS, Answers
from runners.planning.training import ASSUMED_CORPUS, CorpusSize
from runners.spec import MachineSpec, ServeSpec, Spec, TrainSpec
from runners.training.shape import QWEN2_14B, Shape

PRICES = load_prices()
DEFAULTS: dict[str, Any] = {"provisioning_model": "STANDARD", "disk_gb": 100, "max_run_minutes": 1440}


def train_plan(
    *,
    corpus: CorpusSize = ASSUMED_CORPUS,
    whole_logits: bool = False,
    train: dict[str, Any] | None = None,
    head: HeadSpec | None = None,
    shape: Shape = QWEN2_14B,
    **host: Any,
) -> Plan:
    spec = Spec(train=TrainSpec(**(train or {})), head=head, machine=MachineSpec(**{"machine_type": "a3-highgpu-1g", **host}))
    return make_plan("train-h100", spec, PRICES, shape=shape, corpus=corpus, whole_logits=whole_logits)


def serve_plan(machine_type: str = "g2-standard-8", format: Any = "awq", serve: dict[str, Any] | None = None, answers: Answers = ANSWERS) -> Plan:
    host = MachineSpec(role="serve", machine_type=machine_type, **DEFAULTS)
    return make_plan("serve-l4", Spec(serve=ServeSpec(**(serve or {})), machine=host), PRICES, format=format, answers=answers)


def refused(plan: Plan) -> str:
    assert plan.refusals
    with pytest.raises(UserError) as error:
        plan.accept()
    for notice in plan.refusals:
        assert notice.found in str(error.value)
        assert notice.fix in str(error.value)
        assert any(character.isdigit() for character in str(notice)), "a refusal gives numbers"
    return "\n".join(map(str, plan.refusals))
