"""Findings on single pairs: what each check sees, and what it must leave alone."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runners.corpus import checks, dated_limits
from runners.corpus.checks import Checker, Limit
from runners.corpus.pairs import Pair
from runners.corpus.words import words
from runners.errors import UserError

PAGE = "https://example.org/limits"
LIMITS = dated_limits.load(Path(__file__).parents[2] / "data" / "dated_limits.yaml")


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
        pages = [limit.source] if isinstance(limit.source, str) else limit.source.values()
        assert all(page.startswith("https://") for page in pages) and len(limit.values) >= 4, limit.id
        years = sorted(limit.values)
        assert years == list(range(years[0], years[-1] + 1)), limit.id
        assert all(0.7 < limit.values[year + 1] / limit.values[year] < 1.3 for year in years[:-1]), limit.id


def test_a_bad_table_is_explained(tmp_path: Path) -> None:
    (tmp_path / "limits.yaml").write_text("version: 1\nchecked: x\nlimits: [{id: a, names: [], values: {2024: 1}, source: s}]")
    with pytest.raises(UserError, match="names"):
        dated_limits.load(tmp_path / "limits.yaml")
    assert dated_limits.load(tmp_path / "absent.yaml") == ()


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


@pytest.mark.parametrize("source", ["", {}, {2024: ""}, {2024: PAGE}, {2025: PAGE}, {2024: PAGE, 2025: PAGE, 2026: PAGE}])
def test_a_limit_needs_the_source_of_each_of_its_years(source: object) -> None:
    with pytest.raises(ValueError, match="source"):
        Limit.model_validate({"id": "a", "names": ["x"], "values": {2024: 1.0, 2025: 2.0}, "source": source})


def test_a_document_of_one_year_is_the_source_of_that_year() -> None:
    """What the IRS publishes each autumn (and each May, for health savings accounts) has the next year's figures and no others: n-25-67 is 2026's."""
    documents = [(limit.id, year, page) for limit in LIMITS if isinstance(limit.source, dict) for year, page in limit.source.items() if "irs-drop" in page]
    assert len(documents) >= 50
    for name, year, page in documents:
        assert re.search(r"/(?:n|rp)-(\d\d)-\d+\.pdf$", page)[1] == f"{year - 2001:02}", (name, year, page)  # type: ignore[index]
    assert not [limit.id for limit in LIMITS if isinstance(limit.source, str) and "irs-drop" in limit.source]


@pytest.mark.parametrize("mark", ["<|im_end|>", "<|endoftext|>", "</s>", "[/INST]", "<<SYS>>", "<end_of_turn>", "</think>", "<|eot_id|>"])
def test_the_templates_own_marks_are_found_wherever_they_stand(mark: str) -> None:
    answer = f"A bond is a loan to a company.{mark} It pays interest every half year."
    assert "control_tokens" in findings(answer)
    assert "control_tokens" in findings("A bond is a loan to a company or a state.", f"What {mark} is it?")
    checker = Checker(500, 20, 2_000, LIMITS)
    history = (("user", "Hi."), ("assistant", f"Hello {mark}"))
    assert "control_tokens" in checker(Pair("What?", "A bond is a loan to a company or a state.", "tax", "s", history), 9)
    assert "control_tokens" not in findings("If x < 5 or y > 3, a [ratio] of <3 % is |low|, <b>not</b> high.")


def naive(pair: Pair, limits: tuple[Limit, ...]) -> dict[str, bool]:
    """The definition, limit by limit and sentence by sentence, as slow as it is plain."""
    stale = wrong = False
    for limit in limits:
        for sentence in re.split(r"(?<=[.!?;])\s+|\n", pair.answer):
            amounts = {amount for _, amount in dated_limits._amounts(sentence) if amount in limit.values.values()}
            said, context = set(words(sentence)), set(words(f"{pair.asked} {sentence}"))
            if not amounts or any(set(words(name)) <= said for name in limit.not_names) or not any(set(words(name)) <= context for name in limit.names):
                continue
            years = {int(year) for year in re.findall(r"\b20\d\d\b", sentence)}
            years_of = {amount: {year for year, other in limit.values.items() if other == amount} for amount in amounts}
            if years and len(amounts) == len(years) == 1:
                wrong |= min(years) in limit.values and min(years) not in years_of[min(amounts)]
            elif not years and limit.values[max(limit.values)] not in amounts:
                around = {int(year) for year in re.findall(r"\b20\d\d\b", f"{pair.asked}\n{pair.answer}")} | {pair.extra.get("as_of")}
                stale |= not any(years_of[amount] & around for amount in amounts)
    return {"stale": stale, "wrong_limit": wrong}


FIGURES = sorted({f"${value:,.0f}" for limit in LIMITS for value in limit.values.values()})
PIECES = st.sampled_from(
    [*FIGURES, *(name for limit in LIMITS for name in (*limit.names, *limit.not_names)), "2024", "2025", "2026", ".", "; ", "$5", "$\n", "\nmillion", "costs"]
)


@settings(max_examples=500, deadline=None)
@given(st.lists(PIECES, max_size=6).map(" ".join), st.lists(PIECES, min_size=1, max_size=14).map(" ".join), st.sampled_from([None, 2024, 2025]))
def test_parsing_once_finds_what_looking_limit_by_limit_finds(question: str, answer: str, year: int | None) -> None:
    pair = Pair(question, answer, "tax", "s", extra={"as_of": year} if year else {})
    found = dated_limits.LimitIndex(LIMITS).findings(pair) or {"stale": False, "wrong_limit": False}
    assert found == naive(pair, LIMITS)


def test_text_full_of_figures_costs_little_more_than_text_without() -> None:
    """In processor time, best of five: sentences are parsed once, not once a limit (22 limits took six times as long)."""
    figures = Pair("How was the year?", " ".join(f"Revenue in {year} was ${year * 7:,} and cost ${year * 3:,}." for year in range(2001, 2025)), "tax", "s")
    plain = Pair("How was the year?", " ".join(f"Revenue in {year} was {year * 7:,} and cost {year * 3:,}." for year in range(2001, 2025)), "tax", "s")
    checker = Checker(5_000, 20, 20_000, LIMITS)

    def seconds(pair: Pair) -> float:
        times = []
        for _ in range(5):
            begin = time.process_time()
            for _ in range(100):
                checker(pair, 9)
            times.append(time.process_time() - begin)
        return min(times)

    assert seconds(figures) < 2.5 * seconds(plain)
