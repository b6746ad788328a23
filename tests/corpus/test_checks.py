"""Findings on single pairs: what each check sees, and what it must leave alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runners.corpus import checks
from runners.corpus.checks import Checker, Limit
from runners.corpus.pairs import Pair
from runners.errors import UserError

LIMITS = checks.load_limits(Path(__file__).parents[2] / "data" / "dated_limits.yaml")


def findings(answer: str, question: str = "What is it?", **extra: object) -> tuple[str, ...]:
    return Checker(500, 20, 2_000, LIMITS)(Pair(question, answer, "tax", "s", extra=extra), tokens=len(answer) // 4)


@pytest.mark.parametrize(
    "answer",
    [
        "A bond is a loan to a government or a company.",
        "**Yes**, but only once a year: see section 72(t).",
        "Three things:\n\n- the rate,\n- the term and\n- the amount",
        "It costs 12.5% of $3,000, or $375",
        "The table:\n\n| a | b |\n|---|---|\n| 1 | 2 |",
        "See https://www.irs.gov/publications/p17",
        "Monthly payment = P × r / (1 − (1 + r)^−n) = $1,264.14",
        "Call the FDIC at 877-275-3342 or 1-800-829-1040 for that.",
        "The index stood at 4,505.12 and rose 1.5 in 2023.",
        "Use Form 1099-INT, Rule 10b-5 and the CUSIP 037833100 for that.",
        "Invest $1,000 today; it becomes $4,321.94 in 30 years.",
        "In short: options A, B or C",
        'He said: "The market can stay irrational."',
        "The rule was changed in [Notice 2024-80](https://www.irs.gov/pub/irs-drop/n-24-80.pdf) that year.",
        "Sections 401(a), 403(b) and 457(b) differ in who may offer them.",
        "The number 4111 1111 1111 1112 fails the check that card numbers pass.",
        "Find the check digits for country DE and account part 500105175407324931 by ISO 13616.",
        "Café, naïve, Zürich: €5 or £3 — that’s “fine” and 日本.",
    ],
)
def test_good_answers_have_no_findings(answer: str) -> None:
    assert findings(answer) == ()


@pytest.mark.parametrize(
    ("answer", "finding"),
    [
        ("The rate is set each year by the Treasury and depends on the", "truncated"),
        ("There are three kinds of accounts that one may open for this purpose:", "truncated"),
        ("This answer was cut off somewhere in the middle because the model ran out of toke", "truncated"),
        ("Example:\n\n```python\nprint(1)", "truncated"),
        ("The limit isn\u00e2\u20ac\u2122t known to anybody here.", "encoding"),
        ("The caf\u00c3\u00a9 is closed today, sadly for us.", "encoding"),
        ("A replacement \ufffd character stands here.", "encoding"),
        ("A bell \x07 rings in the middle of it.", "encoding"),
        ("Write to jane.doe@example.org for the details.", "personal_data"),
        ("Her number is 212-555-0143, ask for Jane.", "personal_data"),
        ("His number is (415) 555-2671 at work, he says.", "personal_data"),
        ("The SSN is 536-22-8841 in that file there.", "personal_data"),
        ("Charge 4111 1111 1111 1111 for the whole of it.", "personal_data"),
        ("As an AI language model, I cannot give advice on that.", "boilerplate"),
        ("It is a loan. I hope this helps!", "boilerplate"),
        ("The market fell.12 It then rose again by the end.", "citation"),
        ("The market fell [3] and then rose again.", "citation"),
        ("The market fell【4†source】 and then rose again.", "citation"),
        ("Yes, it is.", "short"),
        ("word " * 450 + "end.", "long"),
        ("word " * 4_500 + "end.", "too_long"),
    ],
)
def test_each_fault_is_found(answer: str, finding: str) -> None:
    assert finding in findings(answer)


def test_an_answer_that_only_repeats_the_question() -> None:
    asked = "What is the difference between a stock and a bond?"
    assert "repeats_question" in findings("The difference between a stock and a bond is what it is.", asked)
    assert "repeats_question" not in findings("A stock is a share of a company; a bond is a loan to it.", asked)
    assert "repeats_question" not in findings("The Medicare Part B deductible in 2025 is $257.", "What is the Medicare Part B deductible in 2025?")


@pytest.mark.parametrize(
    ("question", "answer", "extra", "found"),
    [
        ("What is the 401(k) limit?", "You may contribute up to $23,000 to it.", {}, "stale"),
        ("What is the 401(k) limit?", "You may contribute up to $24,500 to it.", {}, ""),
        ("What is the 401(k) limit?", "In 2024 you may contribute up to $23,000 to it.", {}, ""),
        ("What was the 401(k) limit in 2024?", "You could contribute up to $23,000 to it.", {}, ""),
        ("What is the 401(k) limit?", "You may contribute up to $23,000 to it.", {"as_of": 2024}, ""),
        ("What is the 401(k) limit?", "In 2025 you may contribute up to $23,000 to it.", {}, "wrong_limit"),
        ("What is the 401(k) limit?", "It was $23,000 in 2024 and is $23,500 in 2025 for most.", {}, ""),
        ("How much may I put into an IRA contribution?", "In 2026 the IRA contribution limit is $7,000 for most people.", {}, "wrong_limit"),
        ("What is the estate tax exemption?", "In 2025 the federal estate tax exemption is $13.61 million a person.", {}, "wrong_limit"),
        ("What is the estate tax exemption?", "In 2025 the federal estate tax exemption is $13.99 million a person.", {}, ""),
        ("How much is the annual gift exclusion?", "You can give $17,000 a year to each person without a return.", {}, "stale"),
        ("How much does a house cost?", "About $23,000 a year in taxes and upkeep.", {}, ""),
        ("What is the 401(k) catch-up?", "Savers of 50 and older may add $7,500 as a 401(k) catch-up in 2026.", {}, "wrong_limit"),
    ],
)
def test_limits_are_held_against_the_dated_table(question: str, answer: str, extra: dict[str, object], found: str) -> None:
    assert [name for name in findings(answer, question, **extra) if name in ("stale", "wrong_limit")] == ([found] if found else [])


def test_the_dated_table_is_consistent() -> None:
    assert len({limit.id for limit in LIMITS}) == len(LIMITS) >= 15
    for limit in LIMITS:
        assert limit.source.startswith("https://") and len(limit.values) >= 4, limit.id
        years = sorted(limit.values)
        assert years == list(range(years[0], years[-1] + 1)), limit.id
        assert all(0.7 < limit.values[year + 1] / limit.values[year] < 1.3 for year in years[:-1]), limit.id


def test_a_bad_table_is_explained(tmp_path: Path) -> None:
    (tmp_path / "limits.yaml").write_text("version: 1\nchecked: x\nlimits: [{id: a, names: [], values: {2024: 1}, source: s}]")
    with pytest.raises(UserError, match="names"):
        checks.load_limits(tmp_path / "limits.yaml")
    assert checks.load_limits(tmp_path / "absent.yaml") == ()


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=200), st.text(min_size=1, max_size=300))
def test_no_text_stops_the_checks(question: str, answer: str) -> None:
    assert set(findings(answer, question)) <= set(checks.FINDINGS)


@given(st.integers(10**13, 10**14 - 1))
@settings(deadline=None)
def test_card_numbers_are_told_by_their_check_digit(stem: int) -> None:
    digits = [4, *(int(digit) for digit in str(stem))]
    total = sum(d * 2 - 9 * (d > 4) if place % 2 == 0 else d for place, d in enumerate(reversed(digits)))
    card = "".join(map(str, digits)) + str(-total % 10)
    assert checks.has_personal_data(f"Charge {card} now") == (len(set(card)) >= 2)
    wrong = card[:-1] + str((int(card[-1]) + 1) % 10)
    assert not checks.has_personal_data(f"Charge {wrong} now")


def test_a_limit_needs_its_source() -> None:
    with pytest.raises(ValueError, match="source"):
        Limit(id="a", names=("x",), values={2024: 1.0}, source="")
