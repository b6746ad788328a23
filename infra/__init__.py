"""The cloud, as a Pulumi program. Nothing imports this package; decisions are made in ``plan.py`` and in ``runners/planning``."""
