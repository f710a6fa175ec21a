"""Ask and tell: run the trials yourself, and see what the model expected of each.

    python examples/09_ask_tell.py

For a loop, queue or cluster of your own. Every trial carries a prediction made before it ran: loss,
cost, probability of success, and the reason why its config was proposed.
"""

import math

from hpo import Float, Int, Optimizer, SearchSpace

SPACE = SearchSpace({"lr": Float(1e-4, 1e-1, log=True), "layers": Int(1, 8)})


def train(lr: float, layers: int) -> float:
    """Return a stand-in for a validation loss; deeper models need a smaller rate."""
    return 0.4 + 0.2 * math.log10(lr * layers / 1e-2) ** 2 + 0.02 * (layers - 5) ** 2


if __name__ == "__main__":
    optimizer = Optimizer(SPACE, seed=0)
    inside = predicted = 0
    for _ in range(24):
        trial = optimizer.ask()
        loss = train(**trial.config)
        optimizer.tell(trial, loss=loss)
        prediction = trial.prediction
        assert prediction is not None
        if prediction.loss_interval is None:
            print(f"trial {trial.number:2d}: loss {loss:.3f}; {prediction.reason}")
            continue
        low, high = prediction.loss_interval
        predicted += 1
        inside += low <= loss <= high
        print(f"trial {trial.number:2d}: loss {loss:.3f}, expected {low:.3f} to {high:.3f}")
        print(f"          {prediction.reason}")
    print(f"{inside} of {predicted} losses lay inside their 90 % interval")
    advice = optimizer.recommend()
    print(f"recommended: lr {advice.config['lr']:.4f}, {advice.config['layers']} layers")
