"""How far the scorer agrees with a person: the confusion matrix over the labelled answers.

python -m tests.evaluation.agreement [tune|held|all] [--errors]
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import yaml

from runners.evaluation import cases
from runners.evaluation.cases import Case
from runners.evaluation.scoring import score

ROOT = Path(__file__).parents[2]
LABELLED = Path(__file__).with_name("labelled")
HALVES = ("tune", "held")


def labelled(*halves: str) -> Iterator[tuple[Case, str, str]]:
    """(case, what a person calls the answer, the answer)."""
    by_id = {case.id: case for case in cases.load(ROOT / "data" / "benchmark").cases}
    for half in halves:
        for name, answers in yaml.safe_load((LABELLED / f"{half}.yaml").read_text()).items():
            for entry in answers:
                for called, answer in entry.items():
                    yield by_id[name], called, answer


def matrix(*halves: str) -> dict[str, tuple[int, int]]:
    """(passed, all) by what a person calls the answer."""
    passed: Counter[str] = Counter()
    asked: Counter[str] = Counter()
    for case, called, answer in labelled(*halves):
        asked[called] += 1
        passed[called] += score(case, answer).passed
    return {called: (passed[called], count) for called, count in asked.items()}


def false_rates(found: dict[str, tuple[int, int]]) -> tuple[float, float]:
    """(false passes of all that must fail, false fails of all that must pass)."""
    right, all_right = found["right"]
    wrong = [pair for called, pair in found.items() if called != "right"]
    return sum(passed for passed, _ in wrong) / sum(count for _, count in wrong), 1 - right / all_right


def main() -> None:
    """Print the table, and with --errors each answer on which scorer and person differ."""
    halves = HALVES if "all" in sys.argv else tuple(half for half in (*HALVES, "more", "attacks") if half in sys.argv) or HALVES
    found = matrix(*halves)
    print("| a person says | answers | scorer passes | scorer fails |\n|---|---|---|---|")
    for called, (passed, count) in found.items():
        print(f"| {called} | {count} | {passed} | {count - passed} |")
    print("\nfalse passes {:.1%}, false fails {:.1%}".format(*false_rates(found)))
    if "--errors" in sys.argv:
        for case, called, answer in labelled(*halves):
            seen = score(case, answer)
            if seen.passed != (called == "right"):
                print(f"\n{case.id} [{called}] {answer}\n   {[(check.name, check.passed, check.reason) for check in seen.checks]}")


if __name__ == "__main__":
    main()
