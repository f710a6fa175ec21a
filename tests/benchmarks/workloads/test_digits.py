import dataclasses
import math
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.workloads.digits import (
    CLASSES,
    DigitsRecipe,
    MlpShape,
    NetworkShape,
    ResNetShape,
    digits,
    mlp_shape_for,
    resnet_shape_for,
    shifted,
    train_epochs,
    train_mlp,
    train_resnet,
)
from hpo.schedulers import Decision
from hpo.study.context import Context
from hpo.trials import Report, Trial

SHAPES = [MlpShape(7), MlpShape(12, depth=3), ResNetShape(4, 5), ResNetShape(3, 2, blocks=2)]
SMALL = [MlpShape(16), ResNetShape(3, 3)]
BUSY = DigitsRecipe(lr=3e-3, batch_size=100, dropout=0.2, shift=1, warmup=1.5, decay=0.5)


@dataclass
class Recorder:
    """A channel that lets every trial go on."""

    reports: list[Report] = field(default_factory=list)

    def send(self, report: Report) -> Decision:
        self.reports.append(report)
        return Decision.CONTINUE


def context(config: dict[str, Any]) -> tuple[Context, list[Report]]:
    channel = Recorder()
    trial = Trial(number=0, config=config, ask_index=0, prediction=None)
    return Context(trial, seed=0, channel=channel), channel.reports


@pytest.mark.parametrize("shape", SHAPES)
def test_parameters_are_those_of_the_network(shape: NetworkShape) -> None:
    model = shape.build(DigitsRecipe(), rng=torch.Generator())
    assert shape.parameters == sum(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize("shape", SHAPES)
def test_flops_match_those_that_torch_counts(shape: NetworkShape) -> None:
    images = 5
    model = shape.build(DigitsRecipe(), rng=torch.Generator())
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(images, 1, 8, 8)).sum().backward()
    assert counter.get_total_flops() == images * shape.training_flops


def test_flops_of_an_mlp_match_a_count_by_hand() -> None:
    # Weights 64 x 2, 2 x 2 and 2 x 10; forward, and backward to the weights; to the inputs of the
    # last two layers only.
    assert MlpShape(2).training_flops == 2 * (2 * (128 + 4 + 20) + (4 + 20))


@pytest.mark.parametrize("n_params", [1e3, 1700, 5e3, 3.3e4, 1e5, 1e6])
def test_shapes_come_near_the_parameters_asked_for(n_params: float) -> None:
    assert mlp_shape_for(n_params).parameters == pytest.approx(n_params, rel=0.05)
    assert resnet_shape_for(n_params).parameters == pytest.approx(n_params, rel=0.10)


@pytest.mark.parametrize("shape_for", [mlp_shape_for, resnet_shape_for])
def test_a_shape_is_found_again_from_its_own_parameters(shape_for: Any) -> None:
    for n_params in (700, 3e3, 4e4):
        shape = shape_for(n_params)
        assert shape_for(shape.parameters) == shape


@pytest.mark.parametrize("shape_for", [mlp_shape_for, resnet_shape_for])
@pytest.mark.parametrize("n_params", [0, 499, math.nan, math.inf])
def test_sizes_that_no_network_has_are_refused(shape_for: Any, n_params: float) -> None:
    with pytest.raises(ValueError, match="`n_params` must be"):
        shape_for(n_params)


@pytest.mark.parametrize("shape", SMALL)
def test_one_seed_is_one_run(shape: NetworkShape) -> None:
    first, again, other = (
        list(islice(train_epochs(shape, BUSY, seed=seed), 2)) for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other


def test_runs_neither_read_nor_change_the_global_stream() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = next(train_epochs(MlpShape(8), BUSY, seed=0))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert next(train_epochs(MlpShape(8), BUSY, seed=0)) == first


def test_an_untrained_network_guesses() -> None:
    crawling = dataclasses.replace(BUSY, lr=1e-12, warmup=0.0)
    for shape in SMALL:
        epoch = next(train_epochs(shape, crawling, seed=0))
        assert epoch.loss == pytest.approx(math.log(CLASSES), rel=1e-6)


@pytest.mark.parametrize(
    ("shape", "recipe", "epochs"),
    [
        (MlpShape(32), DigitsRecipe(lr=3e-3, batch_size=32), 10),
        (MlpShape(32), DigitsRecipe(optimizer="sgd", lr=0.1, batch_size=32), 10),
        (ResNetShape(8, 8), DigitsRecipe(lr=1e-2, batch_size=32), 6),
    ],
)
def test_networks_learn_digits_of_other_writers(
    shape: NetworkShape, recipe: DigitsRecipe, epochs: int
) -> None:
    *_, last = islice(train_epochs(shape, recipe, seed=0), epochs)
    assert last.error < 0.25  # guessing errs on 0.9, a good run on 0.05


def test_cost_grows_by_the_same_flops_every_epoch() -> None:
    shape = MlpShape(8)
    epochs = list(islice(train_epochs(shape, BUSY, seed=0), 3))
    per_epoch = len(digits().train_labels) * shape.training_flops
    assert [epoch.flops for epoch in epochs] == [per_epoch, 2 * per_epoch, 3 * per_epoch]
    assert [epoch.number for epoch in epochs] == [1, 2, 3]


def test_a_diverged_run_ends_there_and_keeps_its_cost() -> None:
    wild = DigitsRecipe(optimizer="sgd", lr=100.0, momentum=0.99, batch_size=100)
    epochs = list(islice(train_epochs(MlpShape(32), wild, seed=0), 10))
    assert len(epochs) < 10
    assert epochs[-1].diverged and math.isnan(epochs[-1].loss)
    assert epochs[-1].flops > 0
    assert not any(epoch.diverged for epoch in epochs[:-1])


def test_learning_rate_rises_in_a_line_and_falls_as_a_power() -> None:
    recipe = DigitsRecipe(lr=0.1, warmup=2.0, decay=0.5)
    assert recipe.learning_rate(1.0) == pytest.approx(0.05)
    assert recipe.learning_rate(2.0) == pytest.approx(0.1)
    assert recipe.learning_rate(5.0) == pytest.approx(0.05)
    assert DigitsRecipe(lr=0.1).learning_rate(40.0) == 0.1


def test_shifted_images_are_moved_by_whole_pixels() -> None:
    images = digits().train_images[:3]
    moved = shifted(images, 2)
    assert moved.shape == (3, 5, 5, 8, 8)
    assert torch.equal(moved[:, 2, 2], images)
    assert torch.equal(moved[:, 3, 1][:, :7, 1:], images[:, 1:, :7])
    assert torch.equal(shifted(images, 0)[:, 0, 0], images)


def test_the_halves_hold_all_digits_and_training_is_standardized() -> None:
    data = digits()
    assert len(data.train_labels) + len(data.validation_labels) == 1797
    assert float(data.train_images.mean()) == pytest.approx(0, abs=1e-5)
    assert float(data.train_images.std()) == pytest.approx(1, abs=1e-5)
    for labels in (data.train_labels, data.validation_labels):
        assert int(labels.bincount(minlength=CLASSES).min()) > 80


@pytest.mark.parametrize(
    ("train", "shape"), [(train_mlp, mlp_shape_for(600)), (train_resnet, resnet_shape_for(600))]
)
def test_a_trial_reports_every_epoch_and_returns_the_last(train: Any, shape: NetworkShape) -> None:
    config = {"params": 600, "epochs": 2, "lr": 3e-3, "batch_size": 200}
    ctx, reports = context(config)
    result = train(config, ctx)
    expected = list(islice(train_epochs(shape, DigitsRecipe(lr=3e-3, batch_size=200), seed=0), 2))
    assert [report.loss for report in reports] == [epoch.loss for epoch in expected]
    assert result["loss"] == expected[-1].loss
    assert result["cost"] == reports[-1].cost == expected[-1].flops
    assert result["params"] == shape.parameters
    assert result["seconds"] > 0


def test_a_trial_that_diverges_returns_nan_and_its_cost() -> None:
    config = {"params": 2e3, "epochs": 5, "optimizer": "sgd", "lr": 100.0, "momentum": 0.99}
    result = train_mlp(config, context(config)[0])
    assert math.isnan(result["loss"])
    assert result["cost"] > 0


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({"epochs": 1}, "`params`"),
        ({"params": 1e3}, "`epochs`"),
        ({"params": 1e3, "epochs": 1, "learning_rate": 0.1}, "learning_rate"),
        ({"params": 1e3, "epochs": 1, "dropout": 1.0}, "`dropout`"),
        ({"params": 1e3, "epochs": 1, "optimizer": "lion"}, "`optimizer`"),
        ({"params": 1e3, "epochs": 1, "lr": 0.0}, "`lr`"),
        ({"params": 1e3, "epochs": 1, "decay": -1.0}, "`decay`"),
        ({"params": 1e3, "epochs": 1, "shift": 8}, "`shift`"),
    ],
)
def test_wrong_settings_are_named(config: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        train_mlp(config, context(config)[0])


@pytest.mark.parametrize("sizes", [(0, 1), (1, 0)])
def test_shapes_without_units_are_refused(sizes: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="must be at least 1"):
        MlpShape(*sizes)
    with pytest.raises(ValueError, match="must be at least 1"):
        ResNetShape(*sizes)
