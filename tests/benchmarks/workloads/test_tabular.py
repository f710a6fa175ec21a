"""The perceptron on tables: its counts, its data, and that it learns."""

import dataclasses

import pytest
import torch

from benchmarks.workloads.tabular import (
    Perceptron,
    PerceptronRecipe,
    PerceptronShape,
    SklearnTable,
    params_to_shape,
    rows,
    tabular_loss,
    tabular_trainer,
)
from hpo import ASHA, Budget, Fidelity, Float, Role, Scale, optimize
from hpo.diagnostics.resume_check import check_continuation
from hpo.training.accounting import count_work


@pytest.mark.parametrize(
    "shape",
    [PerceptronShape(30, 7, 2), PerceptronShape(10, 12, 1, depth=3), PerceptronShape(13, 5, 3)],
)
def test_parameters_and_flops_are_those_of_the_network(shape: PerceptronShape) -> None:
    model = Perceptron(shape)
    assert shape.parameters == sum(weight.numel() for weight in model.parameters())
    batch = (torch.zeros(4, shape.inputs), torch.zeros(4, dtype=torch.int64))
    counted = count_work(model, batch, tabular_loss)
    assert counted.flops == shape.training_flops


@pytest.mark.parametrize("n_params", [1_000, 3_333, 30_000, 1_000_000])
def test_a_shape_has_nearly_the_parameters_asked_for(n_params: int) -> None:
    assert params_to_shape(n_params).parameters == pytest.approx(n_params, rel=0.05)
    shape = params_to_shape(n_params, inputs=10, outputs=1)
    assert (shape.inputs, shape.outputs) == (10, 1)
    assert shape.parameters == pytest.approx(n_params, rel=0.05)


def test_no_neighboring_width_is_nearer() -> None:
    for n_params in range(37, 2_000, 61):
        shape = params_to_shape(n_params)
        for width in (max(1, shape.width - 1), shape.width + 1):
            other = dataclasses.replace(shape, width=width).parameters
            assert abs(shape.parameters - n_params) <= abs(other - n_params)


def test_too_few_parameters_are_refused() -> None:
    with pytest.raises(ValueError, match="at least the 37"):
        params_to_shape(36)


@pytest.mark.parametrize(
    ("table", "count", "columns", "outputs"),
    [
        (SklearnTable.BREAST_CANCER, 569, 30, 2),
        (SklearnTable.WINE, 178, 13, 3),
        (SklearnTable.DIABETES, 442, 10, 1),
    ],
)
def test_a_table_is_split_once_and_standardized_by_what_is_trained_on(
    table: SklearnTable, count: int, columns: int, outputs: int
) -> None:
    data = rows(table)
    assert data is rows(table)
    assert len(data.train_inputs) + len(data.validation_inputs) == count
    assert len(data.validation_targets) == round(0.25 * count)
    assert data.train_inputs.shape[1] == columns and data.outputs == outputs
    assert torch.allclose(data.train_inputs.mean(0), torch.zeros(columns), atol=1e-5)
    assert torch.allclose(data.train_inputs.std(0), torch.ones(columns), atol=1e-5)


@pytest.mark.parametrize(
    ("table", "guessing"),
    [(SklearnTable.BREAST_CANCER, 0.69), (SklearnTable.WINE, 1.10), (SklearnTable.DIABETES, 1.0)],
)
def test_it_learns_more_than_guessing(table: SklearnTable, guessing: float) -> None:
    found = tabular_trainer(table).train({"params": 2_000, "lr": 3e-3, "epochs": 8})
    assert found["loss"] < 0.75 * guessing
    assert found["params"] == pytest.approx(2_000, rel=0.05)
    assert ("error" in found) == (table is not SklearnTable.DIABETES)


def test_epochs_are_a_legal_fidelity() -> None:
    space = {"epochs": Fidelity(1, 4)}
    config = {"epochs": 4}
    trainer = tabular_trainer(SklearnTable.WINE)
    fixed = dataclasses.replace(
        trainer,
        make_model=lambda config, scale: trainer.make_model({**config, "params": 1e3}, scale),
        settings=lambda config: trainer.settings({**config, "params": 1e3, "dropout": 0.1}),
    )
    found = check_continuation(fixed, space, config)
    assert found.passed and found.resumed and found.difference == 0, str(found)


def test_a_search_over_sizes_and_epochs_runs() -> None:
    space = {
        "lr": Float(1e-4, 1e-1, log=True, role=Role.LR),
        "params": Scale(500, 5_000),
        "epochs": Fidelity(1, 3),
    }
    result = optimize(
        tabular_trainer(SklearnTable.WINE),
        space,
        budget=Budget(trials=4),
        cost="flops",
        target={"params": 5_000},
        scheduler=ASHA(),
    )
    assert result.best is not None and result.best.loss < 1.1


@pytest.mark.parametrize("name", ["lr", "batch_size", "epochs"])
def test_a_setting_out_of_range_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        PerceptronRecipe(**{name: 0})  # type: ignore[arg-type]


def test_a_config_that_names_something_else_is_refused() -> None:
    with pytest.raises(ValueError, match="momentum"):
        tabular_trainer().train({"params": 1e3, "momentum": 0.9})
    with pytest.raises(ValueError, match="params"):
        tabular_trainer().train({"lr": 1e-3})
