"""Answers at the target, measured on every recorded family at hand and on laws that are known.

`question` says what a measurement is and how it is shown; each other module asks one kind of
question; `command` is `python -m benchmarks target`.
"""
