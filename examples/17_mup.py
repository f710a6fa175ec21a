"""muP: one learning rate for all widths, and a check that the code does what muP asks.

    python examples/17_mup.py

`rescale_` sets the initial weights, and `parameter_groups` the learning rates. From a shell, the
check is `scaletune coord-check`.
"""

import torch
from sklearn.datasets import load_digits
from torch.nn import Linear, ReLU, Sequential
from torch.nn.functional import cross_entropy

from hpo.training.coordinate_check import coordinate_check, transformer_probe
from hpo.training.optimizers import AdamW
from hpo.training.parametrization import MUP, STANDARD, ParameterLayout, Parametrization, rescale_
from hpo.training.parametrization import parameter_groups as groups_of

x, y = map(torch.tensor, load_digits(return_X_y=True))
x = x.float() / 16


def build(width: int) -> Sequential:
    """Return a perceptron with two hidden layers."""
    middle = Linear(width, width)
    return Sequential(Linear(64, width), ReLU(), middle, ReLU(), Linear(width, 10))


LAYOUT = ParameterLayout.of(build(32), build(64))  # shapes that differ tell which sizes grow


def loss(width: int, lr: float, parametrization: Parametrization) -> float:
    """Return the loss of the last 500 digits after 60 updates on the others."""
    torch.manual_seed(0)
    model, rule = build(width), AdamW(lr)
    rescale_(model, LAYOUT, parametrization)
    (optimizer,) = rule.build(groups_of(model, LAYOUT, parametrization, rule))
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, 60)
    for _ in range(60):
        batch = torch.randint(1297, (64,))
        optimizer.zero_grad()
        cross_entropy(model(x[batch]), y[batch]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        decay.step()
    return cross_entropy(model(x[1297:]), y[1297:]).item()


if __name__ == "__main__":
    rates = [2.0**power for power in range(-9, -2)]
    for name, rule in (("muP", MUP), ("standard", STANDARD)):
        best = min(rates, key=lambda lr: loss(32, lr, rule))
        print(f"{name}: best lr at width 32 is {best:.4f}; with it, width 1024 has")
        narrow, wide = loss(32, best, rule), loss(1024, best, rule)
        print(f"    loss {wide:.2f}, that of width 32 has {narrow:.2f}")
    check = coordinate_check(transformer_probe(MUP, AdamW(1e-2)), [64, 128, 256], seeds=2)
    print(f"coordinate check of the built-in transformer: passed is {check.passed}")
