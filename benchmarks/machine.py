"""How fast the machine is just now: a fixed piece of Python on one core, and on two at a time.

Processors that are shared with other machines are not equally fast from one minute to the next, by a factor
of two at times. With this beside it a figure can be held against one of another hour.
"""

import multiprocessing
import os
import time
from typing import Final

SECONDS: Final = 0.3
_ENTRIES: Final = 200


def pace() -> dict[str, float]:
    """Thousands of rounds a second: the mean of one core and another alone, and what both do together.

    Takes a second. `one_core` twice is `two_cores` where neither core is in the other's way.
    """
    first, second = sorted(os.sched_getaffinity(0))[:2]
    alone = (_rounds((first,)) + _rounds((second,))) / 2
    return {"one_core": round(alone, 1), "two_cores": round(_rounds((first, second)), 1)}


def _rounds(cores: tuple[int, ...]) -> float:
    context = multiprocessing.get_context("fork")
    done = context.SimpleQueue()
    runners = [context.Process(target=_run, args=(core, done)) for core in cores]
    for runner in runners:
        runner.start()
    total = sum(done.get() for _ in runners)
    for runner in runners:
        runner.join()
    return float(total) / SECONDS / 1000


def _run(core: int, done: "multiprocessing.SimpleQueue[int]") -> None:
    os.sched_setaffinity(0, {core})
    words: dict[int, str] = {}
    rounds, end = 0, time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        for number in range(_ENTRIES):
            words[number] = f"{number}x"
        rounds += 1
    done.put(rounds)
