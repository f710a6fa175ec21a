"""The training of the README and the tutorial: a perceptron that reads handwritten digits."""

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.nn import Linear, ReLU, Sequential
from torch.nn.functional import cross_entropy

UPDATES = 100
_images, _labels = load_digits(return_X_y=True)
x, x_val, y, y_val = train_test_split(
    torch.tensor(_images / 16).float(), torch.tensor(_labels), random_state=0
)


def train_digits(lr: float, width: int, seed: int = 0) -> float:
    """Return the validation loss of one training with AdamW and a linear decay.

    Args:
        lr: Learning rate.
        width: Width of the three hidden layers.
        seed: Seed of weights and batches.
    """
    torch.manual_seed(seed)
    hidden = [Linear(width, width), ReLU(), Linear(width, width), ReLU()]
    model = Sequential(Linear(64, width), ReLU(), *hidden, Linear(width, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, UPDATES)
    for _ in range(UPDATES):
        batch = torch.randint(len(x), (64,))
        optimizer.zero_grad()
        cross_entropy(model(x[batch]), y[batch]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        decay.step()
    return cross_entropy(model(x_val), y_val).item()
