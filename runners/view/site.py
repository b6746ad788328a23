"""Page names to pages: the same for the local server and for a static folder."""

from __future__ import annotations

import itertools
from pathlib import Path

from runners.errors import UserError
from runners.pages import page
from runners.spec import BucketSpec
from runners.view import now, screens
from runners.view.runs import Bucket, load, pairs

#: In a static folder, pairs of so many of the newest runs have a page.
PAIRED = 12


def render(buckets: BucketSpec, where: str, home: Path | None, name: str) -> str | None:
    """The page of a name, read from the bucket now; None where there is no such page."""
    return draw(load(buckets, where, home), buckets, name)


def draw(bucket: Bucket, buckets: BucketSpec, name: str) -> str | None:
    """A page of what was read. ``name`` is compared with ids that the bucket has; it never becomes part of a path."""
    kind, *ids = name.removesuffix(".html").split("--")
    if not ids:
        made = {"index": screens.index, "live": now.live, "jobs": now.jobs}.get(kind)
        return made(bucket) if made else None
    if kind == "data" and len(ids) == 1 and ids[0] in {run.dataset for run in bucket.runs}:
        return screens.dataset(bucket, ids[0], pairs(buckets, ids[0]))
    if kind == "sweep":
        found = bucket.sweep("--".join(ids))
        return screens.sweep(bucket, found) if found else None
    runs = [run for run_id in ids if (run := bucket.run(run_id))]
    if len(runs) != len(ids) or len(runs) > screens.MOST_COMPARED:
        return None
    if kind == "compare":
        return screens.compare(bucket, runs)
    one = {"run": screens.one, "cases": screens.cases}.get(kind)
    return one(bucket, runs[0]) if one and len(runs) == 1 else None


def names(bucket: Bucket) -> list[str]:
    """Every page of a static folder."""
    found = ["index", *(["live"] if bucket.under_way else []), *(["jobs"] if bucket.jobs else [])]
    found += [f"run--{run.id}" for run in bucket.runs] + [f"cases--{run.id}" for run in bucket.runs if run.results]
    found += [f"data--{dataset}" for dataset in dict.fromkeys(run.dataset for run in bucket.runs) if dataset]
    found += [f"sweep--{sweep.name}" for sweep in bucket.sweeps]
    found += [f"compare--{'--'.join(sorted((a.id, b.id)))}" for a, b in itertools.combinations(bucket.runs[:PAIRED], 2)]
    return [f"{name}.html" for name in found]


def export(buckets: BucketSpec, where: str, home: Path | None, out: Path) -> list[str]:
    """Write every page into ``out``; returns the names. A dataset that is gone leaves its page out, and is said on the first page's problems."""
    bucket = load(buckets, where, home)
    written = []
    for name in names(bucket):
        try:
            document = draw(bucket, buckets, name)
        except UserError:
            continue
        if document:
            page.write(out / name, document)
            written.append(name)
    return written
