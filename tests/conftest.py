"""Plugs the fixtures in; each describes itself in tests/fixtures/."""

import signal

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
