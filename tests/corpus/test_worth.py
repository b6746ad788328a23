"""What a source is worth (tests/benchmarks/corpus_worth.py): the draw that leaves one out, and the figures of its tables."""

from __future__ import annotations

from typing import Any

import pytest

from tests.benchmarks import corpus_worth as worth

POOL = ["questions"] * 60 + ["guides"] * 20 + ["problems"] * 15 + ["catalogue"] * 5


def run(without: str | None, seed: int, loss: float, margin: float) -> dict[str, Any]:
    held_out = [{"source": source, "category": "tax", "loss": loss * 10 if source == "guides" else 20.0, "tokens": 10} for source in worth.SOURCES]
    margins = {"a": margin, "b": 0.5, "c": -0.5 if without else 0.25}
    return {"without": without, "seed": seed, "held_out": held_out, "margins": margins, "drawn": {"guides": 3}}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("without", ["questions", "guides", "problems", "catalogue"])
def test_a_source_that_is_left_out_is_replaced_place_by_place_and_nothing_else_moves(seed: int, without: str) -> None:
    all_of_them, left = worth.draw(POOL, 20, seed, None), worth.draw(POOL, 20, seed, without)
    assert len(left) == len(set(left)) == 20 and without not in {POOL[index] for index in left}
    for before, after in zip(all_of_them, left, strict=True):
        assert (before == after) == (POOL[before] != without)
    # What replaces them was in none of the places.
    assert not {after for before, after in zip(all_of_them, left, strict=True) if before != after} & set(all_of_them)
    assert all_of_them == worth.draw(POOL, 20, seed, None) != worth.draw(POOL, 20, seed + 1, None)


def test_a_draw_that_the_others_cannot_fill_is_refused() -> None:
    with pytest.raises(ValueError, match="fewer than 50 pairs without questions"):
        worth.draw(POOL, 50, 0, "questions")


def test_what_is_held_out_comes_from_the_validation_split_first_and_is_in_no_training() -> None:
    kept, taken = worth.hold_out(["guides"] * 9 + ["catalogue"], POOL, 4)
    assert kept == [0, 1, 2, 3, 9]
    counts = {source: sum(POOL[index] == source for index in taken) for source in worth.SOURCES}
    assert counts == {"questions": 4, "turns and tables": 0, "guides": 0, "problems": 4, "catalogue": 3} and taken == sorted(set(taken))


def test_turns_and_tables_are_questions_with_something_before_or_beside_them() -> None:
    row = {"source": "questions", "question": "What is a bond?\n"}
    assert worth.source_of(row) == "questions"
    assert worth.source_of(row | {"history": [{"role": "user", "content": "Hi"}]}) == worth.source_of(row | {"question": "A | B\n1 | 2"}) == "turns and tables"
    assert worth.source_of({"source": "guides", "question": "A\nB"}) == "guides"


def test_losses_are_per_answer_token_and_differences_seed_by_seed() -> None:
    one = run(None, 0, 2.5, 0.1)
    assert worth.losses(one, "guides", "source") == 2.5 and worth.losses(one, None, "source") == 2.1
    whole, left = {0: one, 1: run(None, 1, 3.0, 0.1)}, {0: run("guides", 0, 3.0, 0.0), 1: run("guides", 1, 3.25, 0.0), 2: run("guides", 2, 9.0, 0.0)}
    assert worth.cell(whole, left, "guides") == "+0.375 (+0.250 to +0.500)"
    assert worth.cell(whole, left, "problems") == "+0.000 (+0.000 to +0.000)"


def test_the_mean_of_cases_has_students_interval() -> None:
    mean, low, high = worth.interval([1.0, 2.0, 3.0])
    assert mean == 2.0 and (low, high) == (pytest.approx(2 - 4.303 / 3**0.5, abs=2e-3), pytest.approx(2 + 4.303 / 3**0.5, abs=2e-3))


def test_the_tables_have_every_source_that_was_left_out() -> None:
    runs = [run("base", 0, 4.0, -0.1), *(run(without, seed, 2.0 + bool(without), 0.1) for without in (None, "guides", "catalogue") for seed in (0, 1))]
    text = worth.table(runs)
    assert "Held-out loss 2.400 before, 2.000 after with all sources; 1 of 3 cases before, 3 to 3 after." in text
    assert "| guides | 3; 3 | +0.200 (+0.200 to +0.200) | " in text and "\n| catalogue | 0; 0 |" in text and "| questions |" not in text.split("\n", 3)[3]
    # Case c is right with the source and wrong without, in both seeds; its margin moves by 0.75, that of the others by nothing.
    assert "| guides | 2 / 0 of 6, p = 0.50 | +0.2500 (-0.8257 to +1.3257) |" in text
    assert "| tax (5) | +0.200" in text
