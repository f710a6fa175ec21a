"""Parametrizations by three exponents a layer, and unit scaling.

Notation
--------
W = n^-a w   weight of the network and what is trained
w            drawn with the standard deviation n^-b
n^-c         factor on the learning rate of w
n            width: fan-in of hidden and output layers, fan-out of input layers and biases

Yang & Hu, 2021 (arXiv:2011.14522). By the symmetry of their section 3.2, W itself can be drawn with
n^-(a + b) and trained at n^-(2a + c) by SGD, or at n^-(a + c) by an optimizer whose updates do not
depend on the size of the gradient; so no forward pass changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hpo.space.arguments import Flag, Kind, Number, Row, store
from hpo.training.optimizers import LayerRole, Step
from hpo.training.parametrization.rules import RATIO, Factors, Growth, MaximalUpdate

_EXPONENTS = Row(
    Number(least=-4, most=4), length=3, way_out="write those of input, hidden and output layers"
)
_POSITION = {LayerRole.INPUT: 0, LayerRole.VECTOR: 0, LayerRole.HIDDEN: 1, LayerRole.OUTPUT: 2}


@dataclass(frozen=True, slots=True)
class Exponents:
    """Exponents of input, hidden and output layers, in this order.

    Args:
        a: Exponents of the factors on trained weights.
        b: Exponents of the standard deviations of trained weights.
        c: Exponents of the learning rates of trained weights.
        gradient: Exponents of the gradients of network weights' entries, for Adam's epsilon.
        hidden: Whether there is a limit with layers between growing widths.

    Example:
        >>> NTK.sgd.a
        (0.0, 0.5, 0.5)
    """

    a: tuple[float, float, float]
    b: tuple[float, float, float]
    c: tuple[float, float, float]
    gradient: tuple[float, float, float] = (0.0, 0.0, 0.0)
    hidden: bool = True

    def __post_init__(self) -> None:
        store(self, a=_EXPONENTS, b=_EXPONENTS, c=_EXPONENTS, gradient=_EXPONENTS, hidden=Flag())


@dataclass(frozen=True, slots=True)
class ABCParametrization:
    """Any abc-parametrization, such as `NTK` and `MEAN_FIELD`.

    Args:
        sgd: Exponents under SGD, None where there are none.
        adam: Exponents under optimizers of Adam's kind, None where there are none.

    Example:
        >>> wide = Growth(LayerRole.HIDDEN, m_in=4.0, m_out=4.0)
        >>> [NTK.factors(wide, step).lr for step in (Step.PROPORTIONAL, Step.ENTRYWISE)]
        [0.25, 0.125]
    """

    sgd: Exponents | None
    adam: Exponents | None

    def __post_init__(self) -> None:
        exponents = Kind(Exponents, optional=True)
        store(self, sgd=exponents, adam=exponents)

    def factors(self, growth: Growth, step: Step) -> Factors:
        """Return the factors of one parameter that is updated by `step`.

        Args:
            growth: Size of the parameter relative to the base model.
            step: How its optimizer turns gradients into updates.

        Raises:
            ValueError: There are no exponents for the optimizer or the layer.
        """
        growth, step = Kind(Growth)(growth, "`growth`"), Kind(Step)(step, "`step`")
        by_step = {Step.PROPORTIONAL: self.sgd, Step.ENTRYWISE: self.adam}
        exponents = by_step.get(step)
        if exponents is None:
            given = [one.value for one, found in by_step.items() if found is not None]
            raise ValueError(
                f"the parametrization has exponents for the steps {given}, not for {step.value}; "
                "use MUP"
            )
        if growth.role is LayerRole.HIDDEN and not exponents.hidden:
            raise ValueError(
                "the parametrization has no limit with layers between growing widths (mean-field: "
                "their activations vanish), so it is for one hidden layer only; use MUP, which "
                "equals mean-field there and goes deeper"
            )
        at = _POSITION[growth.role]
        a, b, c = exponents.a[at], exponents.b[at], exponents.c[at]
        outer = growth.role in (LayerRole.INPUT, LayerRole.VECTOR)
        width = growth.m_out if outer else growth.m_in
        lr = width ** -((2 * a if step is Step.PROPORTIONAL else a) + c)
        # Standard weights have n^-1/2 of a growing fan-in, biases of any fan-in.
        standard = growth.m_in**-0.5 if growth.role is not LayerRole.INPUT else 1.0
        return Factors(
            lr=lr,
            weight_decay=1 / lr,
            epsilon=width ** -exponents.gradient[at],
            initial=width ** -(a + b) / standard,
        )

    def branch_factor(self, depth: float) -> float:
        """Return one: there is no rule in depth."""
        RATIO(depth, "`depth`")
        return 1.0

    def readout_factor(self, width: float) -> float:
        """Raise: the embedding and the output layer have learning rates of their own.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            "an abc-parametrization gives the embedding and the output layer learning rates of "
            "their own, so the two cannot share a weight; untie them or use MUP"
        )


@dataclass(frozen=True, slots=True)
class UnitScaled:
    """u-muP (Blake et al., 2024, arXiv:2407.17465, table 2): muP by unit scaling, for Adam.

    All that is trained has unit variance there, and the scale sits in factors of the forward pass:
    1 / fan-in on the output layer, fan-in^-1/2 on hidden ones. The same training in the weights of
    the network is Depth-muP with one more rule: the lr of embeddings falls as the root of width. So
    the forward pass stays as it is, and nothing is gained for number formats of 8 bits.

    Example:
        >>> wide = Growth(LayerRole.INPUT, m_out=4.0)
        >>> UNIT_SCALED.factors(wide, Step.ENTRYWISE).lr
        0.5
    """

    _mup: ClassVar[MaximalUpdate] = MaximalUpdate(alpha=0.5)

    def factors(self, growth: Growth, step: Step) -> Factors:
        """Return the factors of one parameter that is updated by `step`.

        Args:
            growth: Size of the parameter relative to the base model.
            step: How its optimizer turns gradients into updates.

        Raises:
            ValueError: The optimizer is not of Adam's kind.
        """
        growth, step = Kind(Growth)(growth, "`growth`"), Kind(Step)(step, "`step`")
        if step is not Step.ENTRYWISE:
            raise ValueError(
                f"unit scaling has rates for optimizers of Adam's kind, not for {step.value} steps;"
                " use DEPTH_MUP"
            )
        found = self._mup.factors(growth, step)
        if growth.role is not LayerRole.INPUT:
            return found
        root = growth.m_out**0.5
        return Factors(found.lr / root, found.weight_decay * root, found.epsilon, found.initial)

    def branch_factor(self, depth: float) -> float:
        """Return depth^-1/2, as in Depth-muP."""
        return self._mup.branch_factor(depth)

    def readout_factor(self, width: float) -> float:
        """Raise: the embedding and the output layer have learning rates of their own.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            "unit scaling gives the embedding and the output layer learning rates of their own, so "
            "the two cannot share a weight; untie them or use MUP"
        )


#: Kernel limit. SGD: Yang & Hu, table 1. Adam: the rates at which features move by n^-1/2 and
#: outputs by one, as under SGD (Yang & Littwin, 2023, arXiv:2308.01814, have this limit).
NTK = ABCParametrization(
    sgd=Exponents(a=(0.0, 0.5, 0.5), b=(0.0, 0.0, 0.0), c=(0.0, 0.0, 0.0)),
    adam=Exponents(
        a=(0.0, 0.5, 0.5), b=(0.0, 0.0, 0.0), c=(0.5, 1.0, 0.5), gradient=(0.5, 0.5, 0.0)
    ),
)

#: One hidden layer, Yang & Hu, table 1; muP for deeper networks. Adam: features and outputs move
#: by one, as under SGD.
MEAN_FIELD = ABCParametrization(
    sgd=Exponents(a=(0.0, 1.0, 1.0), b=(0.0, 0.0, 0.0), c=(-1.0, -1.0, -1.0), hidden=False),
    adam=Exponents(
        a=(0.0, 1.0, 1.0),
        b=(0.0, 0.0, 0.0),
        c=(0.0, 0.0, 0.0),
        gradient=(1.0, 1.0, 0.0),
        hidden=False,
    ),
)

UNIT_SCALED = UnitScaled()
