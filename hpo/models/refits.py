"""Schedule of refits: when a surrogate is fitted anew, and from which earlier fit it starts.

A predictor that grew with a log and one rebuilt from it must be equal to the last bit. To that end
models are built anew only at the counts 1, 2, .., 11, 13, 15, .. (each the ceiling of 1.1 times the
one before), and rows told in between are appended one at a time. Hyperparameters are learned at
these counts too, every fit starting from the one before it.

Of a long study only the end is replayed. Beyond some hundred rows, models of whole runs learn at
every third count, and every fourth of those fits starts afresh, so none depends on more than a few
before it. Beyond some thousand rows, models are built anew after every `_MOST_FRESH` rows as well,
with the hyperparameters that they have.

A log may begin with runs that were read from elsewhere. Nothing was asked along the way, so no fit
of them leads to another: each starts afresh, and a log that is loaded takes one fit of each model.

Of Gaussian processes, fits up to `FRESH` rows start afresh too: an earlier fit as a second start
finds a better one in 4 % of the cases only.

A fit that starts afresh is a function of its rows alone. It starts from the prior. Where there are
more than `_COARSE` rows, that start is first improved on so many that represent them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np

from surrogates.base import Surrogate
from surrogates.data import Array, Columns, IntArray, TrainingData
from surrogates.gp import GPPredictor, representative
from surrogates.numerics import NumericalError

EVIDENCE_ROWS = 500  # first rows whose marginal likelihood compares models
_MAX_ROWS = 2000  # of a factor; beyond it a representative subset, chosen at each refit
_COLD_UNTIL = 30  # rows up to which each fit also starts from the prior
_COLD_EVERY = 4  # beyond them, one fit in so many does
FRESH = 30  # rows up to which a Gaussian process is fitted without an earlier fit
CHAINED = 400  # rows up to which each fit starts from the one before
_MOST_FRESH = 200  # rows appended one at a time; up to 2000 rows the counts are never further apart
_COARSE = 100  # rows from which the start of a fresh fit is learned
_LEARN_EVERY = 3  # counts, where fits are no longer chained: each has a third more rows
_FRESH_EVERY = 4  # one of so many of those fits starts afresh
Fitted = TypeVar("Fitted", bound=GPPredictor, covariant=True)


def refits_up_to(n: int) -> list[int]:
    """Return the numbers of rows, up to `n`, at which models are built anew.

    Args:
        n: Number of rows told.

    Example:
        >>> refits_up_to(20)
        [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19]
    """
    counts, count = [], 1
    while count <= n:
        counts.append(count)
        count = -(-11 * count // 10)
    return counts


class Representatives:
    """Rows that represent the first rows of one log, chosen once for all models of it.

    Args:
        columns: Columns of the rows.

    Example:
        >>> X, y = np.array([[0.0], [0.1], [1.0]]), np.array([3.0, 1.0, 2.0])
        >>> Representatives(Columns.of_decisions("x")).among(X, y, 3, count=2).tolist()
        [1, 2]
    """

    def __init__(self, columns: Columns) -> None:
        self._numeric = columns.numeric
        self._known: dict[tuple[int, int], IntArray] = {}

    def among(self, X: Array, y: Array, n: int, *, count: int) -> IntArray:
        """Return sorted indices of at most `count` of the first `n` rows.

        Args:
            X: Rows in the order they were told.
            y: Losses of the rows.
            n: Number of first rows.
            count: Largest number of rows to keep.
        """
        if n <= count:
            return np.arange(n)
        if (n, count) not in self._known:
            recent = [key for key in self._known if key[0] >= n // 2]  # none earlier is used again
            self._known = {key: self._known[key] for key in recent}
            self._known[n, count] = representative(X[:n, self._numeric], y[:n], count)
        return self._known[n, count]


class RefitChain(Generic[Fitted]):
    """Surrogate of a growing data set, refitted at the counts of :func:`refits_up_to`.

    Args:
        surrogate: Model that is fitted.
        columns: Columns of its rows.
        targets: Function from losses to the targets of the surrogate.
        max_rows: Largest number of rows of a factor.
        chained: Number of rows up to which every fit starts from the one before; None is any.
        fresh: Number of rows up to which every fit starts afresh instead.
        taught: Largest number of rows that teach hyperparameters; None leaves it to the surrogate.
        representatives: Rows that represent others, shared by the chains of the same rows.

    Attributes:
        rows: Indices of the rows that the last predictor was built from.
        fallbacks: Number of times that a fit could not be built and an earlier one was used.
        read: Number of first rows that were read from elsewhere.

    Example:
        >>> from surrogates.gp import GaussianProcess
        >>> from surrogates.transforms import Transform
        >>> chain = RefitChain(GaussianProcess(), Columns.of_decisions("x"), Transform.RAW)
        >>> X = np.linspace(0.0, 1.0, 5)[:, None]
        >>> grown = [chain.at(X[:n], X[:n, 0] ** 2) for n in range(1, 6)][-1]
        >>> fresh = RefitChain(GaussianProcess(), Columns.of_decisions("x"), Transform.RAW)
        >>> rebuilt = fresh.at(X, X[:, 0] ** 2)
        >>> bool(np.all(grown.posterior(X).mean == rebuilt.posterior(X).mean))
        True
    """

    def __init__(
        self,
        surrogate: Surrogate[Fitted],
        columns: Columns,
        targets: Callable[[Array], Array],
        max_rows: int = _MAX_ROWS,
        chained: int | None = CHAINED,
        fresh: int = 0,
        taught: int | None = None,
        representatives: Representatives | None = None,
    ) -> None:
        self._surrogate, self._columns, self._targets = surrogate, columns, targets
        self._max_rows, self._chained, self._fresh = max_rows, chained, fresh
        self._taught = taught
        self._representatives = representatives or Representatives(columns)
        self._learned: dict[int, Array] = {}  # theta by count
        self._predictor: Fitted | None = None
        self._built_at = 0  # rows
        self._size = 0
        self.rows: IntArray = np.zeros(0, dtype=np.intp)
        self.fallbacks = 0
        self.read = 0
        self._evidence = 0, 0.0  # a count, and the log marginal likelihood of its rows

    def at(self, X: Array, y: Array) -> Fitted:
        """Return the predictor after all rows; the attribute `rows` holds those it is built from.

        Args:
            X: n x d, n >= 1, every row told so far, in order.
            y: `(n,)`, losses of the rows.

        Raises:
            NumericalError: If no fit can be built.
        """
        n = len(y)
        if n == self._size and self._predictor is not None:
            return self._predictor
        targets = self._targets(y)
        count = refits_up_to(n)[-1]
        built = n - (n - count) % _MOST_FRESH
        if built > self._built_at:
            self.rows = self._representatives.among(X, y, built, count=self._max_rows)
            kept = self._data(X, y, built, self._max_rows)
            self._predictor = self._built(kept, X, y, count)
            self._built_at = self._size = built
        assert self._predictor is not None  # the first count is 1
        fresh = np.arange(self._size, n)
        self.rows = np.concatenate([self.rows, fresh])
        grown = self._predictor.condition(X[fresh], targets[fresh])
        self._predictor, self._size = grown.with_targets(targets[self.rows]), n
        return self._predictor

    def snapshot(self) -> RefitChain[Fitted]:
        """Return a copy that later rows do not change.

        Both share the hyperparameters that either learns later: those are a function of the first
        rows of one log.
        """
        return copy.copy(self)

    def theta(self, X: Array, y: Array, count: int) -> Array:
        """Return the hyperparameters in use from `count` rows until the next count.

        Args:
            X: n x d, n >= count, rows in the order they were told.
            y: `(n,)`, losses of the rows.
            count: Number of rows, one of the counts of `refits_up_to`.
        """
        counts = refits_up_to(count)
        wanted = self._place(counts, len(counts) - 1)
        missing, place = [], wanted
        while place >= 0 and counts[place] not in self._learned:
            missing.append(place)
            place = -1 if self._is_fresh(counts, place) else self._before(counts, place)
        for place in reversed(missing):
            rows = counts[place]
            warm = self._start(X, y, counts, place)
            cold = warm is None or self._cold(counts, place)
            data = self._data(X, y, rows, self._taught)
            self._learned[rows] = self._surrogate.learn(data, warm, cold)
        return self._learned[counts[wanted]]

    def evidence(self, X: Array, y: Array) -> float:
        """Return the log marginal likelihood of the first rows, up to `EVIDENCE_ROWS`.

        Args:
            X: n x d, rows in the order they were told.
            y: `(n,)`, losses of the rows.

        Raises:
            NumericalError: If the model cannot be built.
        """
        count = refits_up_to(min(len(y), EVIDENCE_ROWS))[-1]
        if count != self._evidence[0]:
            data = self._data(X, y, count)
            model = self._surrogate.predictor(data, self.theta(X, y, count))
            self._evidence = count, model.log_evidence()
        return self._evidence[1]

    def _start(self, X: Array, y: Array, counts: list[int], place: int) -> Array | None:
        """Return the hyperparameters from which the fit at `place` starts; None is the prior."""
        if not self._is_fresh(counts, place):
            return self._learned[counts[self._before(counts, place)]]
        count = counts[place]
        if count <= _COARSE:
            return None
        return self._surrogate.learn(self._data(X, y, count, _COARSE))

    def _data(self, X: Array, y: Array, n: int, most: int | None = None) -> TrainingData:
        """Return the first `n` rows with their targets, or at most so many that represent them."""
        targets = self._targets(y[:n])
        if most is None or n <= most:
            return TrainingData(X[:n], targets, self._columns)
        rows = self._representatives.among(X, y, n, count=most)
        return TrainingData(X[rows], targets[rows], self._columns)

    def _is_fresh(self, counts: list[int], place: int) -> bool:
        """Return whether the fit at `place` is a function of its rows alone."""
        count = counts[place]
        if place == 0 or count <= max(self.read, self._fresh):
            return True
        return not self._is_chained(count) and place // _LEARN_EVERY % _FRESH_EVERY == 0

    def _is_chained(self, count: int) -> bool:
        return self._chained is None or count <= self._chained

    def _place(self, counts: list[int], place: int) -> int:
        """Return the place in `counts` where the hyperparameters in use at `place` were learned."""
        while not (self._is_chained(counts[place]) or place % _LEARN_EVERY == 0):
            place -= 1
        return place

    def _before(self, counts: list[int], place: int) -> int:
        """Return the place of the fit from which the one at `place` starts if it is not fresh."""
        return place - 1 if self._is_chained(counts[place]) else self._place(counts, place - 1)

    def _cold(self, counts: list[int], place: int) -> bool:
        """Return whether the fit at `place`, which starts from another, starts from the prior too.

        One that starts afresh has done so on the rows that represent its own.
        """
        count = counts[place]
        if not self._is_chained(count) or count <= self.read:
            return False
        return count <= _COLD_UNTIL or place % _COLD_EVERY == 0

    def _built(self, data: TrainingData, X: Array, y: Array, count: int) -> Fitted:
        """Build the predictor; on a numerical fault use the fit before, and count it."""
        theta = self.theta(X, y, count)
        try:
            return self._surrogate.predictor(data, theta)
        except NumericalError:
            counts = refits_up_to(count)
            start = self._start(X, y, counts, self._place(counts, len(counts) - 1))
            if start is None:
                raise
            self.fallbacks += 1
            return self._surrogate.predictor(data, start)
