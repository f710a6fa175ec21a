from collections.abc import Callable


def test_the_study_of_four_objectives_prints_a_front_and_its_volume(
    run: Callable[..., str],
) -> None:
    arguments = ("--runs", "9")
    printed = run("-m", "examples.studies.many_objectives", *arguments, seconds=300)
    for part in ("of 9 runs are on the front", "dominated volume", "by as many random runs"):
        assert part in printed
