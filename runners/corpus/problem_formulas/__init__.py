"""Formulas of computed problems, a file for each domain or two: from the values of a question to the figures that its worked steps show."""
