"""The last word: every figure that the planner gives is within 15 % of what was measured."""

from __future__ import annotations

from tests.gpu.figures import Table


def test_a_figure_that_is_off_is_named() -> None:
    made = Table("a card")
    made.add("memory", 114.9, "GB", 100)
    made.add("speed", 84, "tokens/s", 100)
    made.add("for information", 1, "s", 100, held=False)
    made.add("not planned", 7, "s")
    assert [figure.name for figure in made.wrong] == ["speed"]
    assert "| speed | 84 tokens/s | 100 tokens/s | -16% **wrong** |" in made.markdown()


def test_every_figure_is_near_the_plan(table: Table) -> None:
    assert not table.wrong, "\n".join(f"{one.name}: {one.measured:.4g} {one.unit}, planned {one.planned:.4g}" for one in table.wrong)
