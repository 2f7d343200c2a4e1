"""The supervisor of the workers: when it starts, kills and replaces them, and how all end."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from structlog.testing import CapturingLogger

from chatchain.programs import workers
from chatchain.programs.workers import ALIVE, PAUSE_FIRST, PAUSE_LAST, READY, Supervisor
from tests.relay.stage import ROOT

# --- by a clock that the test turns, with workers that only sleep -------------------------------------------


class Watch:
    """A clock."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now


class Crew(Supervisor):
    """A supervisor without a loop. Its workers are programs of which it hears what the test says for them."""

    def __init__(self, count: int, watch: Watch) -> None:
        self.watch = watch
        self.told = CapturingLogger()
        self.announced = 0
        self.stubborn = False
        """Whether those that begin heed no SIGTERM."""
        self.begun: list[int] = []
        self.sleepers: list[subprocess.Popen[bytes]] = []
        self.lines: dict[int, int] = {}
        self.ends: list[int] = []
        super().__init__(count, lambda _: 0, self.told, self._note_ready)

    def _note_ready(self) -> None:
        self.announced += 1

    def fork(self) -> int:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM} if self.stubborn else set())
        self.sleepers.append(subprocess.Popen(["sleep", "1000"]))
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return self.sleepers[-1].pid

    def _start(self, worker: workers._Worker) -> None:
        self.begun.append(worker.number)
        self._hang_up(worker)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fork", self.fork)
            super()._start(worker)
        self._hang_up(worker)
        worker.report, self.lines[worker.number] = os.pipe()
        self.ends.append(self.lines[worker.number])
        self._selector.register(worker.report, selectors.EVENT_READ, worker)

    def say(self, number: int, word: bytes) -> None:
        """A worker says this."""
        os.write(self.lines[number], word)
        self._hear(self._workers[number])

    def ready(self) -> None:
        """All are at work."""
        for number in range(len(self._workers)):
            self._tend()
            self.say(number, READY)

    def running(self, number: int) -> bool:
        """Whether a worker lives, or was killed; it is not reaped by that."""
        pid = self._workers[number].pid
        found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        return found is None

    def killed(self, number: int) -> None:
        """Waits until a worker that was sent a signal has ended, and reaps it."""
        if self._workers[number].pid:  # else it was reaped with another
            os.waitid(os.P_PID, self._workers[number].pid, os.WEXITED | os.WNOWAIT)
            self._reap()

    def end(self) -> None:
        for sleeper in self.sleepers:
            sleeper.kill()
            sleeper.wait()
        for worker in self._workers:
            self._hang_up(worker)
        for line in (*self.ends, *self._life):
            os.close(line)
        self._selector.close()


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    made = Watch()
    monkeypatch.setattr(workers, "time", made)
    return made


@contextmanager
def crew_of(count: int, watch: Watch) -> Iterator[Crew]:
    made = Crew(count, watch)
    try:
        yield made
    finally:
        made.end()


def test_the_first_prepares_alone_and_all_are_announced_once(watch: Watch) -> None:
    """Whatever is wrong is found by one; connections come when there is nobody left to wait for."""
    with crew_of(3, watch) as crew:
        for _ in range(2):
            crew._tend()
            crew.say(0, ALIVE)
        assert crew.begun == [0]
        crew.say(0, READY)
        crew._tend()
        assert crew.begun == [0, 1, 2]
        crew.say(1, READY + ALIVE)
        assert crew.announced == 0
        for number in (2, 1):
            crew.say(number, ALIVE + READY)
        assert crew.announced == 1


@pytest.mark.parametrize(("code", "exit_code"), [(4, 4), (-signal.SIGKILL, 1)])
def test_who_cannot_begin_is_not_started_again(watch: Watch, code: int, exit_code: int) -> None:
    """Trying again would say the same again; the others end as well."""
    with crew_of(2, watch) as crew:
        crew._tend()
        crew.say(0, READY)
        crew._tend()
        crew._ended_with(crew._workers[1], code)
        crew.killed(0)
        assert crew._ended()
        assert crew._exit_code == exit_code
        crew._tend()
        assert crew.begun == [0, 1]


def test_who_was_ready_once_is_started_again_though_others_begin(watch: Watch) -> None:
    """It can begin; whatever ended it is another matter."""
    with crew_of(2, watch) as crew:
        crew._tend()
        crew.say(0, READY)
        crew._ended_with(crew._workers[0], 1)
        watch.now += 1
        crew._tend()
        assert crew.begun == [0, 0]
        crew.ready()
        assert (crew.begun, crew.announced) == ([0, 0, 1], 1)


def test_a_worker_that_ends_is_started_again_after_longer_and_longer_pauses(watch: Watch) -> None:
    """Up to a bound, however often: the others must not end for it. Who proves itself begins anew."""
    with crew_of(2, watch) as crew:
        crew.ready()
        crew.begun.clear()
        pauses = []
        for _ in range(2_000):
            crew._ended_with(crew._workers[1], 1)
            pauses.append(crew._workers[1].start_at - watch.now)
        assert pauses[:4] == pytest.approx([PAUSE_FIRST, 2 * PAUSE_FIRST, 4 * PAUSE_FIRST, 8 * PAUSE_FIRST])
        assert set(pauses[10:]) == {PAUSE_LAST}
        watch.now += PAUSE_LAST - 0.1
        crew._tend()
        assert crew.begun == []
        watch.now += 0.2
        crew._tend()
        assert crew.begun == [1]
        for seconds, pause in ((29.0, PAUSE_LAST), (2.0, PAUSE_FIRST)):
            crew.say(1, READY)
            watch.now += seconds
            for number in (0, 1):
                crew.say(number, ALIVE)
            crew._tend()
            assert crew._workers[1].pause == pause
        assert {call.kwargs["worker"] for call in crew.told.calls} == {1}


def test_all_that_ended_are_started_again_together(watch: Watch) -> None:
    """Once they were announced nobody waits for the first."""
    with crew_of(2, watch) as crew:
        crew.ready()
        for worker in crew._workers:
            crew._ended_with(worker, 1)
        watch.now += PAUSE_FIRST
        crew._tend()
        assert crew.begun == [0, 1, 0, 1]


def test_who_is_not_ready_has_proven_nothing(watch: Watch) -> None:
    """However long it takes."""
    with crew_of(1, watch) as crew:
        crew.ready()
        crew._ended_with(crew._workers[0], 1)
        watch.now += 1
        crew._tend()
        for _ in range(4):
            watch.now += 20
            crew.say(0, ALIVE)
            crew._tend()
        assert crew._workers[0].pause > PAUSE_FIRST


@pytest.mark.parametrize("ready", [True, False])
def test_who_falls_silent_is_killed_and_nobody_else(watch: Watch, ready: bool) -> None:
    """After ten seconds, or two minutes while it begins; it is said once."""
    patience = 10.0 if ready else 120.0
    with crew_of(2, watch) as crew:
        crew.ready()
        if not ready:
            crew._workers[1].ready = False
        for seconds in (patience - 0.5, 1.0):
            assert crew.told.calls == []
            watch.now += seconds
            crew.say(0, ALIVE)
            crew._tend()
        crew._tend()
        crew.killed(1)
        assert crew._workers[1].report == -1
        assert crew.running(0)
        assert [call.args for call in crew.told.calls] == [("worker silent",), ("worker ended",)]
        watch.now += PAUSE_FIRST
        crew.say(0, ALIVE)
        crew._tend()
        assert crew.begun == [0, 1, 1]
        watch.now += 11
        crew.say(0, ALIVE)
        crew._tend()
        assert crew.running(1), "it begins anew"
        assert len(crew.told.calls) == 2


def test_who_does_not_stop_in_time_is_killed(watch: Watch) -> None:
    """And is no failure: the exit code is that of who said so, or of a worker that failed at it."""
    with crew_of(3, watch) as crew:
        crew.stubborn = True
        crew.ready()
        crew._note(signal.SIGTERM, None)
        crew._heed()
        watch.now += 13.9
        crew._tend()
        assert all(crew.running(number) for number in range(3))
        watch.now += 0.2
        crew._tend()
        for number in range(3):
            crew.killed(number)
        assert crew._ended()
        assert crew._exit_code == 0
        crew._ended_with(crew._workers[0], 5)
        crew._ended_with(crew._workers[1], 6)
        assert crew._exit_code == 5
        assert crew.begun == [0, 1, 2]


def test_the_first_signal_to_stop_counts(watch: Watch) -> None:
    """Whoever presses Ctrl-C on and on gives nobody more time."""
    with crew_of(1, watch) as crew:
        crew.stubborn = True
        crew.ready()
        for number in (signal.SIGINT, signal.SIGINT, signal.SIGTERM):
            crew._note(signal.SIGCHLD, None)
            crew._note(number, None)
            crew._heed()
            watch.now += 10
            crew._tend()
        crew.killed(0)
        assert crew.told.calls == []


def test_who_hangs_up_is_listened_to_no_more(watch: Watch) -> None:
    """It would be heard to have hung up for ever; and it is silent then."""
    with crew_of(1, watch) as crew:
        crew.ready()
        os.close(crew.ends.pop())
        crew._hear(crew._workers[0])
        assert crew._workers[0].report == -1
        watch.now += 11
        crew._tend()
        crew.killed(0)


# --- as processes -------------------------------------------------------------------------------------------


class Told:
    """A supervisor in a process of its own, and what it and its workers say."""

    def __init__(self, *hows: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.relay.crew", *hows],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.said: list[str] = []

    def next(self) -> str:
        """What is said next."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.said
        self.said.append(line.strip())
        return self.said[-1]

    def until_ready(self) -> None:
        while self.next() != "ready":
            pass

    def rest(self) -> list[str]:
        """What is said until nobody is left to say anything."""
        assert self.process.stdout is not None
        return [line.strip() for line in self.process.stdout]

    def files(self) -> int:
        """How many the supervisor has open."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def pids(self) -> dict[int, int]:
        """The workers' processes, as they were begun last."""
        words = [line.split() for line in self.said if "begins" in line]
        return {int(each[0]): int(each[-1]) for each in words}


@contextmanager
def supervised(*hows: str) -> Iterator[Told]:
    told = Told(*hows)
    try:
        yield told
    finally:
        told.process.kill()
        told.process.wait()
        assert told.process.stdout is not None
        told.process.stdout.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_reach_every_worker(number: signal.Signals) -> None:
    """SIGHUP is handed on, and SIGTERM and SIGINT end all."""
    with supervised("serve", "serve") as told:
        told.until_ready()
        told.process.send_signal(signal.SIGHUP)
        assert sorted(told.next() for _ in range(2)) == ["0 hears SIGHUP", "1 hears SIGHUP"]
        told.process.send_signal(number)
        assert sorted(told.rest()) == ["0 hears SIGTERM", "1 hears SIGTERM", "over"]
        assert told.process.wait() == 0


def test_a_worker_that_is_killed_is_replaced_and_the_others_stay() -> None:
    """Until the supervisor itself is killed, which all the others notice."""
    with supervised("serve", "serve", "serve") as told:
        told.until_ready()
        before = told.pids()
        assert len({line.split()[3] for line in told.said if "begins" in line}) == 1, "none has another's"
        files = told.files()
        os.kill(before[1], signal.SIGKILL)
        assert told.next().startswith("1 begins")
        after = told.pids()
        end = time.monotonic() + 60
        while told.files() != files:
            assert time.monotonic() < end
            time.sleep(0.01)
        assert (after[0], after[1] != before[1], after[2]) == (before[0], True, before[2])
        told.process.kill()
        assert sorted(told.rest()) == [f"{number} outlives its supervisor" for number in range(3)]


@pytest.mark.parametrize("hows", [("fail", "serve"), ("serve", "fail")])
def test_who_cannot_begin_ends_the_program(hows: tuple[str, str]) -> None:
    """With that worker's code, before anything is announced."""
    with supervised(*hows) as told:
        said = told.rest()
        assert told.process.wait() == 3
        assert "ready" not in said
        assert len([line for line in said if "begins" in line]) == (1 if hows[0] == "fail" else 2)
        assert said.count("over") == 1
