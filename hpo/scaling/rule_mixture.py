"""Published rules that compete: which sets of them can hold together, and how likely each set is.

Notation
--------
question    one slope (parameter, scale), or the level of one parameter
hypothesis  set of rules that hold together; a component of the mixture
pi_r        prior probability that rule r holds
nu          prior probability, at least, that no rule answers a question: `NEUTRAL`

**Which rules exclude each other.** Two rules compete if they answer the same question. Rules about
different questions do not: muP speaks of the lr along width, a token horizon of the lr along
tokens, a decay rule of the decay, and all three may be right at once. Hence a hypothesis is a set
of rules without a common question, the empty set included. Its prior takes the claims of its rules
and keeps the neutral prior, zero-mean and wide, for every other slope. So a rule that says nothing
about a slope is neither rewarded nor punished for what the runs say about it, and a rule may fail
while others of the same hypothesis hold. By default, what a rule says of the lr and what it says of
the batch compete separately: a rule that is silent about the batch must not speak for "no drift"
there. The price is more components than rules: 88 for lr, batch, N and D.

**Prior weights.** Every published source counts the same, however many variants of it there are and
whichever it can be combined with, and so does every earlier study of the user's own
(`hpo.scaling.earlier_studies`). A question that k sources answer gives each (1 - nu) / k. A rule
that answers several questions gets the least of these, and its variants share it. Of all
distributions over hypotheses with these pi_r, the one of largest entropy is taken::

    P(S) ~ prod_{r in S} lambda_r

with lambda_r found by iterative proportional fitting (Deming & Stephan 1940).

nu is 1/4. Five sources speak of the lr along N, so each of them gets 15 %: the neutral prior counts
for more than any single rule, because every one was fitted in a setting that is not the user's, but
for less than all of them. At 1/4, evidence of a factor three is enough to leave the rules alone. In
return a rule is never believed so firmly that runs have to fight it.

The slopes a user states directly (`Slope`, `Level`) are one rule: whoever writes two means both.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from hpo.errors import SpaceError
from hpo.scaling.claims import Level, Slope, TransferRule
from hpo.scaling.drift_prior import drift_prior
from hpo.scaling.transfer_rules.published import PUBLISHED
from hpo.space import SearchSpace
from surrogates.data import Array, Columns
from surrogates.scaling_law.mixture import DriftMixture

BoolArray = NDArray[np.bool_]

#: Prior probability, at least, that no rule answers a question (nu).
NEUTRAL = 0.25
_MOST = 128  # hypotheses; beyond, the least likely are left out and the weights fitted anew
_SWEEPS = 500  # of proportional fitting; the default rules need fewer than 50
_YOURS = "your slopes and levels"


@dataclass(frozen=True, slots=True)
class CompetingRule:
    """One rule of a mixture.

    Args:
        name: name as printed, such as "MuP".
        source: paper, or "you" for a rule without one.
        weight: prior probability that it holds.
        rules: the rule itself; several where a user's claims belong together.

    Example:
        >>> from hpo import MuP
        >>> CompetingRule("MuP", MuP.source, 0.75, (MuP(),)).source
        'Yang et al. 2022, arXiv:2203.03466'
    """

    name: str
    source: str
    weight: float
    rules: tuple[TransferRule, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class RuleAbout:
    """What a rule says of one parameter.

    Args:
        rule: the rule.
        parameter: name of the parameter.

    Example:
        >>> from hpo import Axis, Float, Int, Role, Scale, StepLaw
        >>> space = SearchSpace({
        ...     "lr": Float(1e-4, 1e-1, log=True, role=Role.LR),
        ...     "batch": Int(8, 512, log=True, role=Role.BATCH),
        ...     "tokens": Scale(1e7, 1e9, axis=Axis.TOKENS),
        ... })
        >>> [claim.mean for claim in RuleAbout(StepLaw(params=1e8), "batch").claims(space)]
        [0.571]
    """

    rule: TransferRule
    parameter: str

    def claims(self, space: SearchSpace) -> tuple[Slope | Level, ...]:
        """Return the rule's claims about the parameter.

        Args:
            space: search space whose roles and axes the rule looks up.

        Raises:
            SpaceError: where the rule does not apply to the space.
        """
        return tuple(c for c in self.rule.claims(space) if c.parameter == self.parameter)


@dataclass(frozen=True, slots=True, eq=False)
class RuleMixture:
    """Competing rules, the hypotheses they make, and the same as priors for the surrogate.

    Args:
        rules: competing rules.
        holds: `components x rules`, which rules hold in each component.
        drift: prior of each component and its weight, for the surrogate. The component in which no
            rule holds comes last.
        chosen: whether the user named the rules, so that they are not the published ones.

    Example:
        >>> from hpo import Axis, Float, MuP, Role, Scale, TokenHorizon
        >>> from hpo.space.encoding import Encoder
        >>> space = SearchSpace({
        ...     "lr": Float(1e-4, 1e-1, log=True, role=Role.LR),
        ...     "params": Scale(1e5, 1e7, axis=Axis.PARAMS),
        ...     "tokens": Scale(1e6, 1e8, axis=Axis.TOKENS),
        ... })
        >>> both = rule_mixture([MuP(), TokenHorizon()], space, Encoder(space).columns)
        >>> [rule.name for rule in both.rules], both.holds.astype(int).tolist()
        (['MuP', 'TokenHorizon'], [[1, 1], [1, 0], [0, 1], [0, 0]])
        >>> both.drift.weights.round(4).tolist()
        [0.5625, 0.1875, 0.1875, 0.0625]
    """

    rules: tuple[CompetingRule, ...]
    holds: BoolArray
    drift: DriftMixture
    chosen: bool

    def of_rules(self, weights: Array) -> Array:
        """Return the probability that each rule holds, and last that none does.

        Args:
            weights: `(components,)`, probabilities of the components, before or after the runs.

        Returns:
            `(rules + 1,)`; rules that may hold together add up to more than 1.
        """
        none = ~self.holds.any(axis=1)
        return np.append(weights @ self.holds, weights[none].sum())


def rule_mixture(
    rules: Sequence[TransferRule] | None,
    space: SearchSpace,
    columns: Columns,
    earlier: TransferRule | None = None,
) -> RuleMixture | None:
    """Return the mixture over rules that the surrogate integrates over; None where none applies.

    Args:
        rules: rules as `check_priors` returns them: None lets every published rule that fits the
            space compete, an empty sequence leaves the neutral prior alone.
        space: search space whose roles and axes the rules refer to.
        columns: meaning of the same space's encoded columns.
        earlier: what earlier studies say, one more rule beside those; None without any.

    Raises:
        SpaceError: where a rule that the user named needs what the space lacks, where a level lies
            far outside the searched range, or where claims depend on one another in a circle.

    Example:
        >>> from hpo import Axis, Float, Role, Scale
        >>> from hpo.space.encoding import Encoder
        >>> space = SearchSpace({
        ...     "lr": Float(1e-4, 1e-1, log=True, role=Role.LR),
        ...     "tokens": Scale(1e6, 1e8, axis=Axis.TOKENS),
        ... })
        >>> default = rule_mixture(None, space, Encoder(space).columns)
        >>> [(rule.name, round(rule.weight, 2)) for rule in default.rules]
        [('TokenHorizon', 0.25), ('PowerScheduler', 0.25), ('DeepSeekLaw', 0.25)]
    """
    chosen = rules is not None
    groups = _together(rules) if rules is not None else _that_fit(space)
    groups += [(earlier,)] if earlier is not None else []
    if not groups:
        return None
    if not space.scales:
        drift_prior([rule for group in groups for rule in group], space, columns)  # refuses
    answers = [frozenset().union(*(_questions(rule, space) for rule in group)) for group in groups]
    speaking = [i for i, questions in enumerate(answers) if questions]
    groups, answers = [groups[i] for i in speaking], [answers[i] for i in speaking]
    if not groups:
        return None
    sources = [_source(group) for group in groups]
    counts: dict[Hashable, int] = {
        source: _count(group) for source, group in zip(sources, groups, strict=True)
    }
    weights = _shares(answers, sources, counts)
    holds, probability = _hypotheses(answers, weights)
    priors = tuple(
        drift_prior([rule for i in np.flatnonzero(row) for rule in groups[i]], space, columns)
        for row in holds
    )
    names = [_name(group) for group in groups]
    competing = tuple(
        CompetingRule(name, source, weight, group)
        for name, source, weight, group in zip(
            names, sources, (probability @ holds).tolist(), groups, strict=True
        )
    )
    return RuleMixture(competing, holds, DriftMixture(priors, probability), chosen)


def _together(rules: Sequence[TransferRule]) -> list[tuple[TransferRule, ...]]:
    """Return the user's rules, claims that were given directly as one of them."""
    stated = tuple(rule for rule in rules if isinstance(rule, Slope | Level))
    groups: list[tuple[TransferRule, ...]] = [
        (rule,) for rule in rules if not isinstance(rule, Slope | Level)
    ]
    return [*groups, stated] if stated else groups


def _that_fit(space: SearchSpace) -> list[tuple[TransferRule, ...]]:
    """Return the published rules that find their roles and axes in the space."""
    found: list[tuple[TransferRule, ...]] = []
    for rule in PUBLISHED if space.scales else ():
        try:
            claims = rule.claims(space)
        except SpaceError:
            continue
        about = list(dict.fromkeys(claim.parameter for claim in claims))
        parts = [(RuleAbout(rule, parameter),) for parameter in about]
        found += [(rule,)] if len(about) == 1 else parts
    return found


def _questions(rule: TransferRule, space: SearchSpace) -> frozenset[tuple[str, str | None]]:
    return frozenset(
        (claim.parameter, claim.scale if isinstance(claim, Slope) else None)
        for claim in rule.claims(space)
    )


def _count(group: tuple[TransferRule, ...]) -> int:
    """Return the number of sources that a rule stands for, of which each earlier study is one."""
    studies = getattr(group[0], "studies", 1)
    return studies if isinstance(studies, int) else 1


def _shares(
    answers: Sequence[frozenset[Hashable]],
    sources: Sequence[Hashable],
    counts: Mapping[Hashable, int],
) -> Array:
    """Return pi_r of each rule."""
    papers: dict[Hashable, set[Hashable]] = {}
    for questions, source in zip(answers, sources, strict=True):
        for question in questions:
            papers.setdefault(question, set()).add(source)
    shares = []
    for own, source in zip(answers, sources, strict=True):
        variants = sum(
            bool(own & other) and source == its for other, its in zip(answers, sources, strict=True)
        )
        most = max(sum(counts[paper] for paper in papers[q]) for q in own)
        shares.append((1.0 - NEUTRAL) * counts[source] / (most * variants))
    return np.array(shares)


def _hypotheses(answers: Sequence[frozenset[Hashable]], weights: Array) -> tuple[BoolArray, Array]:
    """Return the sets of rules that can hold together, and their probabilities.

    Args:
        answers: questions of each rule.
        weights: `(rules,)`, pi_r.

    Returns:
        `hypotheses x rules`, the empty set last, and `(hypotheses,)`.
    """
    sets: list[tuple[int, ...]] = [()]
    for i, questions in enumerate(answers):
        sets += [s + (i,) for s in sets if not any(answers[j] & questions for j in s)]
    sets.sort(key=lambda s: [i not in s for i in range(len(answers))])
    holds = np.zeros((len(sets), len(answers)), dtype=np.bool_)
    for row, s in zip(holds, sets, strict=True):
        row[list(s)] = True
    probability = _fitted(holds, weights)
    if len(sets) > _MOST:
        likely = np.argsort(-probability, kind="stable")
        # the likeliest set of each rule stays, so that no rule is left out
        needed = [int(likely[np.argmax(rule[likely])]) for rule in holds.T]
        kept = np.union1d(likely[: _MOST - len(needed) - 1], [*needed, len(sets) - 1])
        holds = holds[kept]
        probability = _fitted(holds, weights)
    return holds, probability


def _fitted(holds: BoolArray, weights: Array) -> Array:
    """Return the distribution of largest entropy in which each rule has its weight.

    Args:
        holds: `hypotheses x rules`.
        weights: `(rules,)`, pi_r.
    """
    probability = np.full(len(holds), 1.0 / len(holds))
    for _ in range(_SWEEPS):
        before = probability
        for i, weight in enumerate(weights.tolist()):
            share = float(probability @ holds[:, i])
            probability = probability * np.where(
                holds[:, i], weight / share, (1.0 - weight) / (1.0 - share)
            )
        if np.allclose(probability, before, rtol=1e-12, atol=0.0):
            break
    return np.asarray(probability / probability.sum())


def _source(group: tuple[TransferRule, ...]) -> str:
    """Return the paper; rules without one are each a source of their own."""
    rule = group[0].rule if isinstance(group[0], RuleAbout) else group[0]
    return str(getattr(rule, "source", f"you: {_name(group)}"))


def _name(group: tuple[TransferRule, ...]) -> str:
    """Return the class of a rule with the arguments that differ from their defaults."""
    rule = group[0]
    if isinstance(rule, Slope | Level):
        return _YOURS
    if isinstance(rule, RuleAbout):
        return f"{_name((rule.rule,))}, {rule.parameter}"
    changed = []
    for entry in fields(rule) if is_dataclass(rule) else ():  # type: ignore[var-annotated]
        value = getattr(rule, entry.name)
        if entry.default is MISSING or value != entry.default:
            shown = value.name if isinstance(value, Enum) else f"{value!r}"
            changed.append(f"{entry.name}={shown}")
    return type(rule).__name__ + (f"({', '.join(changed)})" if changed else "")
