"""General ability before and after: the base against itself loses nothing, a usual training little, one with a wrong learning rate too much."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from runners.compression import forgetting, gates, merge
from runners.compression.forgetting import Ability, Question
from runners.compression.general import AREAS, ITEMS
from runners.errors import UserError
from runners.spec import ChatSpec, MergeSpec, Spec, parse
from runners.training.examples import load_tokenizer
from tests.torch.test_architectures import SUPPORTED, made

MakeSpec = Callable[..., Spec]


def alone(model: Any, question: Question) -> list[float]:
    """Each answer read by itself, token by token as usual."""
    found = []
    for answer in question.answers:
        with torch.no_grad():
            likely = torch.log_softmax(model(input_ids=torch.tensor([question.prompt + answer]), use_cache=False).logits[0].float(), -1)
        found.append(sum(float(likely[len(question.prompt) - 1 + n, token]) for n, token in enumerate(answer)))
    return found


@pytest.mark.parametrize("name", SUPPORTED)
def test_one_pass_gives_the_likelihoods_of_each_answer_alone(name: str, tmp_path: Path) -> None:
    """In every architecture that can be trained: a model that ignored the mask or the positions would be judged on other texts."""
    kind, changes = SUPPORTED[name]
    folder = made(kind, changes | ({"sliding_window": 512} if "sliding_window" in changes else {}), tmp_path)
    model = gates.load_plain(folder, "cpu", torch.float32)
    eager = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32, attn_implementation="eager")
    chance = torch.Generator().manual_seed(2)

    def some(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(3, 97, (count,), generator=chance).tolist())

    system = some(6)
    questions = [Question(system + some(size), tuple(some(length) for length in (1, 3, 2, 4)), "all") for size in (1, 5, 9)]
    found = forgetting.ability(model, questions)
    for question, scores in zip(questions, found.scores, strict=True):
        assert list(scores) == pytest.approx(alone(eager, question), rel=1e-4, abs=1e-4)
    assert found.tokens == (1, 1, 1)


def test_the_set_as_tokens(make_spec: MakeSpec, base: Path) -> None:
    """Several passes, and no system prompt, give the same; only what differs between answers is scored."""
    tokenizer, model = load_tokenizer(base), gates.load_plain(base, "cpu", torch.float32)
    for spec in (make_spec(), brief(make_spec())):
        questions = forgetting.general_questions(spec, tokenizer)
        assert len(questions) == len(ITEMS)
        for question, item in zip(questions, ITEMS, strict=True):
            whole = tokenizer.decode(question.prompt + question.answers[0])
            assert whole.endswith(f"{item.start} {item.right}") and item.question in whole
            assert len({answer[0] for answer in question.answers}) > 1 and all(question.answers)
            assert spec.chat.system_prompt in whole
        scores = forgetting.ability(model, questions).scores
        for number in (0, 40, 95):
            assert list(scores[number]) == pytest.approx(alone(model, questions[number]), abs=1e-3)


def test_the_set_is_sound() -> None:
    assert {area: len(items) for area, items in AREAS.items()} == {"knowledge": 32, "arithmetic": 32, "instructions": 32}
    assert len({item.question for item in ITEMS}) == len(ITEMS)
    for item in ITEMS:
        answers = (item.right, *item.wrong)
        assert len(set(answers)) == 4
        # One that begins another could not be told from it by likelihood.
        assert not any(one != two and two.startswith(one) for one in answers for two in answers), item
        assert max(map(len, answers)) - min(map(len, answers)) <= 9, item
        assert not any(word in f"{item}".lower() for word in ("money", "dollar", "bank", "invest", "stock", "interest", "tax", "$"))
    longest = sum(len(item.right) > max(map(len, item.wrong)) for item in ITEMS)
    shortest = sum(len(item.right) < min(map(len, item.wrong)) for item in ITEMS)
    assert longest < 32 and shortest < 32, "length gives nothing away"


def test_the_interval_of_the_paired_drop() -> None:
    """Against a worked example (formula of Agresti and Min by hand), and its properties."""
    before = [True] * 60 + [False] * 40
    after = [True] * 50 + [False] * 10 + [True] * 2 + [False] * 38
    drop, low, high = forgetting.paired_drop(before, after)
    middle, reach = 8 / 102, 1.96 * math.sqrt((13 / 102 - (8 / 102) ** 2) / 102)
    assert (drop, low, high) == pytest.approx((0.08, middle - reach, middle + reach))
    assert forgetting.paired_drop(after, before) == pytest.approx((-drop, -high, -low))
    same = forgetting.paired_drop(before, before)
    assert same[0] == 0 and same[1] == -same[2] and 0 < same[2] < 0.03


def test_each_bound_holds_by_itself() -> None:
    """And numbers that are none pass neither."""

    def able(nats: float, right: int, worst: float | None = None) -> Ability:
        """``worst``: likelihood of the last 20, an area of their own."""
        each = [nats if worst is None or n < 80 else worst for n in range(100)]
        scores = tuple((one, one + (-1 if n < right else 1), -90.0, -90.0) for n, one in enumerate(each))
        return Ability(scores, (1,) * 100, ("knowledge",) * 80 + ("arithmetic",) * 20)

    settings = MergeSpec(max_general_nats_lost=0.5, max_general_share_lost=0.1)
    for after, passed in (
        (able(-2.0, 80), [True, True, True]),
        (able(-2.5, 70), [True, True, True]),
        (able(-2.51, 80), [False, True, False]),
        (able(-2.0, 69), [True, False, True]),
        (able(-1.0, 99), [True, True, True]),
        (able(-2.0, 80, -2.6), [True, True, False]),
        (able(-1.0, 99, -2.6), [True, True, False]),
        (able(math.nan, 80), [False, False, False]),
        (able(-2.0, 80, math.nan), [False, True, False]),
        (able(-math.inf, 0), [False, False, False]),
    ):
        held, measured = forgetting.held(settings, able(-2.0, 80), after)
        assert [gate.passed for gate in held] == passed, after.nats
        assert measured["general_right_before"] == 80 and measured["general_questions"] == 100
        assert set(measured) >= {"general_nats_lost_knowledge", "general_nats_lost_arithmetic"}
    damaged_base, _ = forgetting.held(settings, able(math.nan, 80), able(-2.0, 80))
    assert damaged_base and not any(gate.passed for gate in damaged_base if "nats" in gate.name), "it is no base that guesses"


@pytest.mark.parametrize("bound", ["max_general_nats_lost", "max_general_share_lost", "max_mean_kl", "rounding_factor"])
@pytest.mark.parametrize("value", [math.inf, "inf", -math.inf, math.nan, -1, "much", None, [1]])
def test_a_bound_that_bounds_nothing_is_refused(bound: str, value: Any) -> None:
    with pytest.raises(UserError, match=f"merge.{bound}"):
        parse({"merge": {bound: value}})


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content | trim }}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}",
        "{{ '<s>' }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]{% else %}{{ m.content }}{% endif %}{% endfor %}",
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n\n{% endfor %}{% if add_generation_prompt %}assistant: <think>\n\n</think>\n\n{% endif %}",
    ],
    ids=["no newlines", "instructions", "thinking"],
)
def test_other_chat_templates(template: str, make_spec: MakeSpec, base: Path) -> None:
    tokenizer, model = load_tokenizer(base), gates.load_plain(base, "cpu", torch.float32)
    tokenizer.chat_template = template
    questions = forgetting.general_questions(make_spec(), tokenizer)
    assert len(questions) == len(ITEMS) and {question.area for question in questions} == set(AREAS)
    for question, item in zip(questions, ITEMS, strict=True):
        assert tokenizer.decode(question.prompt + question.answers[0]).endswith(f"{item.start} {item.right}")
        assert len({answer[0] for answer in question.answers}) > 1 and all(question.answers)
    assert list(forgetting.ability(model, questions[:3]).scores[2]) == pytest.approx(alone(model, questions[2]), abs=1e-3)


def test_what_a_tokenizer_cannot_tell_apart_is_not_asked(make_spec: MakeSpec, base: Path) -> None:
    from tokenizers import normalizers

    tokenizer = load_tokenizer(base)
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    asked = forgetting.general_questions(make_spec(), tokenizer)
    assert len(asked) == len(ITEMS) - 1 and all(all(question.answers) for question in asked), "blue in capital letters"


def test_a_base_that_guesses_has_nothing_to_forget(make_spec: MakeSpec, base: Path) -> None:
    """39 of 96 is what a guess reaches once in a thousand times; a random model is below."""
    assert forgetting.better_than_guessing(96) == 39
    chance = random.Random(0)
    assert sum(sum(chance.random() < 0.25 for _ in range(96)) >= 39 for _ in range(4000)) <= 10
    random_model = forgetting.ability(gates.load_plain(base, "cpu", torch.float32), forgetting.general_questions(make_spec(), load_tokenizer(base)))
    assert sum(random_model.right) < 39
    found, measured = forgetting.held(MergeSpec(), random_model, random_model)
    assert found == () and measured["general_questions"] == 96


def brief(spec: Spec) -> Spec:
    """Without the system prompt: half the tokens."""
    return spec.model_copy(update={"chat": ChatSpec(system_prompt="")})


def taught(folder: Path, spec: Spec, seed: int) -> Path:
    """A tiny base that knows the set: a random model has nothing to forget."""
    from runners.local.base_model import make_tiny

    base = make_tiny(folder, seed=seed)
    model = learned(gates.load_plain(base, "cpu", torch.float32), forgetting.general_questions(spec, load_tokenizer(base)))
    model.to(torch.bfloat16).save_pretrained(base)
    return base


def learned(model: Any, questions: list[Question]) -> Any:
    """A model that was taught the first answer of each question."""
    rows = [(one.prompt, one.answers[0]) for one in questions]
    longest = max(len(prompt + answer) for prompt, answer in rows)
    ids = torch.tensor([[*prompt, *answer, *[0] * (longest - len(prompt + answer))] for prompt, answer in rows])
    labels = torch.tensor([[-100] * len(prompt) + [*answer] + [-100] * (longest - len(prompt + answer)) for prompt, answer in rows])
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    for _ in range(24):
        model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


@pytest.fixture(scope="module")
def able(tmp_path_factory: pytest.TempPathFactory, make_spec: MakeSpec) -> Path:
    """A taught base."""
    return taught(tmp_path_factory.mktemp("able") / "base", brief(make_spec()), 0)


def test_the_base_against_itself_passes(able: Path, make_spec: MakeSpec) -> None:
    """As it is: exactly nothing. In bf16, read in small portions, and with the rounding of a merge under five seeds: within both bounds."""
    model = gates.load_plain(able, "cpu", torch.float32)
    questions = forgetting.general_questions(brief(make_spec()), load_tokenizer(able))
    before = forgetting.ability(model, questions)
    assert sum(before.right) > 90
    held, _ = forgetting.held(MergeSpec(), before, forgetting.ability(model, questions))
    assert [gate.value for gate in held] == [0, 0, 0]
    for seed in range(6):
        other = gates.load_plain(able, "cpu", torch.bfloat16 if seed == 5 else torch.float32)
        if seed < 5:
            merge.round_again(list(other.named_modules()), seed)
        after = forgetting.ability(other, list(reversed(questions)))
        after = Ability(*(tuple(reversed(column)) for column in (after.scores, after.tokens, after.areas)))
        held, _ = forgetting.held(MergeSpec(), before, after)
        assert 0 < abs(held[0].value) < 0.05 and abs(held[1].value) < 0.02 and abs(held[2].value) < 0.1 and all(gate.passed for gate in held)


def test_a_wrong_learning_rate_fails_and_a_usual_one_passes(able: Path, dataset: Path, make_spec: MakeSpec, tmp_path: Path) -> None:
    """Training itself does not notice: its held-out loss falls at both."""
    from runners.training.train import train

    usual, wrong = (brief(make_spec(learning_rate=rate, epochs=1)) for rate in (1e-3, 0.05))
    adapter = train(usual, able, dataset, tmp_path / "usual").adapter
    result = merge.merge(usual, able, adapter, dataset, tmp_path / "usual")
    assert [gate.name.removeprefix("general questions, ") for gate in result.gates[4:]] == [
        "nats a token lost",
        "share lost",
        "nats a token lost in the worst area",
    ]
    assert result.metrics["general_right_before"] > 90
    adapter = train(wrong, able, dataset, tmp_path / "wrong").adapter
    with pytest.raises(gates.GateFailed, match="nats a token lost is .*share lost is .* at most 0.1 is allowed; .* in the worst area is") as failed:
        merge.merge(wrong, able, adapter, dataset, tmp_path / "wrong")
    assert [gate.passed for gate in failed.value.gates] == [True, True, True, True, False, False, False]


def test_damage_to_one_area_fails_by_itself(able: Path, make_spec: MakeSpec) -> None:
    """The model is taught wrong answers to a few sums, and nothing else: the share of all questions stays within its bound."""
    questions = forgetting.general_questions(brief(make_spec()), load_tokenizer(able))
    before = forgetting.ability(gates.load_plain(able, "cpu", torch.float32), questions)
    sums = [place for place, question in enumerate(questions) if question.area == "arithmetic"][:9]
    wrong = [replace(question, answers=question.answers[1:]) if place in sums else question for place, question in enumerate(questions)]
    model = learned(gates.load_plain(able, "cpu", torch.float32), wrong)
    held, measured = forgetting.held(MergeSpec(), before, forgetting.ability(model, questions))
    assert [gate.passed for gate in held] == [True, True, False], held
    assert measured["general_nats_lost_arithmetic"] > 0.5 > abs(measured["general_nats_lost_knowledge"])
