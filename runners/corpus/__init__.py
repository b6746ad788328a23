"""From sources (Q&A files, documents, catalogues, computed problems) to one dataset that training can trust.

``build`` runs the steps; each step is a module of pure functions: ``sources`` and ``extract`` read, ``pairs`` brings every form to one, ``checks``
looks at each pair, ``dedupe`` and ``near`` find duplicates, ``leaks`` compares with the benchmark, ``split`` holds a validation set out,
``statistics`` and ``report`` describe the result.
"""
