"""Plan before money: from a spec and a catalogue to memory, disk, time, dollars and latency, or a refusal. Pure; reads no network.

It is in ``runners`` and not in ``infra`` because the containers use it too (a record's cost, the micro-batch); ``infra/plan.py`` decides
only what the cloud is asked to make.
"""
