"""Plugs the fixtures in; each describes itself in tests/fixtures/."""

pytest_plugins = ["tests.fixtures.mariadb", "tests.fixtures.anvil", "tests.fixtures.ganache"]
