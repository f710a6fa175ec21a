"""Units of parameters: maps to natural values and back, for arrays and for single numbers."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpo import Categorical, Fidelity, Float, Int, Scale
from hpo.space import Parameter
from hpo.space.search_space import Unit

VALUES = {
    Unit.LINEAR: st.floats(-1e6, 1e6),
    Unit.LOG: st.floats(1e-300, 1e300),
    Unit.LOGIT: st.floats(1e-15, 1 - 1e-15),
}


@pytest.mark.parametrize("unit", Unit)
@given(st.data())
def test_from_natural_is_the_inverse_of_to_natural(unit: Unit, data: st.DataObject) -> None:
    values = np.array(data.draw(st.lists(VALUES[unit], min_size=1, max_size=4)))
    back = unit.from_natural(unit.to_natural(values))
    np.testing.assert_allclose(back, values, rtol=1e-12)


@pytest.mark.parametrize("unit", Unit)
@given(st.data())
def test_one_number_is_mapped_as_an_array_is(unit: Unit, data: st.DataObject) -> None:
    value = data.draw(VALUES[unit])
    (natural,) = unit.to_natural(np.array([value]))
    assert unit.natural_of(value) == pytest.approx(natural, rel=1e-12, abs=1e-15)
    (back,) = unit.from_natural(np.array([natural]))
    assert unit.value_of(natural) == pytest.approx(back, rel=1e-12)


@pytest.mark.parametrize("natural", [-1e300, 1e300])
@pytest.mark.parametrize("unit", Unit)
def test_far_natural_values_stay_finite(unit: Unit, natural: float) -> None:
    assert math.isfinite(unit.value_of(natural))
    assert np.isfinite(unit.from_natural(np.array([natural]))).all()


@pytest.mark.parametrize("unit", Unit)
def test_the_domain_is_where_natural_values_are_finite(unit: Unit) -> None:
    low, high = unit.domain
    inside = [max(low, -1e9) + 1e-6, min(high, 1e9) - 1e-6]
    assert all(math.isfinite(unit.natural_of(value)) for value in inside)
    if math.isfinite(low):
        with np.errstate(divide="ignore"):
            assert np.isinf(unit.to_natural(np.array([low]))).all()


@pytest.mark.parametrize(
    ("parameter", "unit", "label"),
    [
        (Float(0, 1), Unit.LINEAR, "x"),
        (Float(0.1, 1, log=True), Unit.LOG, "ln x"),
        (Float(0.1, 0.9, logit=True), Unit.LOGIT, "logit x"),
        (Int(1, 9), Unit.LINEAR, "x"),
        (Int(1, 9, log=True), Unit.LOG, "ln x"),
        (Categorical([1, 2, 4], ordered=True), Unit.LINEAR, "x"),
        (Scale(1e6, 1e8), Unit.LOG, "ln x"),
        (Fidelity(1, 9), Unit.LOG, "ln x"),
    ],
)
def test_every_kind_of_parameter_has_a_unit(parameter: Parameter, unit: Unit, label: str) -> None:
    assert parameter.unit is unit
    assert unit.label("x") == label


def test_the_middle_of_a_scale_axis_is_geometric() -> None:
    assert math.exp(Scale(1e6, 1e8).log_middle) == pytest.approx(1e7)
