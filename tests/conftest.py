"""Plugs the fixtures in; each describes itself in tests/fixtures/."""

import gc
import signal
import sys
import warnings
from collections.abc import Generator

import pytest
from hypothesis import settings

pytest_plugins = [
    "tests.fixtures.mariadb",
    "tests.fixtures.nats",
    "tests.fixtures.anvil",
    "tests.fixtures.ganache",
]

# A shell that starts the tests in the background has them ignore Ctrl-C, and every program that they start
# would inherit that: the tests that press Ctrl-C would wait for ever.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says how busy the machine is, and nothing about the code.
settings.register_profile("unhurried", parent=settings(), deadline=None)
settings.load_profile("unhurried")


_FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remembers which test failed."""
    report = yield
    if report.failed:
        item.stash[_FAILED] = True
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Takes away what a failed test left open, quietly: else its complaints would fail the test after it.

    Python keeps the last failure's frames, and with them sockets and subprocesses, until there is another.
    """
    done = yield
    if _FAILED in item.stash:
        for name in ("last_type", "last_value", "last_traceback", "last_exc"):
            sys.__dict__.pop(name, None)
        hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
        with warnings.catch_warnings(action="ignore"):
            gc.collect()
        sys.unraisablehook = hook
    return done
