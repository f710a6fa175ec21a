"""Table of competing rules: how likely each was before the runs, and how likely after them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hpo.trials.printing import Grid

_TITLE = "which published rule holds for these runs"


@dataclass(frozen=True, slots=True)
class RuleWeight:
    """How far the runs speak for one published rule.

    Rules about different slopes may hold together, so the weights of all rules may add up to more
    than 1.

    Args:
        name: name of the rule, such as "MuP"; "none of them" for the neutral prior alone.
        source: paper; "you" for a rule of the user's own, empty for none.
        before: prior probability that the rule holds.
        after: probability given the runs.

    Example:
        >>> RuleWeight("MuP", "Yang et al. 2022", before=0.15, after=0.6).after
        0.6
    """

    name: str
    source: str
    before: float
    after: float


def rules_as_text(rules: Sequence[RuleWeight]) -> str:
    """Return a heading and one line per rule, the likeliest first, "none of them" last.

    Args:
        rules: weights; the last one is that of no rule.

    Example:
        >>> weights = [RuleWeight("MuP", "Yang", 0.4, 0.1), RuleWeight("StepLaw", "Li", 0.4, 0.85)]
        >>> print(rules_as_text([*weights, RuleWeight("none of them", "", 0.2, 0.05)]))
        which published rule holds for these runs  before  after
        StepLaw                                       40%    85%  Li
        MuP                                           40%    10%  Yang
        none of them                                  20%     5%
    """
    width = max(len(_TITLE), *(len(rule.name) for rule in rules))
    lines = [
        f"{rule.name:{width}}  {rule.before:6.0%}  {rule.after:5.0%}  {rule.source}".rstrip()
        for rule in _ranked(rules)
    ]
    return "\n".join([f"{_TITLE:{width}}  before  after", *lines])


def rules_as_grid(rules: Sequence[RuleWeight]) -> Grid:
    """Return the same as a table of texts.

    Args:
        rules: weights; the last one is that of no rule.
    """
    cells = [(r.name, f"{r.before:.0%}", f"{r.after:.0%}", r.source) for r in _ranked(rules)]
    return Grid((_TITLE, "before", "after", ""), cells)


def _ranked(rules: Sequence[RuleWeight]) -> tuple[RuleWeight, ...]:
    return (*sorted(rules[:-1], key=lambda rule: -round(rule.after, 6)), rules[-1])
