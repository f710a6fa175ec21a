"""Experiments beside the suites, each a command of `python -m benchmarks`.

A module here has `add_arguments(parser)`, which declares its options and sets `action`, a function
that takes the parsed options and returns the exit status. `benchmarks.__main__` names the module.
"""
