"""One relay and a few accounts that the tests of a database share; each makes accounts of its own where it
matters.
"""

import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from chatchain.relay.allowance import Allowance
from tests.fixtures.chains import DevChain
from tests.fixtures.mariadb import MariaDB
from tests.relay.here import Begin, Here
from tests.relay.stage import Account, Stage

_numbers = itertools.count(1)


@pytest.fixture(scope="module", params=["sqlite", "mariadb"])
def stage(
    request: pytest.FixtureRequest, anvil: DevChain, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """A running relay on each of the databases."""
    folder = tmp_path_factory.mktemp("relay")
    yield from running_stage(request, anvil, folder)


def running_stage(request: pytest.FixtureRequest, chain: DevChain, folder: Path) -> Iterator[Stage]:
    """Starts a relay on the database that the fixture's parameter names."""
    if request.param == "sqlite":
        database = f"sqlite:///{folder / 'relay.db'}"
    else:
        server: MariaDB = request.getfixturevalue("mariadb")
        database = server.new_database()
    stage = Stage(chain, folder, database)
    stage.start()
    yield stage
    stage.stop()


@pytest.fixture
async def begin(tmp_path: Path) -> AsyncIterator[Begin]:
    """Relays inside the test, on one database."""
    begun: list[Here] = []

    async def start(allowance: Allowance | None = None) -> Here:
        here = Here(tmp_path, allowance)
        begun.append(here)
        await here.start()
        return here

    yield start
    for here in begun:
        await here.stop()


@pytest.fixture
def someone(stage: Stage) -> Callable[[], Account]:
    """Registers one more account."""
    return lambda: stage.register(f"user{next(_numbers)}")
