"""A world with two people in it, and passwords that cost little."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from chatchain.crypto import password, vault
from chatchain.crypto.password import MEMORY_FLOOR_KIB, Kdf
from chatchain.model import Policy
from tests.world import World


@pytest.fixture(autouse=True)
def _cheap_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """The smallest parameters that are accepted: Argon2id itself is tested in tests/crypto."""

    def cheap() -> Kdf:
        return Kdf(os.urandom(16), 1, MEMORY_FLOOR_KIB, 1)

    monkeypatch.setattr(password, "new_kdf", cheap)
    monkeypatch.setattr(vault, "new_kdf", cheap)


@pytest.fixture
def empty(tmp_path: Path) -> World:
    """An open network in which nobody is registered yet."""
    return World(tmp_path)


@pytest.fixture
async def world(empty: World) -> World:
    """An open network with ada and bob."""
    await empty.register("ada", "bob")
    return empty


@pytest.fixture
async def closed(tmp_path: Path) -> World:
    """A network where only members message, with the founders ada and bob."""
    made = World(tmp_path, policy=Policy.VOTE)
    await made.register("ada", "bob")
    made.chain.seat("ada", "bob")
    return made
