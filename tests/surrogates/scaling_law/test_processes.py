import numpy as np
import pytest

from surrogates.data import ColumnKind, Columns
from surrogates.kernels import MaternHamming
from surrogates.scaling_law.linearized import AlignedKernel, BowlKernel
from surrogates.scaling_law.model import ScalingModel
from surrogates.scaling_law.parametric_loss import ParametricLoss, ThetaLayout
from surrogates.scaling_law.prior import LossUnits, Reach
from surrogates.scaling_law.processes import ResidualShares, process_kernels, process_priors
from tests.surrogates.scaling_law.families import (
    LLM,
    LOW,
    MIXED,
    WIDTH,
    Family,
    mixed_rows,
    random_loss,
)

UNITS = LossUnits(3.0, 0.5)


def kernel_of(kind, columns, seed=0):
    rng = np.random.default_rng(seed)
    size = 1 + len(columns.numeric) + len(columns.categorical)
    base = MaternHamming.from_theta(columns, 0.3 * rng.standard_normal(size))
    loss = random_loss(columns, seed)
    return kind(base, loss, 0.15) if kind is BowlKernel else kind(base, loss)


def at_the_optimum(loss, X):
    X = X.copy()
    X[:, loss.layout.decisions] = loss.optimum_at(loss.layout.scales(X))
    return X


@pytest.mark.parametrize("kind", [AlignedKernel, BowlKernel])
@pytest.mark.parametrize("columns", [LLM, MIXED])
def test_kernel_gradients_match_finite_differences(kind, columns):
    kernel, rng = kernel_of(kind, columns), np.random.default_rng(1)
    d = len(columns.kinds)
    A, B = mixed_rows(5, rng)[:, :d], mixed_rows(6, rng)[:, :d]
    K, gradient = kernel.cross_gradient(A, B)
    np.testing.assert_allclose(K, kernel.cross(A, B), rtol=1e-12)
    slopes = kernel.diagonal_gradient(A)
    for j in columns.numeric:
        shift = 1e-6 * np.eye(d)[j]
        numeric = (kernel.cross(A + shift, B) - kernel.cross(A - shift, B)) / 2e-6
        np.testing.assert_allclose(gradient[:, :, j], numeric, rtol=1e-5, atol=1e-6)
        numeric = (kernel.diagonal(A + shift) - kernel.diagonal(A - shift)) / 2e-6
        np.testing.assert_allclose(slopes[:, j], numeric, rtol=1e-5, atol=1e-6)
    assert not gradient[:, :, columns.categorical].any()


@pytest.mark.parametrize("kind", [AlignedKernel, BowlKernel])
def test_kernels_are_covariances_with_the_diagonal_they_name(kind):
    kernel, X = kernel_of(kind, MIXED), mixed_rows(25, np.random.default_rng(2))
    K = kernel.cross(X, X)
    np.testing.assert_allclose(K, K.T, rtol=1e-12)
    np.testing.assert_allclose(np.diagonal(K), kernel.diagonal(X), rtol=1e-9, atol=1e-12)
    assert np.linalg.eigvalsh(K).min() > -1e-9 * np.trace(K)


def test_an_aligned_kernel_sees_only_the_place_relative_to_the_optimum():
    kernel, rng = kernel_of(AlignedKernel, LLM), np.random.default_rng(3)
    A = rng.random((4, 4))
    B = A.copy()
    B[:, 2:] = rng.random((4, 2))
    loss = kernel.loss
    B[:, :2] += loss.optimum_at(loss.layout.scales(B)) - loss.optimum_at(loss.layout.scales(A))
    still = A.copy()
    still[:, 2:] = B[:, 2:]
    # of the two only the moved row is where the base kernel has it
    far = A[:, 2:] - B[:, 2:]
    lengths = np.exp(kernel.base.log_lengths[2:])
    r = np.sqrt(5.0 * np.sum((far / lengths) ** 2, axis=1))
    expected = np.exp(kernel.base.log_variance) * (1.0 + r + r**2 / 3.0) * np.exp(-r)
    np.testing.assert_allclose(np.diagonal(kernel.cross(A, B)), expected, rtol=1e-9)
    assert np.all(np.diagonal(kernel.cross(A, still)) < expected)


# --- the bowl process


def test_at_the_optimum_the_bowl_process_has_no_variance_and_no_slope():
    kernel, rng = kernel_of(BowlKernel, MIXED), np.random.default_rng(4)
    best, X = at_the_optimum(kernel.loss, mixed_rows(6, rng)), mixed_rows(9, rng)
    np.testing.assert_allclose(kernel.diagonal(best), 0.0, atol=1e-15)
    np.testing.assert_allclose(kernel.diagonal_gradient(best), 0.0, atol=1e-12)
    K, gradient = kernel.cross_gradient(best, X)
    np.testing.assert_allclose(K, 0.0, atol=1e-12)
    np.testing.assert_allclose(gradient, 0.0, atol=1e-9)


def test_whatever_the_bowl_process_learns_the_optimum_stays_that_of_the_law():
    family = Family(0)
    predictor = ScalingModel().fit(family.runs(40))
    (bowl,) = [part for part in predictor.kernel.parts if isinstance(part, BowlKernel)]
    scales = np.random.default_rng(5).random((6, 4)) * 1.5
    best = at_the_optimum(predictor.loss, scales)
    learned = bowl.cross_gradient(best, predictor.X)
    np.testing.assert_allclose(learned[0] @ predictor.weights, 0.0, atol=1e-9)
    np.testing.assert_allclose(
        np.einsum("mnd,n->md", learned[1], predictor.weights), 0.0, atol=1e-6
    )
    # while elsewhere it may say much
    away = best + np.array([0.3, 0.0, 0.0, 0.0])
    assert np.all(bowl.diagonal(away) > 1e-6)


# --- which processes a space has


def columns_of(*kinds):
    return Columns(
        tuple(ColumnKind(kind) for kind in kinds),
        tuple("abcdef")[: len(kinds)],
        np.zeros(len(kinds)),
        np.ones(len(kinds)),
        tuple(3 if kind == "categorical" else 0 for kind in kinds),
    )


def parts_of(columns, X, shares=None):
    layout = ThetaLayout.of(columns, 28)
    loss = ParametricLoss(layout, layout.origin, 0.3 * np.ones(layout.size))
    reach = Reach.of(columns, X[:0], np.zeros(0))
    return loss, process_priors(shares or ResidualShares(), loss, columns, X, UNITS, reach)


@pytest.mark.parametrize(
    ("kinds", "numbers"),
    [
        (("decision", "scale"), [2, 2, 1, 1]),  # g, h, q, r
        (("decision",), [1, 1]),
        (("categorical",), [0]),
        (("scale", "scale"), [2, 2]),
        (("categorical", "fidelity"), [1, 1, 1]),
    ],
)
def test_a_space_has_the_processes_it_can_have(kinds, numbers):
    columns = columns_of(*kinds)
    loss, parts = parts_of(columns, np.zeros((4, len(kinds))))
    assert [len(part.numeric) for part in parts] == numbers
    kernels = process_kernels(
        tuple(part.kernel(np.zeros(part.size)) for part in parts), loss, UNITS
    )
    assert len(kernels) == len(parts)
    assert sum(isinstance(kernel, BowlKernel) for kernel in kernels) == ("decision" in kinds)


def test_the_kernels_are_the_priors_processes_as_functions_of_the_rows():
    X = mixed_rows(12, np.random.default_rng(6))
    loss, parts = parts_of(MIXED, X)
    rng = np.random.default_rng(7)
    own = [part.kernel(0.3 * rng.standard_normal(part.size)) for part in parts]
    for part, base, kernel in zip(
        parts, own, process_kernels(tuple(own), loss, UNITS), strict=True
    ):
        K, _ = base.gram(part.X)
        if part.amplitude is not None:
            K = K * np.outer(part.amplitude, part.amplitude)
        np.testing.assert_allclose(kernel.cross(X, X), K, rtol=1e-9, atol=1e-12)


def test_prior_lengths_are_in_e_folds_and_sizes_in_spreads():
    natural = np.random.default_rng(8).random((5, 4))
    wide = Columns(LLM.kinds, LLM.names, LOW, 2.0 * WIDTH, (0,) * 4, (True,) * 4)
    shares = ResidualShares()
    (_, narrow), (_, wider) = (parts_of(columns, natural, shares) for columns in (LLM, wide))
    for one, other in zip(narrow[2:], wider[2:], strict=True):  # q and r
        for a, b in zip(one.lengths, other.lengths, strict=True):
            assert np.exp(a.mean) == pytest.approx(2.0 * np.exp(b.mean))
    sizes = [np.exp(0.5 * part.variance.mean) for part in narrow]
    assert sizes == pytest.approx(
        [
            shares.residual * UNITS.spread,
            shares.bowl,
            shares.scale * UNITS.spread,
            shares.shape * UNITS.spread,
        ]
    )
