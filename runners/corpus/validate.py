"""How often the categorizer agrees with people: cross-validation on labelled rows, against what needs no thought."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from runners.corpus.categorize import Categorizer, Taxonomy, host_of, is_of, label_of, labels_by_host


def accuracy(rows: Sequence[Mapping[str, str]], taxonomy: Taxonomy) -> dict[str, Any]:
    """Share of labelled rows whose domain is found, each without its own label (leave one out).

    ``unseen_hosts`` is the hardest question: neither the labels nor the taxonomy's rules for the row's host may be used, so words must do. The taxonomy was
    written by somebody who had seen these rows, so the first figure is kind to it; this one is less so.
    """
    labelled = [row for row in rows if label_of(row)]
    truth = [label_of(row) for row in labelled]
    rules = Categorizer.of(taxonomy)
    full, hosts_only, unseen, wrong = 0, 0, 0, []
    for index, (row, domain) in enumerate(zip(labelled, truth, strict=True)):
        verdict = replace(rules, labels=labels_by_host(labelled[:index] + labelled[index + 1 :])).row(_features(row))
        full += verdict.domain == domain
        if verdict.domain != domain:
            wrong.append({"title": row.get("title", ""), "label": domain, "found": verdict.domain, "reason": verdict.reason})
        host, path = host_of(row.get("url", ""))
        rule = rules.host_rule(host, path)
        hosts_only += bool(rule and rule[1] == domain)
        elsewhere = [one for one in rules.hosts if not is_of(host, one[0].partition("/")[0])]
        unseen += replace(rules, hosts=elsewhere).row(_features(row)).domain == domain
    count = max(1, len(labelled))
    return {
        "rows": len(labelled),
        "accuracy": full / count,
        "majority_class": max(Counter(truth).values(), default=0) / count,
        "host_rules_alone": hosts_only / count,
        "unseen_hosts": unseen / count,
        "wrong": wrong,
    }


def _features(row: Mapping[str, str]) -> dict[str, str]:
    """What an unlabelled row has: the columns that people filled in with the label are left out."""
    return {key: row.get(key, "") for key in ("title", "organization", "url", "notes", "resource_type")}
