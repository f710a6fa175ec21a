"""The calibration benchmark: noise families, a single run, the table."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import peers, tasks
from benchmarks.experiments.calibration import FAMILIES, one, table
from benchmarks.peers.base import FullRuns

CONFIG = {"x0": 10.0, "x1": 3.0}


def test_noise_grows_along_the_first_parameter_and_keeps_the_true_loss():
    task = tasks.load("synthetic/branin-0+hetero=0.1")
    spread = task.bounds.worst - task.bounds.best
    sds = []
    for x in (-5.0, 10.0):
        runs = [
            task.evaluate({**CONFIG, "x0": x}, None, np.random.default_rng(i)) for i in range(300)
        ]
        sds.append(np.std([run.loss for run in runs]) / spread)
        assert len({run.true_loss for run in runs}) == 1
    assert sds == pytest.approx([0.005, 0.1], rel=0.2)


def test_a_tenth_of_the_runs_stray_upwards():
    task = tasks.load("synthetic/branin-0+outliers=0.1")
    runs = [task.evaluate(CONFIG, None, np.random.default_rng(i)) for i in range(500)]
    off = np.array([run.loss - run.true_loss for run in runs])
    spread = task.bounds.worst - task.bounds.best
    assert np.mean(off > 0.0) == pytest.approx(0.1, abs=0.04)
    assert np.all(off[off > 0.0] >= spread)


@pytest.mark.parametrize("wrapper", ["hetero=-1", "outliers=1"])
def test_impossible_shares_are_refused(wrapper):
    with pytest.raises(ValueError, match="must"):
        tasks.load(f"synthetic/branin-0+{wrapper}")


class Fixed(FullRuns):
    """A method that proposes given configs in order."""

    def __init__(self, configs):
        super().__init__()
        self.configs = configs

    def suggest(self, number):
        return self.configs[number] if number < len(self.configs) else None

    def tell(self, job, evaluation):
        pass


def test_one_study_scores_the_best_visited_config_by_its_loss_without_noise(monkeypatch):
    plain = tasks.load("synthetic/branin-0")
    shift = np.random.default_rng(0).uniform(-1.5, 1.5, size=2)  # as in the problem's definition
    optimum = {"x0": np.pi + shift[0], "x1": 2.275 + shift[1]}

    def scored(*configs):
        monkeypatch.setattr(peers, "make", lambda *names, **given: Fixed(configs))
        return one("any", "synthetic/branin-0+outliers=0.9", 0, 5)[0]

    assert scored(CONFIG, optimum, CONFIG) == pytest.approx(0.0, abs=1e-9)
    alone = plain.bounds.regret(plain.evaluate(CONFIG, None, np.random.default_rng(0)).loss)
    assert scored(CONFIG) == pytest.approx(alone) and alone > 0.001


@pytest.mark.parametrize("method", ["scaletune-gp", "scaletune-quantile"])
def test_a_member_alone_gets_close_to_the_optimum_despite_outliers(method):
    # Three random configs are further away than this in half of all seeds.
    regret, _ = one(method, "synthetic/branin-0+outliers=0.1", 0, 14)
    assert regret < 0.05


def test_the_table_compares_auto_with_the_better_member_run_by_run():
    template = FAMILIES["FCNet"][0]
    done = {
        ("scaletune", template, 0, 100): 0.02,
        ("scaletune-gp", template, 0, 100): 0.01,
        ("scaletune-quantile", template, 0, 100): 0.04,
        ("syne-cqr", template, 0, 100): 0.08,
    }
    row = table(done, 100).splitlines()[-1]
    assert row.endswith("| 2.00 | 0.25 |")
