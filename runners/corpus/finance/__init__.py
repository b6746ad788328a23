"""Finance as tested functions: the figures of computed problems and of the benchmark come from here, never from prose.

Pure Python, no state, amounts in dollars and rates as fractions (0.065 is 6.5 %) throughout. A file is a subject; each docstring names the
source of its formula or table. Deliberately absent: day-count conventions beyond 30/360 and actual/360, state taxes, the AMT.
"""
