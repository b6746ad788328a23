"""Formulas of computed problems, a file for each domain or two: from the values of a question to the figures that its worked steps show.

Everything that a formula gives a name is a figure (``locals()``); what only a text needs is beside it.
"""
