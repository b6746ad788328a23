"""The files of a sweep: one page with the table, best first, and the held-out losses; the same rows as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from runners import outside
from runners.artifacts.record import now
from runners.local import grid
from runners.local.grid import Outcome
from runners.pages import charts, page
from runners.pages.charts import Series
from runners.pages.page import Html, Status, Tile
from runners.spec import Spec

PAGE, ROWS = "report.html", "sweep.csv"
#: Lines of a chart that can be told apart without colour.
_SHOWN = 6


def write(spec: Spec, name: str, outcomes: Sequence[Outcome], folder: Path) -> None:
    """Write ``report.html`` and ``sweep.csv``."""
    outside.write_durably(folder / ROWS, as_csv(outcomes))
    page.write(folder / PAGE, document(spec, name, outcomes))


def as_csv(outcomes: Sequence[Outcome]) -> str:
    """A row a training, best first; nothing where nothing was measured."""
    rows = [one.as_row() for one in grid.ranked(outcomes)]
    made = io.StringIO()
    writer = csv.DictWriter(made, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: outside.cell(value) for key, value in row.items()} for row in rows)
    return made.getvalue()


def document(spec: Spec, name: str, outcomes: Sequence[Outcome]) -> str:
    """The page."""
    sections = [_result(outcomes), _table(outcomes), _losses(outcomes), _same(spec, outcomes)]
    return page.page(f"elson sweep {name}", [one for one in sections if one], f"{now()[:16].replace('T', ' ')} UTC, profile {spec.profile}")


def _result(outcomes: Sequence[Outcome]) -> Html:
    done, failed = [one for one in outcomes if one.status == "done"], sum(one.status == "failed" for one in outcomes)
    left = len(outcomes) - len(done) - failed
    status: Status = "info" if left else "bad" if not done else "warn" if failed else "good"
    first, *rest = grid.remarks(outcomes)
    spent = sum(one.seconds or 0 for one in done)
    tiles = [
        Tile("Trainings done", f"{len(done)} of {len(outcomes)}", f"{failed} failed, {left} to run"),
        Tile("Time", page.duration(spent) if done else None, "of the trainings that are done"),
    ]
    return page.section("Result", page.banner(status, first, " ".join(f"{line[0].upper()}{line[1:]}." for line in rest)), page.stat_tiles(tiles))


def _table(outcomes: Sequence[Outcome]) -> Html:
    headers, rows = grid.table(outcomes)
    signs: dict[str, Status] = {"done": "good", "failed": "bad", "to run": "none"}
    cells = [
        (*row[:-1], page.badge(one.status, signs[one.status]), one.name or one.reason or None) for row, one in zip(rows, grid.ranked(outcomes), strict=True)
    ]
    return page.section(
        "Trainings", page.table((*headers[:-1], "status", "adapter, or why there is none"), cells, cards=True), intro="Lowest held-out loss first."
    )


def _losses(outcomes: Sequence[Outcome]) -> Html | None:
    done = [one for one in grid.ranked(outcomes) if one.status == "done"][:_SHOWN]
    if not done:
        return None
    lines = [Series(str(one.trial), one.validation, marks=True) for one in done]
    title = "Held-out loss" if len(done) < _SHOWN else f"Held-out loss of the best {_SHOWN}"
    return page.section("Held-out loss", charts.line_chart(lines, title=title, x_label="optimizer step", y_label="nats per token"))


def _same(spec: Spec, outcomes: Sequence[Outcome]) -> Html:
    """What every training shares."""
    varied = set(outcomes[0].trial.settings)
    shared = {f"train.{name}": value for name, value in spec.train.model_dump(mode="json").items() if name not in varied and not isinstance(value, list)}
    facts = {"base model": f"{spec.base_model.name} ({spec.base_model.id})", "dataset": f"{spec.dataset.name} ({spec.dataset.id})"}
    return page.section("What all of them share", page.facts(facts), page.details("Settings of train", page.facts(shared)))
