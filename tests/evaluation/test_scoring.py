"""Answers held against checks: what passes, what does not, and that neither wording nor luck decides."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runners.evaluation.cases import Case
from runners.evaluation.choices import chosen
from runners.evaluation.scoring import score


def case(*checks: dict[str, Any], **more: Any) -> Case:
    fixed = {"id": "x", "category": "tax", "difficulty": "easy", "question": "Why is that so?", "source": "the code", "as_of": 2025}
    return Case.model_validate(fixed | {"checks": list(checks)} | more)


def passes(held: Case, answer: str) -> bool:
    return score(held, answer).passed


LIMIT = case({"number": 23000, "unit": "usd"})
RATE = case({"number": 10, "unit": "percent"})
STATED = [
    "$23,000",
    "It is 23k.",
    "twenty-three thousand dollars",
    "The limit is **$23,000** for 2024.",
    "not $22,500 but $23,000",
    "You cannot contribute more than $23,000",
    "It must not exceed $23,000",
    "The limit was $22,500 in 2023; it is $23,000 now",
    "$23,000, or $30,500 if you are 50 or older",
    "not only $23,000 but also more",
    "1. The limit\n2. is $23,000",
    "\\$23,000",
]
NOT_STATED = [
    "$23,500",
    "is not $23,000",
    "it isn't $23,000",
    "$22,500 or $23,000",
    "between $20,000 and $23,000",
    "$20,000-$23,000",
    "Is it $23,000?",
    "I'm not sure, but $23,000 comes to mind",
    "I do not know whether it is $23,000",
    "23,000 %",
    "It may be $22,500 or it may be $23,000",
    "It might be $19,500. It might be $23,000.",
    "$23,000 is wrong",
    "$23,000 is no longer the limit",
    "rather than $23,000",
    "$19,000, $19,500, $20,000, $20,500, $21,000, $21,500, $22,000, $22,500, $23,000, $23,500",
    "$2,300",
    "",
]


@pytest.mark.parametrize("answer", STATED)
def test_a_stated_number_passes(answer: str) -> None:
    assert passes(LIMIT, answer), score(LIMIT, answer)


@pytest.mark.parametrize("answer", NOT_STATED)
def test_a_number_that_is_not_stated_fails(answer: str) -> None:
    assert not passes(LIMIT, answer)


@pytest.mark.parametrize("answer", ["10 %", "ten percent", "a 10% penalty", "a rate of 0.10", "1,000 basis points"])
def test_percent_in_its_forms(answer: str) -> None:
    assert passes(RATE, answer)


@pytest.mark.parametrize("answer", ["is not 10 %", "10", "$10", "5-10 %", "10 percent or 20 percent", "isn't taxed at 10 %", "10 years", "100 %"])
def test_percent_denied_hedged_or_of_another_unit(answer: str) -> None:
    assert not passes(RATE, answer)


def test_a_range_passes_when_both_of_its_ends_are_asked_for() -> None:
    both = case({"number": 15, "unit": "percent"}, {"number": 20, "unit": "percent"})
    assert passes(both, "Save 15-20 % of your pay.")
    assert not passes(both, "Save 15-25 % of your pay.")


def test_years_months_and_counts() -> None:
    assert passes(case({"number": 59.5, "unit": "years"}), "from age 59½")
    assert passes(case({"number": 1.5, "unit": "years"}), "after 18 months")
    assert passes(case({"number": 3, "unit": "count"}, {"number": 6, "unit": "count"}), "three to six months of expenses")


def test_tolerances() -> None:
    assert passes(case({"number": 54274, "unit": "usd", "tolerance": 1}), "about $54,274.62")
    assert not passes(case({"number": 54274, "unit": "usd", "tolerance": 1}), "about $54,276")
    assert passes(case({"number": 200, "unit": "usd", "tolerance_percent": 1}), "$202")
    assert not passes(case({"number": 200, "unit": "usd", "tolerance_percent": 1}), "$203")


SAID = [
    ("avoids probate", "A trust helps your heirs avoid the lengthy probate process."),
    ("required minimum distribution", "**Required Minimum Distributions** (RMDs)"),
    ("25x expenses", "Save 25 times your annual expenses."),
    ("age 73", "at the age of 73"),
    ("401(k)", "your 401k plan"),
    ("rates rise ... prices fall", "When interest rates rise, bond prices usually fall."),
    ("durable power of attorney", "a *durable* power-of-attorney"),
    ("cannot be predicted", "Markets can't be predicted."),
    ("phishing", "No. That is phishing."),
    ("tax-free growth", "It gives you tax\u2011free growth."),
]
NOT_SAID = [
    ("taxed as ordinary income", "They are not taxed as ordinary income."),
    ("bonds are safe", "It isn't true that bonds are safe."),
    ("bonds are safe", "It is a myth that bonds are safe."),
    ("bonds are safe", "That bonds are safe is a misconception."),
    ("bonds are safe", "Are bonds safe?"),
    ("bonds are safe", "Nobody can promise that all bonds are safe."),
    ("bonds are safe", "I cannot say that such bonds are safe."),
    ("avoids probate", "A will does not avoid probate."),
    ("rates rise ... prices fall", "When rates fall, prices rise."),
    ("age 73", "at age 72"),
    ("will", "William went home."),
    ("ira", "Miranda did."),
    ("tax", "a taxonomy"),
]


@pytest.mark.parametrize(("wording", "answer"), SAID)
def test_facts_said(wording: str, answer: str) -> None:
    assert passes(case({"fact": "f", "accepted": [wording]}), answer)


@pytest.mark.parametrize(("wording", "answer"), NOT_SAID)
def test_facts_not_said_or_denied(wording: str, answer: str) -> None:
    assert not passes(case({"fact": "f", "accepted": [wording]}), answer)


def test_a_forbidden_claim_fails_only_when_it_is_made() -> None:
    held = case({"fact": "f", "accepted": ["Roth"]}, {"forbidden": "d", "wordings": ["contributions are tax-deductible", "guaranteed return"]})
    assert passes(held, "Roth contributions are not tax-deductible, and there is no guaranteed return.")
    assert not passes(held, "Roth contributions are tax-deductible.")
    assert not passes(held, "A Roth has a guaranteed return.")
    paid = case({"fact": "f", "accepted": ["patient"]}, {"forbidden": "the maximum", "wordings": ["patient pays $6,000"]})
    assert passes(paid, "The patient pays $1,500 * $6,000.") and not passes(paid, "The patient then pays the full $6,000.")


CHOICES = {"A": "Stocks", "B": "Treasury bills", "C": "Gold"}
CHOSEN = [
    ("B", "B"),
    ("B)", "B"),
    ("The answer is B.", "B"),
    ("**B) Treasury bills**", "B"),
    ("(B)", "B"),
    ("Treasury bills", "B"),
    ("The correct answer is (B) because A is risky.", "B"),
    ("Answer: B\n\nA is wrong.", "B"),
    ("$\\boxed{B}$ is the answer: B", "B"),
    ("A", "A"),
    ("The answer is A, or the answer is B", "AB"),
    ("A) Stocks\nB) Treasury bills\nC) Gold", ""),
    ("A) Stocks\nB) Treasury bills\nC) Gold\n\nThe answer is B.", "B"),
    ("B) Treasury bills\n\nThe correct answer is B) Treasury bills.", "B"),
    ("Treasury bills or gold", ""),
    ("", ""),
    ("I don't know", ""),
]


@pytest.mark.parametrize(("answer", "letters"), CHOSEN)
def test_the_letter_an_answer_settles_on(answer: str, letters: str) -> None:
    assert chosen(answer, CHOICES) == set(letters)


def test_a_letter_with_the_words_of_another_choice_is_no_answer() -> None:
    held = case({"choice": "B"}, kind="multiple_choice", choices=CHOICES)
    assert passes(held, "B) Treasury bills. Stocks are riskier.") and passes(held, "B) is right") and passes(held, "**B.** Treasury bills")
    assert not passes(held, "B) Stocks") and not passes(held, "The answer is B) Gold.")


def test_declining() -> None:
    held = case({"decline": "nobody knows"}, kind="decline")
    for answer in ("I can't predict what the market will do.", "No one can predict that.", "I am unable to tell.", "I do not know.", "No. That is a crime."):
        assert passes(held, answer), answer
    for answer in ("It will go up 10 %.", "Buy it.", "No problem, here it is.", "Can no one predict that?", ""):
        assert not passes(held, answer), answer


def test_a_result_says_why_and_where() -> None:
    answer = "The limit is $22,500, not $23,000."
    (result,) = score(LIMIT, answer).checks
    ((start, end),) = result.spans
    assert answer[start:end] == "$23,000" and "denied" in result.reason
    (missing,) = score(LIMIT, "The limit is $22,500.").checks
    assert "nearest" in missing.reason and "$22,500" in missing.reason


dollars = st.integers(100, 99_999_999).filter(lambda value: not 1900 <= value <= 2100)
forms = st.sampled_from(["${:,}", "{:,} dollars", "USD {:,}", "**${:,}**", "$ {:,}", "{:,}"])
around = st.sampled_from(
    ["It is {}.", "The limit comes to {} for the year", "- Limit: {}\n- Source: IRS", "You may put in up to {}, no more.", "{} is the limit."]
)


@given(dollars, forms, around)
def test_any_form_of_the_right_number_passes(value: int, form: str, sentence: str) -> None:
    assert passes(case({"number": value, "unit": "usd"}), sentence.format(form.format(value)))


@given(dollars, st.integers(0, 7), st.integers(1, 9), forms, around)
def test_a_changed_digit_fails(value: int, place: int, add: int, form: str, sentence: str) -> None:
    digits = list(str(value))
    place %= len(digits)
    digits[place] = str((int(digits[place]) + add) % 10)
    changed = int("".join(digits))
    assert not passes(case({"number": value, "unit": "usd"}), sentence.format(form.format(changed)))


words = st.sampled_from(["beneficiary", "trust", "deduction", "dividend", "penalty", "withdrawal", "deadline", "surrender", "premium", "audit"])
wordings = st.lists(words, min_size=2, max_size=4, unique=True)
between = st.sampled_from([" ", " the ", " of your ", "-", "  ", "\u00a0", " *"])


@given(wordings, st.lists(between, min_size=3, max_size=3), st.sampled_from([str.upper, str.title, str.lower]), st.booleans())
def test_a_paraphrase_of_an_accepted_wording_passes(wording: list[str], joints: list[str], style: Any, plural: bool) -> None:
    said = [style(word + ("s" if plural and not word.endswith("y") else "")) for word in wording]
    answer = "".join(word + joint for word, joint in zip(said, [*joints[: len(said) - 1], ""], strict=False))
    held = case({"fact": "f", "accepted": [" ".join(wording)]})
    assert passes(held, f"In short: {answer}.")
    assert not passes(held, f"There is no {answer}.")
    assert not passes(held, " ".join(wording[:-1]) + ".")


@given(st.text(max_size=200))
def test_any_answer_is_scored_and_spans_lie_inside_it(answer: str) -> None:
    held = case({"number": 5, "unit": "percent"}, {"fact": "f", "accepted": ["stay put", "age 73"]}, {"forbidden": "x", "wordings": ["sell all"]})
    for result in score(held, answer).checks:
        assert all(0 <= start <= end <= len(answer) for start, end in result.spans)


@given(st.text(alphabet=st.characters(categories=["L", "P", "Z"]), max_size=120))
def test_text_without_the_right_words_never_passes(answer: str) -> None:
    assert not passes(case({"number": 4711, "unit": "usd"}, {"fact": "f", "accepted": ["zeppelin hangar"]}), answer)
