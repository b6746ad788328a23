"""Computed problems: many, distinct, in bounds, and repeatable."""

import itertools
import re
from collections import Counter
from pathlib import Path

import pytest
import yaml

from runners.corpus import problems
from runners.corpus.problem_text import fill
from runners.errors import UserError

FOLDER = Path(__file__).parents[2] / "data" / "problems"
ROWS = problems.generate(FOLDER)
CATEGORIES = Counter(row["category"] for row in ROWS)


def test_enough_of_them_over_enough_domains():
    assert len(CATEGORIES) == 18 and min(CATEGORIES.values()) >= 2


def words(text):
    return frozenset(re.findall(r"[a-z0-9']+", text.lower()))


def test_ids_questions_and_answers_are_unique():
    for key in ("id", "question", "answer"):
        repeated = [value for value, count in Counter(row[key] for row in ROWS).items() if count > 1]
        assert not repeated, (key, repeated)


def test_no_question_is_a_template_of_another():
    sets = [words(row["question"]) for row in ROWS]
    close = [(a["id"], b["id"]) for (a, x), (b, y) in itertools.combinations(zip(ROWS, sets, strict=True), 2) if len(x & y) >= 0.8 * len(x | y)]
    assert not close


def test_no_question_and_answer_is_a_near_duplicate_by_shingles():
    def shingles(row):
        tokens = re.findall(r"[a-z0-9']+", f"{row['question']} {row['answer']}".lower())
        return frozenset(zip(tokens, tokens[1:], tokens[2:], strict=False))

    for _, group in itertools.groupby(ROWS, key=lambda row: row["kind"]):
        sets = [(row["id"], shingles(row)) for row in group]
        assert not [(a, b) for (a, x), (b, y) in itertools.combinations(sets, 2) if len(x & y) >= 0.8 * len(x | y)]


@pytest.mark.parametrize("row", [row for seed in range(4) for row in problems.generate(FOLDER, seed)], ids=lambda row: row["id"])
def test_row_is_whole(row):
    assert row["question"].strip() == row["question"] and len(row["question"]) >= 40
    assert 200 <= len(row["answer"]) <= 900, len(row["answer"])
    assert "**" in row["answer"], "the final figure is not marked"
    assert row["answer"].rstrip()[-1] in ".!?)%*"
    assert not re.search(r"[{}]|\bnan\b|\binf\b|None|\$-", row["question"] + row["answer"]), "a place was not filled, or a figure is odd"
    assert row["source"] == "problems" and row["reference"] and 2020 <= row["as_of"] <= 2026


NUMBER = r"[-−]?\$?-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?%?"
EQUATION = re.compile(
    rf"(?<![\w.,^/×$])(?P<left>[(\[]*{NUMBER}[)\]]*(?:\s?[-+−×÷/^]\s?[(\[]*{NUMBER}[)\]]*)+) = (?P<right>{NUMBER})(?![\d,.]*\d|\s?[-+−×÷/^]\s?[\d$(])"
)


def evaluated(text):
    """A written expression as a number; percent signs divide by a hundred."""
    plain = text.replace("$", "").replace(",", "").replace("−", "-").replace("×", "*").replace("÷", "/").replace("^", "**").replace("[", "(").replace("]", ")")
    return eval(re.sub(r"([\d.]+)%", r"(\1/100)", plain), {"__builtins__": {}})


def equations(text):
    """(left, right) of each written equation between plain numbers."""
    return [(m["left"], m["right"]) for m in EQUATION.finditer(text.replace("**", "")) if m["left"].count("(") == m["left"].count(")")]


@pytest.mark.parametrize("seed", [0, 1, 2, 3, 7, 2026])
def test_the_arithmetic_as_written_holds(seed):
    """Read from the text alone: the left side of each equals sign gives the right side, apart from the rounding shown."""
    checked, wrong = 0, []
    for row in problems.generate(FOLDER, seed):
        for left, right in equations(row["answer"]):
            digits = re.search(r"\.(\d+)", right)
            unit = 10.0 ** -(len(digits[1]) if digits else 0) * (0.01 if right.endswith("%") else 1)
            terms = [abs(evaluated(number)) for number in re.findall(NUMBER, left)]
            value, stated = evaluated(left), evaluated(right)
            checked += 1
            # Inputs are shown rounded, too; a difference of large terms inherits their rounding.
            slack = unit * 1.01 + 0.006 * abs(value) + (0.0002 * max(terms) if re.search(r"\d\)? [-−+] ", left) else 0)
            if abs(value - stated) > slack:
                wrong.append((row["id"], left, right, value))
    assert not wrong
    assert checked > 600


def test_repeatable_and_another_seed_moves_the_numbers():
    assert problems.generate(FOLDER) == ROWS
    other = problems.generate(FOLDER, 7)
    assert other == problems.generate(FOLDER, 7)
    again = {row["id"]: row["answer"] for seed in (4, 8, 12) for row in problems.generate(FOLDER, seed)}
    moved = [again[row["id"]] != row["answer"] for row in ROWS if row["id"] in again]
    assert len(moved) > 300 and sum(moved) > 0.7 * len(moved)
    assert all("{" not in row["question"] + row["answer"] for row in other)


def test_a_dataset_has_few_of_a_kind_and_another_seed_has_the_others():
    counts = Counter(row["kind"] for row in ROWS)
    assert set(counts.values()) == {problems.ASKS_PER_KIND} == {2}
    assert 350 <= len(ROWS) <= 400 and len(counts) >= 190
    asked = {row["id"] for seed in range(4) for row in problems.generate(FOLDER, seed)}
    written = [
        f"{kind['kind']}-{n}"
        for file in FOLDER.glob("*.yaml")
        for kind in yaml.load(file.read_text(), Loader=yaml.CSafeLoader)
        for n, _ in enumerate(kind["asks"], 1)
    ]
    assert asked == set(written) and len(written) > 600


def test_every_formula_is_used():
    used = {kind["computation"] for file in FOLDER.glob("*.yaml") for kind in yaml.load(file.read_text(), Loader=yaml.CSafeLoader)}
    assert used == set(problems.FORMULAS)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("{a}", "1234.5"),
        ("{a:usd} {a:whole} {a:num} {b:pct} {b:pct1}", "$1,234.50 $1,234 1,234.5 6.875% 6.9%"),
        ("{b:.2f}, {one:count month}, {a:count month}", "0.07, 1 month, 1,234 months"),
        ("{yes:?up {a:whole}|down} and {no:?up|down by {yes:?{b:pct}|x}}", "up $1,234 and down by 6.875%"),
        ("none{no:? of {missing}|}", "none"),
    ],
)
def test_places_are_filled(text, shown):
    assert fill(text, {"a": 1234.5, "b": 0.06875, "one": 1, "yes": True, "no": 0}) == shown


GOOD = {
    "kind": "k",
    "category": "tax",
    "reference": "r",
    "as_of": 2025,
    "computation": "rule_of_72",
    "fields": {"rate": "%", "amount": "$", "years": "n"},
    "steps": ["{rule_years:num}"],
    "asks": [{"question": "{rate}?", "remark": "", "values": {"rate": 0.06, "amount": 10, "years": 3}}],
}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"computation": "__import__"}, "kind 2: .*'__import__' is no function"),
        ({"fields": {"rate": "%"}}, "question 1 has values for rate, amount, years; expected rate"),
        ({"asks": []}, "asks: Tuple should have at least 1 item"),
        ({"nonsense": 1}, "nonsense: Extra inputs"),
        ({"steps": ["{rate.__class__}"]}, "k: a text names 'rate.__class__'"),
        ({"asks": [{"question": "{rate}?", "remark": "", "values": {"rate": 0, "amount": 10, "years": 3}}]}, "k: float division by zero"),
        ({"asks": [{"question": "{rate}?", "remark": "", "values": {"rate": "x", "amount": 10, "years": 3}}]}, "k: .*expected: values"),
    ],
)
def test_a_bad_file_is_one_clear_error(tmp_path, changed, message):
    file = tmp_path / "a.yaml"
    file.write_text(yaml.safe_dump([GOOD], sort_keys=False))
    assert problems.rows(file)[0]["answer"] == "12"
    file.write_text(yaml.safe_dump([GOOD, GOOD | changed], sort_keys=False))
    with pytest.raises(UserError, match="(?s)" + message):
        problems.rows(file)
    for broken, said in (("a: [", "is not YAML: while parsing a flow node"), ("3", "is not a YAML list"), ("a: b", "is not a YAML list")):
        file.write_text(broken)
        with pytest.raises(UserError, match=said):
            problems.rows(file)
