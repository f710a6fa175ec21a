"""Names of columns: none is lost and no two are alike."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hpo.trials.table_columns import column_names

NAMES = st.lists(
    st.sampled_from(["loss", "x", "params_loss", "params_params_loss", "metrics_x", "metrics_loss"])
)


@given(ours=NAMES, params=NAMES, metrics=NAMES)
def test_every_name_has_one_column_and_no_two_columns_are_alike(
    ours: list[str], params: list[str], metrics: list[str]
) -> None:
    settings, measured = column_names(ours, params, metrics)
    assert set(settings) == set(params) and set(measured) == set(metrics)
    columns = [*set(ours), *settings.values(), *measured.values()]
    assert len(columns) == len(set(columns))


def test_a_name_that_is_free_stays_also_where_it_looks_like_a_renamed_one() -> None:
    settings, _ = column_names(["loss"], ["loss", "params_loss"])
    assert settings == {"loss": "params_params_loss", "params_loss": "params_loss"}
