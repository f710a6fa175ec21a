"""Studies of runs that pause, whose drivers and workers are killed at random moments.

    python -m tests.reliability.kill_soak FOLDER --kills 200

Kills until there were as many in all, goes on where an earlier call was stopped, and prints a table
of what must all be 0. Each study trains under FreezeThaw, ASHA or PBT, with 2 to 4 workers and
checkpoints, and notes every epoch twice in a file of its own: when it begins, and once it is saved.
"""

import argparse
import json
import multiprocessing
import os
import random
import signal
import sys
import time
from collections import Counter, defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Any

from hpo import (
    ASHA,
    PBT,
    Budget,
    Callback,
    Cause,
    Context,
    Fidelity,
    Float,
    FreezeThaw,
    Result,
    Status,
    StudyError,
    load_result,
    optimize,
)
from hpo.schedulers import Scheduler
from hpo.study.callbacks import StudyState

SCHEDULERS: dict[str, tuple[Scheduler, int, int]] = {  # how many trials at most, at least
    "FreezeThaw": (FreezeThaw(), 8, 8),
    "ASHA": (ASHA(eta=3), 9, 9),
    "PBT": (PBT(population=4, interval=2), 40, 5),  # it ends by itself
}
SPACE = {"x": Float(0.1, 1.0), "epochs": Fidelity(1, 9)}
NAME = "soak"
PATIENCE = 600.0  # seconds that a study may take once nothing is killed any more
GRACE = 20.0  # seconds that workers get to end after their driver

# Forked from a server that has imported everything: a life costs no seconds of imports.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["torch", "scipy.stats", "alembic.command", "rich.live", __name__])


def born(pid: int) -> str | None:
    """Start time of a process; None if it does not run."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def training(file: str) -> Any:
    """A training function that notes in `file` what it does."""

    def note(**what: Any) -> None:
        descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, (json.dumps(what) + "\n").encode())  # whole, whoever else writes
        os.close(descriptor)

    def train(config: dict[str, Any], ctx: Context) -> dict[str, float]:
        run = ctx.trial.ask_index
        state = ctx.load()
        began = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
        loaded = 0 if state is None else state["epoch"]
        note(what="load", run=run, epoch=loaded, pid=os.getpid(), born=began)
        cost = 0.0 if state is None else state["cost"]
        loss = 10.0
        for epoch in range(loaded + 1, config["epochs"] + 1):
            note(what="begin", run=run, epoch=epoch)
            time.sleep(0.05)
            cost += 1.0
            loss = (config["x"] - 0.3) ** 2 + 1.0 / epoch
            ctx.save({"epoch": epoch, "cost": cost})
            note(what="saved", run=run, epoch=epoch)
            ctx.report(step=epoch, loss=loss, cost=cost)
        return {"loss": (config["x"] - 0.3) ** 2 + 1.0 / config["epochs"], "cost": cost}

    return train


class Sums(Callback):
    """Writes what the study has spent when it is finished."""

    def on_finish(self, run: StudyState, result: Result) -> None:
        Path("spent.json").write_text(json.dumps(run.ledger.spent.cost))


def live(folder: str, scheduler: str, workers: int) -> None:
    """Drive the study in `folder` to its end; exit code 3 if it refuses to go on for now."""
    os.chdir(folder)
    os.dup2(os.open("stderr.txt", os.O_WRONLY | os.O_APPEND | os.O_CREAT), 2)
    rule, trials, _ = SCHEDULERS[scheduler]
    try:
        optimize(
            training(str(Path(folder, "epochs.jsonl"))),
            SPACE,
            budget=Budget(trials=trials),
            cost="epochs",
            scheduler=rule,
            workers=workers,
            callbacks=[Sums()],
            name=NAME,
            seed=int(Path(folder).name),
        )
    except StudyError as error:
        print(error, file=sys.stderr)
        sys.exit(3)


class Soak:
    """Kills in `folder`, one study after another, and what came of it.

    Attributes:
        kills: Numbers of kills so far, of drivers and of workers.
        found: Sums of what is wrong, over all finished studies.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        folder.mkdir(parents=True, exist_ok=True)
        self._state = self.folder / "soak.json"
        stored = json.loads(self._state.read_text()) if self._state.exists() else {}
        self.kills: Counter[str] = Counter(stored.get("kills", {}))
        self.found: Counter[str] = Counter(stored.get("found", {}))
        self.studies: int = stored.get("studies", 0)

    def run(self, kills: int, *, each: int, until: float = float("inf")) -> None:
        """Kill until there were `kills` in all, at most about `each` in one study."""
        while self.kills.total() < kills and time.monotonic() < until:
            rng = random.Random(self.studies)  # noqa: S311
            scheduler = list(SCHEDULERS)[self.studies % len(SCHEDULERS)]
            workers = 2 + self.studies // len(SCHEDULERS) % 3
            folder = self.folder / str(self.studies)
            folder.mkdir(exist_ok=True)
            self._wear_out(folder, scheduler, workers, min(each, kills - self.kills.total()), rng)
            for what, number in check(folder, SCHEDULERS[scheduler][2]).items():
                self.found[what] += number
                if number:
                    print(f"study {self.studies} ({scheduler}, {workers}): {what} {number}")
            self.studies += 1
            self._save()

    def _save(self) -> None:
        state = {"kills": self.kills, "found": self.found, "studies": self.studies}
        temporary = self._state.with_suffix(".new")
        temporary.write_text(json.dumps(state))
        temporary.replace(self._state)

    def _wear_out(
        self, folder: Path, scheduler: str, workers: int, kills: int, rng: random.Random
    ) -> None:
        """Kill the study's driver or one of its workers `kills` times, then let it finish."""
        left, until = kills, None
        while True:
            life = FORKS.Process(target=live, args=(str(folder), scheduler, workers))
            life.start()
            assert life.pid is not None
            try:
                while left > 0 and life.is_alive():
                    life.join(rng.expovariate(1.0))
                    of_driver = self.kills["drivers"] <= self.kills["workers"]
                    if not life.is_alive() or (of_driver and at_risk(folder)):
                        continue
                    if of_driver:
                        life.kill()
                        life.join()
                    elif not kill_a_worker(life.pid, rng):
                        continue
                    self.kills["drivers" if of_driver else "workers"] += 1
                    left -= 1
                    self._save()
                if left == 0:
                    until = until or time.monotonic() + PATIENCE
                    life.join(max(0.0, until - time.monotonic()))
                if life.exitcode == 0:
                    return
                assert until is None or time.monotonic() < until, "the study does not end"
                assert life.exitcode in (3, -signal.SIGKILL), (folder / "stderr.txt").read_text()
            finally:
                life.kill()
                life.join()


def kill_a_worker(driver: int, rng: random.Random) -> bool:
    """Kill one of the processes in which trials run; False if none does within a moment."""
    until = time.monotonic() + GRACE
    while born(driver) is not None and time.monotonic() < until:
        workers = [pid for server in children(driver) for pid in children(server)]
        if workers:
            time.sleep(rng.uniform(0.0, 0.5))
            with suppress(ProcessLookupError):
                os.kill(rng.choice(workers), signal.SIGKILL)
                return True
        time.sleep(0.01)
    return False


def children(pid: int) -> list[int]:
    """Of a process on Linux; none once it has ended."""
    try:
        return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def at_risk(folder: Path) -> bool:
    """Whether a trial has lost its driver before: after a third time the search gives it up."""
    try:
        result = load_result(NAME, storage=f"sqlite:///{folder / 'scaletune.db'}")
    except (StudyError, ValueError):  # killed before the study was created, or made whole
        return False
    assert result.study is not None
    stored = [trial.user_attrs for trial in result.study.trials]
    told = {t["scaletune:asked"]["ask_index"] for t in stored if "scaletune:told" in t}
    asked = [t["scaletune:asked"] for t in stored if "scaletune:asked" in t]
    return any(a["attempt"] >= 1 for a in asked if a["ask_index"] not in told)


def check(folder: Path, least: int) -> dict[str, int]:
    """How often each of the things that must never happen has happened in a finished study."""
    notes = [json.loads(line) for line in (folder / "epochs.jsonl").read_text().splitlines()]
    log = load_result(NAME, storage=f"sqlite:///{folder / 'scaletune.db'}").log
    saved: dict[int, int] = defaultdict(int)
    twice = lost_checkpoints = 0
    begun: set[tuple[int, int]] = set()
    epochs: set[tuple[int, int]] = set()
    clones = {t.ask_index for t in log.trials if t.parent is not None} - {
        t.ask_index for t in log.trials if t.parent is None
    }
    for note in notes:
        run, epoch = note["run"], note["epoch"]
        match note["what"]:
            case "load":
                lowest = max(saved[run], 1 if run in clones else 0)
                lost_checkpoints += epoch < lowest
                if (run, epoch) in begun:  # saved, and killed before that was noted
                    saved[run] = max(epoch, saved[run])
                    epochs.add((run, epoch))
            case "begin":
                twice += epoch <= saved[run]
                begun.add((run, epoch))
            case "saved":
                saved[run] = max(epoch, saved[run])
                epochs.add((run, epoch))
    last = {trial.ask_index: log.observation(trial.number) for trial in log.trials}
    ends = [last.get(index) for index in range(max(last) + 1)]
    lost = sum(end is None or end.status is Status.FAILED for end in ends)
    lost += sum(o.cause not in (None, Cause.LOST) for o in log.observations)
    lost += max(0, least - len(ends))
    spent = json.loads((folder / "spent.json").read_text())
    until = time.monotonic() + GRACE
    workers = {(note["pid"], note["born"]) for note in notes if note["what"] == "load"}
    while (alive := [p for p, b in workers if born(p) == b]) and time.monotonic() < until:
        time.sleep(0.1)
    kept = {
        trial.number
        for trial in log.trials
        if (end := log.observation(trial.number)) is not None
        and (end.status in (Status.PAUSED, Status.COMPLETED))
    }
    folders = list((folder / "scaletune_checkpoints").glob("*/*"))
    return {
        "levels trained twice": twice,
        "costs charged wrongly": abs(round(spent) - len(epochs)),
        "lost trials": lost,
        "lost checkpoints": lost_checkpoints,
        "orphaned processes": len(alive),
        "orphaned folders": sum(int(path.name) not in kept for path in folders),
    }


def main() -> None:
    """Kill as often as the command line says, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="studies and counts; the same goes on")
    parser.add_argument("--kills", type=int, default=200, help="in all")
    parser.add_argument("--minutes", type=float, default=40.0, help="of this call, about")
    arguments = parser.parse_args()
    soak = Soak(arguments.folder)
    soak.run(arguments.kills, each=10, until=time.monotonic() + 60.0 * arguments.minutes)
    for what, number in (*soak.kills.items(), ("studies", soak.studies), *soak.found.items()):
        print(f"{what:22} {number:4}")
    sys.exit(soak.found.total() > 0)


if __name__ == "__main__":
    main()
