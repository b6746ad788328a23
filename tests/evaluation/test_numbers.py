"""Quantities in running text."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runners.evaluation.numbers import quantities, words_to_number

READ = [
    ("$23,000", [(23000, "usd")]),
    ("23k", [(23000, "none")]),
    ("twenty-three thousand dollars", [(23000, "usd")]),
    ("a hundred and five dollars", [(105, "usd")]),
    ("USD 23 000", [(23000, "usd")]),
    ("$1.2 million, $2.5M and 3 bn", [(1.2e6, "usd"), (2.5e6, "usd"), (3e9, "none")]),
    ("10 %, ten percent, 10 per cent, 10 percentage points", [(10, "percent")] * 4),
    ("50 basis points, 25 bps", [(0.5, "percent"), (0.25, "percent")]),
    ("59½ and 59 1/2", [(59.5, "none"), (59.5, "none")]),
    ("30-year, 18 months, 73 years old", [(30, "years"), (1.5, "years"), (73, "years")]),
    ("60 days, two weeks, 48 hours", [(60, "days"), (14, "days"), (2, "days")]),
    ("2:1, 1.5x, 25 times, twofold", [(2, "ratio"), (1.5, "ratio"), (25, "ratio")]),
    ("-5%, −5 %, -$5,000", [(-5, "percent"), (-5, "percent"), (-5000, "usd")]),
    ("**$1,234.56**.", [(1234.56, "usd")]),
    ("$5 - $3 = $2", [(5, "usd"), (3, "usd"), (2, "usd")]),
    ("$1040, 1,040 and 1099 dollars", [(1040, "usd"), (1040, "none"), (1099, "usd")]),
    ("one of them after one year", [(1, "years")]),
]
NAMES = [
    "401(k) and 401k",
    "the S&P 500",
    "Form 1040 and 1099-DIV",
    "a 529 plan",
    "Rule 10b-5",
    "section 1031",
    "1. First\n2. Second",
    "the 3rd of them",
    "a 1031 exchange",
]
RANGES = [
    ("15-20% of pay", 15, 20, "percent"),
    ("between 5 and 15 %", 5, 15, "percent"),
    ("3 to 6 months", 0.25, 0.5, "years"),
    ("$15 to 20 million", 15e6, 20e6, "usd"),
    ("$10k–$12k", 10e3, 12e3, "usd"),
    ("10 to 50 bps", 0.1, 0.5, "percent"),
]


@pytest.mark.parametrize(("text", "expected"), READ)
def test_reads(text: str, expected: list[tuple[float, str]]) -> None:
    assert [(pytest.approx(q.value), q.unit) for q in quantities(text)] == expected


@pytest.mark.parametrize("text", NAMES)
def test_names_and_list_numbers_are_no_quantities(text: str) -> None:
    assert quantities(text) == []


@pytest.mark.parametrize(("text", "low", "high", "unit"), RANGES)
def test_the_ends_of_a_range_know_each_other(text: str, low: float, high: float, unit: str) -> None:
    first, second = quantities(text)
    assert (first.value, first.partner) == (pytest.approx(low), pytest.approx(high))
    assert (second.value, second.partner) == (pytest.approx(high), pytest.approx(low))
    assert first.unit == second.unit == unit


@pytest.mark.parametrize("text", ["rose from 12% to 22%", "between 2024 and 2025", "in 2024-2025", "a 2 to 1 split"])
def test_a_change_a_span_of_years_and_odds_are_no_range(text: str) -> None:
    assert all(quantity.partner is None for quantity in quantities(text))


# A bare 1040 or 1099 is a tax form; with a dollar sign or a comma it is a number.
@given(st.integers(0, 999_999_999).filter(lambda value: value not in (1040, 1099)))
def test_digits_groups_and_words_are_the_same_number(value: int) -> None:
    for written in (f"{value}", f"{value:,}", f"{value:,}".replace(",", " "), f"${value:,}"):
        found = quantities(f"It comes to {written} in all.")
        assert [quantity.value for quantity in found] == [value], written
    assert words_to_number(in_words(value)) == value


@given(st.decimals(0, 10**7, places=2, allow_nan=False), st.sampled_from(["%", " %", " percent", " per cent"]))
def test_units_behind_the_number(value: float, unit: str) -> None:
    (found,) = quantities(f"a rate of {value:,}{unit} a year")
    assert found.value == pytest.approx(float(value)) and found.unit == "percent"


@given(st.text(max_size=300))
def test_any_text_is_read_within_its_bounds(text: str) -> None:
    last = 0
    for quantity in quantities(text):
        assert last <= quantity.start < quantity.end <= len(text)
        last = quantity.end


def in_words(value: int) -> str:
    ones = re.split(" ", "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen")
    tens = re.split(" ", "- - twenty thirty forty fifty sixty seventy eighty ninety")

    def below_1000(n: int) -> list[str]:
        words = [ones[n // 100], "hundred"] if n >= 100 else []
        n %= 100
        if n >= 20:
            return [*words, tens[n // 10] + (f"-{ones[n % 10]}" if n % 10 else "")]
        return [*words, ones[n]] if n else words

    parts = []
    for size, name in ((10**6, "million"), (10**3, "thousand"), (1, "")):
        group, value = divmod(value, size)
        if group:
            parts += [*below_1000(group), name]
    return " ".join(filter(None, parts)) or "zero"
