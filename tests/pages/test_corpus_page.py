"""The page of this project's own corpus, on paper."""

from __future__ import annotations

from pathlib import Path

from runners.corpus import build
from runners.local.run import load_profile
from tests.browser import Browser

ROOT = Path(__file__).resolve().parents[2]


def test_two_thousand_pairs_print_on_a_few_pages(browser: Browser, tmp_path: Path) -> None:
    result = build.build(load_profile("local"), ROOT, tmp_path / "dataset")
    assert result.statistics["kept"]["pairs"] > 1_900
    assert browser.open(tmp_path / "dataset" / build.REPORT).printed_pages() <= 15
