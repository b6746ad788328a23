"""A plan as text: lines for `pulumi preview`, tables for a terminal, Markdown for the README, JSON for machines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from runners import log
from runners.planning import starting
from runners.planning.cloud_run import TAIL_MINUTES
from runners.planning.machines import HOURS_PER_MONTH
from runners.planning.parts import Plan
from runners.planning.serving import ASSUMED, ServingPlan, TokensAStep, tokens_a_step_needed

Row = tuple[str, ...]


def summary(plan: Plan) -> list[str]:
    """Two or three lines that say what will happen and what it costs."""
    host, model, money = plan.machine, plan.wanted.provisioning_model, plan.money
    lines = [f"{plan.stack}: {host.count} x {host.accelerator.name} ({host.name}, {model}), ${money.usd_per_hour:.2f}/h, prices of {money.priced_at}"]
    if plan.role == "train" and plan.corpus and plan.memory:
        lines.append(
            f"{plan.steps} optimizer steps on {plan.corpus.examples:,} examples, {plan.memory.total_gb:.0f} of {plan.memory_limit_gb or 0:.0f} GB, "
            f"about {minutes(plan.expected_s)} ({span(plan)}), ${plan.money.usd_expected:.2f}; at most ${plan.money.usd_at_most:.2f} at its deadline"
        )
    if plan.serving:
        served = plan.serving
        lines.append(
            f"{served.format} weights {served.weights_gib:.1f} GiB a card, cache for {served.cache_tokens:,} tokens, "
            f"{served.expected_tokens_per_s:.0f} tokens/s, an answer in about {served.expected_ms / 1000:.1f} s; "
            f"${plan.money.usd_per_hour * 24:.2f} a day if it never idles"
        )
        lines += [f"{name}: {_second(other)}" for name, other in _two(plan)[1:]]
    return [*lines, *_place_lines(plan)]


def brief(plan: Plan) -> list[str]:
    """At most eight lines: verdict, dollars, minutes, memory, latency, warnings, and how it stops. What does not apply is left out."""
    wanted, money = plan.wanted, plan.money
    model = wanted.provisioning_model.lower().replace("_", "-")
    verdict = f"refused ({len(plan.refusals)} reason{'s' * (len(plan.refusals) > 1)} below)" if plan.refusals else "can run"
    lines = [f"{plan.stack}: {verdict}: {plan.machine.count} x {plan.machine.accelerator.name} ({plan.machine.name}, {model})"]
    if plan.role == "train":
        lines.append(
            f"money    about ${money.usd_expected:.2f}, at most ${money.usd_at_most:.2f}; ${money.usd_per_hour:.2f} an hour, prices of {money.priced_at}"
        )
        lines.append(
            f"time     about {minutes(plan.expected_s)} ({span(plan)}), {plan.steps} optimizer steps on {plan.corpus.examples if plan.corpus else 0:,} examples"
        )
    else:
        replicas = plan.spec.serve.replicas
        bound = "a day" if plan.machine.is_run else f"for {replicas.max} VMs" if replicas.several else "for one VM"
        grown = f" with {_servers(replicas.min)}, ${money.usd_per_hour_grown:.2f} with {replicas.max}" if money.usd_per_hour_grown else ""
        lines.append(f"money    ${money.usd_per_hour:.2f} an hour{grown}, at most ${money.usd_at_most:.2f} {bound}; prices of {money.priced_at}")
        goal, saved = starting.goal_s(wanted), starting.compiled_saves_s(plan.spec.serve)
        later = f"; {plan.expected_s - saved:.0f} with its compiled code published (elson models compiled)" if saved else ""
        aim = f"; the goal is {goal:.0f} s" if goal else f"; {starting.GOAL_BAKED_S:.0f} s is the goal of a baked image"
        lines.append(f"time     {plan.expected_s:.0f} s until the first answer ({plan.optimistic_s:.0f} to {plan.pessimistic_s:.0f}){later}{aim}")
    if plan.memory:
        disk = "its own memory, disk too," if plan.machine.is_run else "disk"
        card, room = f"{plan.memory.total_gb:.0f} of {plan.memory_limit_gb or 0:.0f} GB", f"{plan.disk_needed_gb:.0f} of {plan.disk_given_gb:.0f} GB"
        lines.append(f"memory   {card}; {disk} {room}")
    if plan.serving:
        served = plan.serving
        of = f" of {plan.spec.serve.served_model_name}" if plan.second else ""
        lines.append(f"memory   {served.weights_gib:.1f} GiB of weights{of} a card, cache for {served.cache_tokens:,} tokens")
        drafts = f"; {_tokens_a_step(plan, served.tokens_a_step)}" if served.tokens_a_step else ""
        lines.append(f"latency  {served.expected_ms / 1000:.1f} s for {plan.answers.answer_tokens} tokens, never under {served.floor_ms / 1000:.2f} s{drafts}")
    lines += [f"second   {name}: {_second(other)}" for name, other in _two(plan)[1:]]
    if plan.places:
        usable = [place for place in plan.places if not place.left_out]
        last = f"; the dearest costs ${max(place.usd_at_most for place in usable):.2f} at most" if len(usable) > 1 else ""
        lines.append(f"places   {len(usable)} of {len(plan.places)} may be used{last}")
    if plan.warnings:
        lines.append(f"warning  {plan.warnings[0].found}{f' (and {len(plan.warnings) - 1} more: --verbose)' if len(plan.warnings) > 1 else ''}")
    ends = "done, failed or at its deadline" if plan.role == "train" else f"after {plan.spec.serve.idle_minutes} idle minutes"
    if plan.machine.is_run and plan.role == "serve":
        return [*lines, f"stops    about {TAIL_MINUTES} minutes after the last request; the next one wakes it"]
    return [*lines, f"stops    {ends}; the platform ends it after {minutes(wanted.max_run_minutes * 60)} at the latest"]


def sections(plan: Plan) -> list[tuple[str, Row, list[Row]]]:
    """(title, headers, rows) of each table."""
    tables: list[tuple[str, Row, list[Row]]] = []
    if plan.memory:
        memory = plan.memory
        rows: list[Row] = [
            ("weights (bf16, frozen)", _gb(memory.weights_gb)),
            ("adapter, gradient, Adam (fp32)", _gb(memory.adapter_gb)),
            (f"activations of {memory.micro_batch_tokens:,} tokens{', checkpointed' if memory.checkpointing else ''}", _gb(memory.activations_gb)),
            ("logits", _gb(memory.logits_gb)),
            *([(f"gathered from the others ({memory.parts} cards share the model)", _gb(memory.gathered_gb))] if memory.parts > 1 else []),
            (f"together, of {plan.memory_limit_gb or 0:.0f} GB", _gb(memory.total_gb)),
        ]
        tables.append(("Memory of the card, training", ("part", "GB"), rows))
    if plan.serving:
        served = plan.serving
        tables.append(
            ("Memory of the card, serving" if served.cards == 1 else f"Memory of each of {served.cards} cards, serving", ("part", "GiB"), _memory_rows(plan))
        )
        tables.append(
            (
                f"Latency of one answer ({plan.answers.prompt_tokens} tokens in, {plan.answers.answer_tokens} out, one stream)",
                ("", "floor", "to expect"),
                [
                    ("ms a token", f"{served.floor_step_ms:.2f}", f"{served.expected_step_ms:.1f}"),
                    ("tokens a second", f"{served.floor_tokens_per_s:.1f}", f"{served.expected_tokens_per_s:.1f}"),
                    ("answer, s", f"{served.floor_ms / 1000:.2f}", f"{served.expected_ms / 1000:.2f}"),
                ],
            )
        )
        if served.tokens_a_step:
            tables.append((f"Speculative decoding ({served.tokens_a_step.source})", ("", "tokens a step", "answer, s"), _speculation_rows(plan, served)))
    disk = [(name, _gb(size)) for name, size in plan.disk]
    title = "Memory of the instance, its disk too" if plan.machine.is_run else "Disk"
    tables.append((title, ("part", "GB"), [*disk, (f"with a tenth free, of {plan.disk_given_gb:.0f} GB", _gb(plan.disk_needed_gb))]))
    phases = [(one.name, f"{one.optimistic_s:.0f}", f"{one.expected_s:.0f}", f"{one.pessimistic_s:.0f}", one.source) for one in plan.phases]
    together = ("together", f"{plan.optimistic_s:.0f}", f"{plan.expected_s:.0f}", f"{plan.pessimistic_s:.0f}", "a preemption is not in it")
    tables.append(("Time, s", ("phase", "at best", "expected", "at worst", "from"), [*phases, together]))
    if plan.savings:
        saved: list[Row] = [(saving.name, f"{saving.seconds:.0f}", saving.how) for saving in plan.savings]
        tables.append(("What stock parts would add to training, s", ("saving", "seconds", "because"), saved))
    if plan.places:
        tables.append(("Places, as they are asked", ("place", "patience, min", "USD an hour", "the job, USD", "at most, USD", "time"), place_rows(plan)))
    tables.append((f"Money, prices of {plan.money.priced_at} ({plan.money.source})", ("what", "USD"), money_rows(plan)))
    return tables


def _two(plan: Plan) -> list[tuple[str, ServingPlan]]:
    """(served name, plan) of each model."""
    return [(spec.served_model_name, its) for spec, its in zip(plan.spec.serve.models(), (plan.serving, plan.second), strict=False) if its]


def _second(served: ServingPlan) -> str:
    size, cache = f"{served.format} weights {served.weights_gib:.1f} GiB a card", f"cache for {served.cache_tokens:,} tokens"
    return f"{size}, {cache}, an answer in about {served.expected_ms / 1000:.1f} s while the other is not asked"


def _memory_rows(plan: Plan) -> list[Row]:
    """What each model takes of a card."""
    rows: list[Row] = []
    for name, served in _two(plan):
        of = f"{name}: " if plan.second else ""
        rows += [
            (f"{of}weights ({served.format}, {served.dtype})", f"{served.weights_gib:.2f}"),
            (f"{of}overhead", f"{served.overhead_gib:.2f}"),
            (f"{of}cache, {served.cache_tokens:,} tokens", f"{served.cache_gib:.2f}"),
            (f"{of}usable", f"{served.usable_gib:.2f}"),
        ]
    return rows


def _speculation_rows(plan: Plan, served: ServingPlan) -> list[Row]:
    """What a step yields, what that makes of an answer, and what the latency bar needs."""
    tokens, bar = served.tokens_a_step, plan.spec.evaluate.mean_latency_bar_ms
    if tokens is None:
        return []
    rows = [("all questions", f"{tokens.mean:.2f}", f"{served.expected_ms / 1000:.2f}")]
    if tokens.fewest < tokens.most:
        rows.append(("the slowest category", f"{tokens.fewest:.2f}", f"{served.slowest_ms / 1000:.2f}"))
        rows.append(("the fastest category", f"{tokens.most:.2f}", f"{served.fastest_ms / 1000:.2f}"))
    needed = tokens_a_step_needed(bar, served, plan.answers)
    return [*rows, ("needed for evaluate.mean_latency_bar_ms", f"{needed:.2f}" if needed else "none is enough", f"{bar / 1000:.2f}")]


def _tokens_a_step(plan: Plan, tokens: TokensAStep) -> str:
    bar, served = plan.spec.evaluate.mean_latency_bar_ms, plan.serving
    needed = tokens_a_step_needed(bar, served, plan.answers) if served else None
    span = f", {tokens.fewest:.2f} to {tokens.most:.2f} by category" if tokens.fewest < tokens.most and tokens.source != ASSUMED else ""
    return f"{tokens.mean:.2f} tokens a step ({tokens.source}{span}); {bar / 1000:g} s needs {f'{needed:.2f}' if needed else 'more than that'}"


def money_rows(plan: Plan) -> list[Row]:
    """What it costs, in the order a person asks."""
    money, wanted = plan.money, plan.wanted
    limit = wanted.deadline_minutes if plan.role == "train" else wanted.max_run_minutes
    replicas = plan.spec.serve.replicas
    rows = [("an hour", f"{money.usd_per_hour:.2f}")]
    if money.usd_per_hour_grown:
        rows = [(f"an hour with {_servers(replicas.min)} and the load balancer", f"{money.usd_per_hour:.2f}")]
        rows.append((f"an hour with {replicas.max} servers", f"{money.usd_per_hour_grown:.2f}"))
    if plan.role == "train":
        rows.append((f"the job, about {minutes(plan.expected_s)} ({span(plan)})", f"{money.usd_expected:.2f}"))
        if head := [phase for phase in plan.phases if phase.name.startswith("head: ")]:
            best, expected, worst = (sum(values) for values in zip(*((one.optimistic_s, one.expected_s, one.pessimistic_s) for one in head), strict=True))
            what = f"of it the EAGLE-3 head, about {minutes(expected)} ({minutes(best)} at best, {minutes(worst)} at worst)"
            rows.append((what, f"{money.usd_per_hour * expected / 3600:.2f}"))
        rows.append((f"at most, {limit} minutes at the dearest price seen", f"{money.usd_at_most:.2f}"))
    else:
        rows.append(("a day that never idles", f"{24 * money.usd_per_hour:.2f}"))
        most = f"at most for {f'{replicas.max} VMs' if replicas.several else 'one VM'}, {limit / 60:.0f} h"
        if plan.machine.is_run:
            most = f"at most a day, {wanted.max_instances} x 24 h"
        rows.append((f"{most} at the dearest price seen", f"{money.usd_at_most:.2f}"))
        rows.append(("a month always on", f"{HOURS_PER_MONTH * money.usd_per_hour:.0f}"))
        if plan.start_usd:
            rows.append(("each start: the model from a bucket in another region", f"{plan.start_usd:.2f}"))
    return [*rows, ("a month of the models in the bucket", f"{money.storage_usd_per_month:.2f}")]


def _servers(count: int) -> str:
    return "one server" if count == 1 else f"{count} servers"


def place_rows(plan: Plan) -> list[Row]:
    """Each place with its dollars, or why it is left out."""
    return [
        (f"{place.rank}. {place}", f"left out: {place.left_out}", "", "", "", "")
        if place.left_out
        else (
            f"{place.rank}. {place}",
            str(place.machine.patience_minutes),
            f"{place.usd_per_hour:.2f}",
            f"{place.usd_expected:.2f}",
            f"{place.usd_at_most:.2f}",
            minutes(place.expected_s),
        )
        for place in plan.places
    ]


def _place_lines(plan: Plan) -> list[str]:
    lines = []
    for place in plan.places:
        cost = f"${place.usd_per_hour:.2f}/h, about ${place.usd_expected:.2f}, at most ${place.usd_at_most:.2f}; asked for {place.machine.patience_minutes} min"
        lines.append(f"  {place.rank}. {place}: {f'left out: {place.left_out}' if place.left_out else cost}")
    return lines


def cost_table(plans: Sequence[Plan]) -> str:
    """The README's cost table, in Markdown."""
    lines = ["| stack | machine | USD an hour | a usual run | at most | a month always on | stops by itself |", "|---|---|---:|---|---|---:|---|"]
    for plan in plans:
        wanted, money = plan.wanted, plan.money
        bought = "Cloud Run" if plan.machine.is_run else wanted.provisioning_model.lower().replace("_", "-")
        if plan.role == "train":
            usual, always, ends = f"${money.usd_expected:.2f} in {minutes(plan.expected_s)}", "", "done, failed, or at its deadline"
            most = f"${money.usd_at_most:.2f} ({wanted.deadline_minutes} min)"
        else:
            usual, always = f"${money.usd_per_hour * 2:.2f} for 2 h of use", f"${money.usd_per_hour * HOURS_PER_MONTH:.0f}"
            most = f"${money.usd_at_most:.2f} ({24 if plan.machine.is_run else wanted.max_run_minutes / 60:.0f} h)"
            ends = f"after {plan.spec.serve.idle_minutes} idle minutes"
            if plan.machine.is_run:
                ends = f"about {TAIL_MINUTES} minutes after the last request; the next one wakes it"
        lines.append(f"| `{plan.stack}` | {plan.machine.name}, {bought} | {money.usd_per_hour:.2f} | {usual} | {most} | {always} | {ends} |")
    dates = {f"{plan.money.priced_at} ({plan.money.source})" for plan in plans}
    return "\n".join([*lines, "", f"Prices of {', '.join(sorted(dates))}; `elson prices refresh` reads them again."]) + "\n"


def as_json(plan: Plan) -> dict[str, Any]:
    """Everything, as plain data."""
    return {
        "stack": plan.stack,
        "role": plan.role,
        "machine": {"name": plan.machine.name, "cards": plan.machine.count, "provisioning_model": plan.wanted.provisioning_model},
        "steps": plan.steps,
        "corpus": asdict(plan.corpus) if plan.corpus else None,
        "training_memory": {**asdict(plan.memory), "total_gb": plan.memory.total_gb, "limit_gb": plan.memory_limit_gb} if plan.memory else None,
        "serving": asdict(plan.serving) if plan.serving else None,
        "second": asdict(plan.second) if plan.second else None,
        "disk_gb": {"needed": plan.disk_needed_gb, "parts": dict(plan.disk)},
        "phases": [asdict(phase) for phase in plan.phases],
        "savings": [asdict(saving) for saving in plan.savings],
        "seconds": {"optimistic": plan.optimistic_s, "expected": plan.expected_s, "pessimistic": plan.pessimistic_s},
        "money": asdict(plan.money),
        "places": [
            {
                "rank": place.rank,
                "machine_type": place.machine.machine_type,
                "provisioning_model": place.machine.provisioning_model,
                "region": place.machine.region,
                "usd_per_hour": place.usd_per_hour,
                "usd_expected": place.usd_expected,
                "usd_at_most": place.usd_at_most,
                "left_out": place.left_out,
            }
            for place in plan.places
        ],
        "refusals": [asdict(notice) for notice in plan.refusals],
        "warnings": [asdict(notice) for notice in plan.warnings],
    }


def show(plan: Plan, *, verbose: bool) -> None:
    """Print a plan to stdout (the tables where asked for), its refusals to stderr."""
    from rich.console import Console
    from rich.table import Table

    out = Console(highlight=False)
    for line in summary(plan) if verbose else brief(plan):
        log.say(line)
    for title, headers, rows in sections(plan) if verbose else ():
        table = Table(title=title, title_justify="left", title_style="bold", min_width=60)
        for number, header in enumerate(headers):
            table.add_column(header, justify="right" if number and all(_is_number(row[number]) for row in rows) else "left")
        for row in rows:
            table.add_row(*row)
        out.print()
        out.print(table)
    for line in _place_lines(plan) if not verbose else ():
        log.say(line)
    for notice in plan.warnings if verbose else ():
        log.notice("warning", str(notice))
    for notice in plan.refusals:
        log.notice("refused", str(notice))


def minutes(seconds: float) -> str:
    """A length of time for people."""
    if seconds >= 5 * 3600:
        return f"{seconds / 3600:.0f} h"
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def span(plan: Plan) -> str:
    """The range of a plan's time."""
    return f"{minutes(plan.optimistic_s)} at best, {minutes(plan.pessimistic_s)} at worst"


def _is_number(text: str) -> bool:
    return not text.strip("0123456789.,")


def _gb(value: float) -> str:
    return f"{value:.1f}"
