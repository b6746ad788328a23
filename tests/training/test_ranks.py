"""How micro-batches are shared out between processes."""

from __future__ import annotations

import pytest

from runners.training.ranks import ALONE, Ranks


@pytest.mark.parametrize("items", range(1, 12))
@pytest.mark.parametrize("count", [1, 2, 3, 4, 8])
def test_each_is_done_once_and_where_all_must_do_equally_many_the_rest_weighs_nothing(items: int, count: int) -> None:
    team, todo = [Ranks(rank, count) for rank in range(count)], list(range(items))
    shares = [one.share(todo) for one in team]
    assert sorted(item for share in shares for item, weight in share if weight == 1) == todo
    equal = [one.share(todo, equally=True) for one in team]
    assert len({len(share) for share in equal}) == 1
    assert [[pair for pair in share if pair[1]] for share in equal] == shares
    assert all(weight in (0, 1) for share in equal for _, weight in share)


def test_one_process_does_all() -> None:
    assert ALONE.share("abc", equally=True) == [("a", 1), ("b", 1), ("c", 1)]
