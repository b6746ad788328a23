"""Measure a served model on the benchmark. ``runners/evaluation/README.md`` says how, and why so.

The modules are pure but for ``client`` (asks the server), ``store`` (keeps the answers) and ``run`` (puts it together).
"""
