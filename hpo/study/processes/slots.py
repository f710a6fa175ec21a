"""Places for trials on GPUs: who may use which, never more than there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

__all__ = ["Slots"]


class Slots:
    """Places on some GPUs.

    Args:
        gpus: Names of the GPUs.
        per_gpu: Number of trials that may share a GPU at a time.

    Example:
        >>> slots = Slots(["0", "1", "2"], per_gpu=1)
        >>> slots.take(2), slots.take(2), slots.take(1)
        (('0', '1'), None, ('2',))
        >>> slots.give(("0", "1"))
        >>> slots.take(2)
        ('0', '1')
    """

    def __init__(self, gpus: Collection[str], per_gpu: int) -> None:
        self._gpus = tuple(gpus)
        self._per_gpu = per_gpu
        self._taken: Counter[str] = Counter()

    def take(self, count: int, first: Collection[str] = ()) -> tuple[str, ...] | None:
        """Take a place on each of `count` GPUs, or none at all.

        Args:
            count: Number of GPUs.
            first: GPUs to take if they have room, where there are `count` of them.

        Returns:
            Their names in the order in which they were given, those with the fewest trials on them;
            None if fewer have room.
        """
        free = [gpu for gpu in self._gpus if self._taken[gpu] < self._per_gpu]
        if len(first) == count and set(first) <= set(free):
            chosen = set(first)
        else:
            chosen = set(sorted(free, key=lambda gpu: self._taken[gpu])[:count])
        if len(chosen) < count:
            return None
        self._taken.update(chosen)
        return tuple(gpu for gpu in self._gpus if gpu in chosen)

    def give(self, gpus: Collection[str]) -> None:
        """Give back what `take` returned."""
        self._taken.subtract(gpus)
