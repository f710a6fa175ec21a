from collections.abc import Callable


def test_auto_lrs_prints_a_schedule_and_a_cosine_beside_it(run: Callable[..., str]) -> None:
    printed = run("-m", "examples.studies.auto_lrs", "--stages", "2", "--looks", "3", seconds=300)
    for part in ("0 to 40", "40 to 80", "by stages: loss", "cosine: loss", "6 stages of 40"):
        assert part in printed
