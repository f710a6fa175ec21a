"""Bridges to BoTorch: its models as predictors, Gaussian processes as its models, many objectives.

* `BoTorchPredictor` makes any fitted BoTorch model a `surrogates.base.Predictor`; `map_saas` fits
  one for many dimensions of which few matter.
* `GaussianModel` makes a `GPPredictor`, whatever its kernel, a BoTorch `Model`: posteriors come
  from NumPy, and derivatives are handed to autograd in closed form.
* `HypervolumeImprovement` scores rows by qLogNEHVI over any number of such processes (loss, cost,
  latency, size).

Everything is in float64 on the CPU. Losses are minimized here and outcomes maximized in BoTorch:
models given to BoTorch are negated, which `HypervolumeImprovement` does by itself.

Notation: `X` m x d rows; tensors of BoTorch are `batch x q x d`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np
import torch
from botorch.models.model import Model
from botorch.posteriors.gpytorch import GPyTorchPosterior
from gpytorch.distributions import MultivariateNormal
from gpytorch.likelihoods import FixedNoiseGaussianLikelihood

from surrogates.base import JointPosterior, Posterior, PosteriorGradient, Rescaled
from surrogates.data import Array, TrainingData
from surrogates.gp import GPPredictor
from surrogates.transforms import location_scale

if TYPE_CHECKING:
    from botorch.acquisition.logei import qLogNoisyExpectedImprovement
    from botorch.acquisition.multi_objective.logei import (
        qLogNoisyExpectedHypervolumeImprovement,
    )

Tensor = torch.Tensor
_SMALLEST_VARIANCE = 1e-14
_TOGETHER = 256  # rows scored at a time: their joint posterior is a matrix of all of them
_RIDGE = 1e-8  # of the prior variance, on joint covariances: BoTorch factorizes them


def tensor(values: Array) -> Tensor:
    """Return a float64 copy of `values` as a tensor.

    Args:
        values: array of any shape.

    Example:
        >>> tensor(np.zeros(2)).dtype
        torch.float64
    """
    return torch.tensor(values, dtype=torch.float64)


@dataclass(frozen=True, slots=True)
class BoTorchPredictor:
    """A fitted BoTorch model of one outcome, smaller is better, as a predictor.

    Ensembles and fully Bayesian models are read by the mean and variance of their mixture.

    Args:
        model: fitted model with one outcome, in float64.
        numeric: columns whose derivatives are meaningful; the others get zero.

    Example:
        >>> from botorch.models import SingleTaskGP
        >>> X = np.linspace(0.0, 1.0, 5)[:, None]
        >>> noise = tensor(np.full((5, 1), 1e-4))
        >>> model = SingleTaskGP(tensor(X), tensor(X - 0.5), noise).eval()
        >>> BoTorchPredictor(model, (0,)).posterior(X).mean.shape
        (5,)
    """

    model: Model
    numeric: tuple[int, ...]

    @property
    def noise_variance(self) -> float:
        """Variance that observation noise adds at the origin.

        Homoscedastic models have it everywhere.
        """
        d = self._training_rows().shape[-1]
        row = torch.zeros(1, 1, d, dtype=torch.float64)
        with torch.no_grad():
            noisy = self.model.posterior(row, observation_noise=True)
            _, with_noise = _mixture(noisy, self._is_mixture)
            _, without = _mixture(self.model.posterior(row), self._is_mixture)
        return max(float((with_noise - without).squeeze()), 0.0)

    def posterior(self, X: Array) -> Posterior:
        """Return the marginal posterior at the rows of `X`."""
        with torch.no_grad():
            mean, variance = self._marginals(tensor(X))
        return Posterior(mean.numpy(), np.maximum(variance.numpy(), _SMALLEST_VARIANCE))

    def posterior_gradient(self, X: Array) -> PosteriorGradient:
        """Return the marginal posterior at the rows of `X` with its derivatives."""
        rows = tensor(X).requires_grad_()
        mean, variance = self._marginals(rows)
        # rows do not influence each other, so the gradient of the sum is each row's own
        (by_mean,) = torch.autograd.grad(mean.sum(), rows, retain_graph=True)
        (by_variance,) = torch.autograd.grad(variance.sum(), rows)
        keep = np.zeros(X.shape[1])
        keep[list(self.numeric)] = 1.0
        return PosteriorGradient(
            mean.detach().numpy(),
            np.maximum(variance.detach().numpy(), _SMALLEST_VARIANCE),
            by_mean.numpy() * keep,
            by_variance.numpy() * keep,
        )

    def joint_posterior(self, X: Array) -> JointPosterior:
        """Return the joint posterior at the rows of `X`."""
        with torch.no_grad():
            posterior = cast(Any, self.model.posterior(tensor(X)))
            mean = posterior.distribution.mean
            covariance = posterior.distribution.covariance_matrix
            if self._is_mixture:
                center = mean.mean(dim=0)
                away = mean - center
                covariance = covariance.mean(dim=0) + away.T @ away / len(mean)
                mean = center
        return JointPosterior(mean.numpy(), covariance.numpy())

    def condition(self, X: Array, y: Array) -> Self:
        """Return the predictor given further rows, hyperparameters unchanged."""
        model = cast(Any, self.model)
        noise = {}
        if isinstance(model.likelihood, FixedNoiseGaussianLikelihood):  # wants it for every row
            noise["noise"] = torch.full((len(y), 1), self.noise_variance, dtype=torch.float64)
        with torch.no_grad():
            model.posterior(tensor(X[:1]))  # fills the caches that conditioning extends
            grown = model.condition_on_observations(tensor(X), tensor(y)[:, None], **noise)
        return type(self)(grown, self.numeric)

    @property
    def _is_mixture(self) -> bool:
        return bool(getattr(self.model, "_is_ensemble", False))

    def _training_rows(self) -> Tensor:
        return cast(Tensor, cast(Any, self.model).train_inputs[0])

    def _marginals(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and variance at rows `m x d`, `(m,)` each."""
        posterior = self.model.posterior(rows.unsqueeze(-2))  # q = 1: no m x m covariance
        mean, variance = _mixture(posterior, self._is_mixture)
        return mean.reshape(-1), variance.reshape(-1)


def _mixture(posterior: Any, is_mixture: bool) -> tuple[Tensor, Tensor]:
    """Return mean and variance of a posterior or of a mixture of posteriors.

    The members of an ensemble lie along the third dimension from the end.
    """
    mean, variance = posterior.mean, posterior.variance
    if not is_mixture:
        return mean, variance
    center = mean.mean(dim=-3)
    return center, variance.mean(dim=-3) + mean.var(dim=-3, unbiased=False)


def map_saas(data: TrainingData) -> Rescaled:
    """Fit an ensemble of Gaussian processes under sparse axis-aligned priors (MAP).

    For many columns of which few matter: a half-Cauchy prior switches columns off (SAASBO, Eriksson
    & Jankowiak 2021), at several strengths. It takes seconds per fit, where
    `surrogates.gp.GaussianProcess` takes tens of milliseconds. Codes of categorical columns are
    read as numbers.

    Args:
        data: n >= 2 rows.

    Returns:
        A predictor in the units of the losses.

    Raises:
        ValueError: with a single row.

    Example:
        >>> from surrogates.data import Columns
        >>> data = TrainingData(np.zeros((1, 1)), np.zeros(1), Columns.of_decisions("x"))
        >>> try:
        ...     map_saas(data)
        ... except ValueError as error:
        ...     print(error)
        map_saas needs two rows, got 1; tell more runs first
    """
    from botorch.fit import fit_gpytorch_mll
    from botorch.models.map_saas import EnsembleMapSaasSingleTaskGP
    from gpytorch.mlls import ExactMarginalLogLikelihood

    if len(data) < 2:
        raise ValueError(f"map_saas needs two rows, got {len(data)}; tell more runs first")
    location, scale = location_scale(data.y)
    model = EnsembleMapSaasSingleTaskGP(
        tensor(data.X), tensor((data.y - location) / scale)[:, None], outcome_transform=None
    )
    fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
    predictor = BoTorchPredictor(model, tuple(data.columns.numeric.tolist()))
    return Rescaled(predictor, location, scale)


class _Joint(torch.autograd.Function):
    """Joint mean `(q,)` and covariance `q x q` of a Gaussian process at rows `q x d`.

    With `A = K^-1 k(T, X)` over the training rows T::

        d cov_ij / dx_i = dk(x_i, x_j) - dk(x_i, T) A_j      (i != j; twice that at i = j)
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, predictor: GPPredictor) -> tuple[Tensor, Tensor]:
        X = rows.detach().numpy()
        joint = predictor.joint_posterior(X)
        ctx.predictor = predictor
        ctx.save_for_backward(rows)
        return tensor(joint.mean), tensor(joint.covariance)

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, None]:
        by_mean, by_covariance = (part.numpy() for part in outputs)
        (rows,) = ctx.saved_tensors
        X, predictor = rows.detach().numpy(), cast(GPPredictor, ctx.predictor)
        k, dk = predictor.kernel.cross_gradient(X, predictor.X)
        d_mean = predictor.prior_mean.gradient(X) + np.einsum("qnd,n->qd", dk, predictor.weights)
        _, own = predictor.kernel.cross_gradient(X, X)  # q x q x d
        own[np.arange(len(X)), np.arange(len(X))] = 0.5 * predictor.kernel.diagonal_gradient(X)
        slope = own - np.einsum("qnd,nj->qjd", dk, predictor.factor.solve(k.T))
        both = by_covariance + by_covariance.T
        gradient = by_mean[:, None] * d_mean + np.einsum("qj,qjd->qd", both, slope)
        return tensor(gradient), None


class GaussianModel(Model):
    """A Gaussian process of this package as a BoTorch `Model` of one outcome.

    Args:
        predictor: Gaussian process, or one rescaled to other units.
        negated: whether to give BoTorch minus the outcome, which it then maximizes.

    Raises:
        TypeError: if the predictor is not a Gaussian process.

    Example:
        >>> from surrogates.data import Columns
        >>> from surrogates.gp import GaussianProcess
        >>> X = np.array([[0.0], [0.5], [1.0]])
        >>> data = TrainingData(X, np.array([1.0, -2.0, 1.0]), Columns.of_decisions("x"))
        >>> model = GaussianModel(GaussianProcess().fit(data), negated=True)
        >>> model.posterior(tensor(X)).mean.shape
        torch.Size([3, 1])
    """

    def __init__(self, predictor: GPPredictor | Rescaled, *, negated: bool = False) -> None:
        super().__init__()
        scale, location = 1.0, 0.0
        inner: Any = predictor
        while isinstance(inner, Rescaled):
            location, scale = location + scale * inner.location, scale * inner.scale
            inner = inner.predictor
        if not isinstance(inner, GPPredictor):
            raise TypeError(
                f"`predictor` must be a Gaussian process, got {type(inner).__name__};"
                " BoTorch's own models need no bridge"
            )
        sign = -1.0 if negated else 1.0
        self._predictor = inner
        self._location, self._scale = sign * location, sign * scale

    @property
    def num_outputs(self) -> int:
        """Number of outcomes, 1."""
        return 1

    @property
    def batch_shape(self) -> torch.Size:
        """Batch shape of the model, empty."""
        return torch.Size([])

    def posterior(
        self,
        X: Tensor,
        output_indices: list[int] | None = None,
        observation_noise: bool | Tensor = False,
        posterior_transform: Any = None,
    ) -> Any:
        """Return the joint posterior at `X` `batch x q x d`, differentiable in it."""
        q = X.shape[-2]
        batch = X.reshape(-1, q, X.shape[-1])
        if X.requires_grad or len(batch) == 1:
            parts = [
                _Joint.apply(rows, self._predictor)  # type: ignore[no-untyped-call]
                for rows in batch
            ]
        else:
            parts = self._sharing_rows(batch)
        mean = torch.stack([part[0] for part in parts]).reshape(X.shape[:-1])
        covariance = torch.stack([part[1] for part in parts]).reshape(*X.shape[:-1], q)
        prior = float(np.max(self._predictor.kernel.diagonal(self._predictor.X)))
        ridge = _RIDGE * prior
        if observation_noise is not False:
            ridge += self._predictor.noise_variance
        covariance = covariance + ridge * torch.eye(q, dtype=torch.float64)
        posterior = GPyTorchPosterior(
            MultivariateNormal(self._location + self._scale * mean, self._scale**2 * covariance)
        )
        return posterior if posterior_transform is None else posterior_transform(posterior)

    def _sharing_rows(self, batch: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return mean and covariance of each `q x d` of a batch, from one joint posterior.

        Most rows of an acquisition's batch are those of its baseline, the same in all of it.
        """
        rows, place = np.unique(
            batch.reshape(-1, batch.shape[-1]).numpy(), axis=0, return_inverse=True
        )
        joint = self._predictor.joint_posterior(rows)
        return [
            (tensor(joint.mean[at]), tensor(joint.covariance[np.ix_(at, at)]))
            for at in place.reshape(batch.shape[:-1])
        ]


def _stay_with_python() -> None:
    """Tell BoTorch that compiling its kernel was already tried: it compiles unasked."""
    from botorch.acquisition.multi_objective import logei

    if hasattr(logei, "_load_attempted"):
        logei._load_attempted = True


def _first(outcomes: Tensor, X: Tensor | None = None) -> Tensor:
    """Return the first outcome."""
    return outcomes[..., 0]


def _excess(outcomes: Tensor, *, outcome: int, limit: float) -> Tensor:
    """Return how far a negated outcome is above its limit: at most 0 where it is kept."""
    return -outcomes[..., outcome] - limit


@dataclass(frozen=True, slots=True)
class HypervolumeImprovement:
    """`qLogNEHVI` of single rows: a term of a log acquisition over any number of objectives.

    It is the volume that a run is expected to add to what the front dominates, with the noise of
    the front integrated out (Daulton, Balandat & Bakshy 2021; Ament et al. 2023). Under constraints
    it is weighed by the probability that they hold, and only rows where they do are on the front.
    For a single objective under constraints the improvement takes the place of the volume
    (`qLogNEI`). Build it with `of`; it has `value` and `gradient` as every acquisition term of the
    engine.

    Args:
        acquisition: BoTorch's acquisition function.
        numeric: columns whose derivatives are meaningful.

    Example:
        >>> from surrogates.data import Columns
        >>> from surrogates.kernels import MaternHamming
        >>> kernel = MaternHamming.from_theta(Columns.of_decisions("x"), np.log([1.0, 0.5]))
        >>> X = np.array([[0.0], [1.0]])
        >>> pair = [GPPredictor.build(kernel, X, y, 1e-3) for y in (X[:, 0], 1.0 - X[:, 0])]
        >>> rng = np.random.default_rng(0)
        >>> term = HypervolumeImprovement.of(pair, X, np.full(2, 2.0), numeric=(0,), rng=rng)
        >>> between, seen = term.value(np.array([[0.5], [0.0]]))
        >>> bool(between > seen)
        True
    """

    acquisition: qLogNoisyExpectedHypervolumeImprovement | qLogNoisyExpectedImprovement
    numeric: tuple[int, ...]

    @classmethod
    def of(
        cls,
        predictors: Sequence[GPPredictor | Rescaled],
        X: Array,
        reference: Array,
        *,
        numeric: tuple[int, ...],
        limits: Sequence[tuple[GPPredictor | Rescaled, float]] = (),
        pending: Array | None = None,
        samples: int = 64,
        compiled: bool = False,
        rng: np.random.Generator,
    ) -> Self:
        """Build the term from one process per objective, smaller is better in all.

        Args:
            predictors: two processes at least; one is enough under limits.
            X: `n x d`, rows whose front is to be improved.
            reference: `(objectives,)`, values so bad that nothing beyond them counts.
            numeric: columns whose derivatives are meaningful.
            limits: process of each constrained value, and the largest value that is allowed.
            pending: `p x d`, rows of runs that are still running.
            samples: number of samples of the joint posterior, a power of two.
            compiled: whether BoTorch may compile its faster kernel when it is first used in an
                environment. That takes a C++ compiler and minutes, and waits for ever where a
                process was killed in it.
            rng: source of the seeds of the samples.

        Raises:
            ValueError: for a single objective without limits or a reference of another length.
        """
        from botorch.acquisition.logei import qLogNoisyExpectedImprovement
        from botorch.acquisition.multi_objective.logei import (
            qLogNoisyExpectedHypervolumeImprovement,
        )
        from botorch.acquisition.multi_objective.objective import IdentityMCMultiOutputObjective
        from botorch.acquisition.objective import GenericMCObjective
        from botorch.models.model import ModelList
        from botorch.sampling.list_sampler import ListSampler
        from botorch.sampling.normal import SobolQMCNormalSampler

        if len(predictors) < 2 and not limits:
            raise ValueError("hypervolume needs two objectives, got one; use its improvement alone")
        if reference.shape != (len(predictors),):
            raise ValueError(
                f"`reference` must have one value an objective, ({len(predictors)},),"
                f" got {reference.shape}"
            )
        if not compiled:
            _stay_with_python()
        processes = [*predictors, *(process for process, _ in limits)]
        models = ModelList(*[GaussianModel(one, negated=True) for one in processes])
        samplers = [
            SobolQMCNormalSampler(torch.Size([samples]), seed=int(seed))
            for seed in rng.integers(2**31, size=len(processes))
        ]
        count = len(predictors)
        shared: dict[str, Any] = {
            "X_baseline": tensor(X),
            "sampler": ListSampler(*samplers),
            "X_pending": None if pending is None or not len(pending) else tensor(pending),
            "constraints": [
                partial(_excess, outcome=count + j, limit=limit)
                for j, (_, limit) in enumerate(limits)
            ]
            or None,
            "prune_baseline": True,
            "cache_root": False,  # needs GPyTorch's own caches, which a NumPy posterior has not
        }
        if count == 1:
            first = GenericMCObjective(_first)
            return cls(qLogNoisyExpectedImprovement(models, objective=first, **shared), numeric)
        acquisition = qLogNoisyExpectedHypervolumeImprovement(
            models,
            ref_point=(-reference).tolist(),
            objective=IdentityMCMultiOutputObjective(list(range(count)), len(processes)),
            **shared,
        )
        return cls(acquisition, numeric)

    def value(self, X: Array) -> Array:
        """Return the log acquisition at the rows of `X`, `(m,)`."""
        with torch.no_grad():
            parts = [
                self.acquisition(tensor(X[start : start + _TOGETHER])[:, None, :]).numpy()
                for start in range(0, len(X), _TOGETHER)
            ]
        return np.concatenate(parts) if parts else np.zeros(0)

    def gradient(self, X: Array) -> tuple[Array, Array]:
        """Return values `(m,)` and derivatives `m x d`, zero in categorical columns."""
        rows = tensor(X).requires_grad_()
        value = self.acquisition(rows[:, None, :])
        (slope,) = torch.autograd.grad(value.sum(), rows)
        keep = np.zeros(X.shape[1])
        keep[list(self.numeric)] = 1.0
        return value.detach().numpy(), slope.numpy() * keep
