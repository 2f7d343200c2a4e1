"""A relay inside the test, which may bend its waits; its database is real, its chain a few values."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest
import structlog

from chatchain.errors import ChainUnreachable, NetworkError
from chatchain.identity.keys import address_of
from chatchain.identity.login import login_proof
from chatchain.model import (
    Address,
    BlockRef,
    DeviceState,
    Group,
    LogRow,
    Member,
    Network,
    Policy,
    RelayAddress,
    Uid,
    User,
)
from chatchain.relay.allowance import Allowance
from chatchain.relay.directory import Keeper
from chatchain.relay.newcomers import Newcomers, Rules
from chatchain.relay.service import Deployment, Relay
from chatchain.relay.spending import Spending
from chatchain.relay.sponsor import Sponsor, SponsorLimits
from chatchain.store.blobs import BlobFolder
from chatchain.store.server import ServerStore
from chatchain.store.writer import Listener as StoreListener
from chatchain.transport import Listener, RelayLink, dial, server_context
from chatchain.wire.messages import Goodbye, Login, Welcome
from deploy import certificates
from tests.relay.stage import Account
from tests.relay.test_mailbox import ADA, user
from tests.relay.test_sponsor import Payer

NETWORK = Network(31337, Address(b"d" * 20), Address(b"r" * 20), Address(b"m" * 20))


class Chain:
    """A chain with one user, that can go away or take her back."""

    def __init__(self, account: Account) -> None:
        plain = user(ADA, DeviceState.ACTIVE)
        device = plain.devices[0]
        version = msgspec.structs.replace(device.current, signer=address_of(account.signer))
        self.ada: User | None = msgspec.structs.replace(
            plain,
            devices=(msgspec.structs.replace(device, history=(version,)),),
            verifier=account.verifier,
            kdf=account.kdf,
        )
        self.head = 1
        self.head_time = int(time.time())
        self.up = True
        self.looks = 0

    def sync(self) -> int:
        self.looks += 1
        if not self.up:
            raise ChainUnreachable("Gone.")
        return self.head

    def user(self, uid: Uid) -> User | None:
        return self.ada if uid == ADA else None

    def groups(self) -> tuple[Group, ...]:
        return (Group(0, "network", Policy.OPEN, 5000, 3600, 1, bytes(32), (Member(Uid(ADA), 1, 1),)),)


class Clock:
    """The time of one file of the relay, which goes on only when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, file: ModuleType) -> None:
        self._now = time.monotonic()
        monkeypatch.setattr(file, "time", self)

    def monotonic(self) -> float:
        return self._now

    def time(self) -> float:
        return time.time()

    def time_ns(self) -> int:
        return time.time_ns()

    def go_on(self, seconds: float) -> None:
        self._now += seconds


class Here:
    """A relay in this process and how to reach it."""

    def __init__(
        self, folder: Path, allowance: Allowance | None = None, *, rules: Rules | None = None
    ) -> None:
        self.account = Account("ada")
        self.account.uid = ADA
        self.chain = Chain(self.account)
        self.store = ServerStore(f"sqlite:///{folder / 'relay.db'}")
        self.store.migrate()
        row = LogRow(1, b"b" * 32, 0, 1, 1, (b"t" * 32,), b"", subject=ADA)
        member = LogRow(1, b"b" * 32, 1, 1, 2, (b"t" * 32,), b"")
        self.store.log.take([row, member], [BlockRef(1, b"b" * 32, bytes(32))])
        pair = certificates.make(folder)
        self.payer = Payer()
        spending = Spending(self.store.sponsoring, time.time, wei_per_hour=10**18, wei_per_day=10**18)
        self.newcomers = Newcomers(NETWORK, rules, self.store.invitations) if rules is not None else None
        self.relay = Relay(
            Deployment(NETWORK, pair.spki),
            reader=self.store,
            keeper=Keeper(self.chain, self.store, confirmations=0),
            sponsor=Sponsor(self.payer, spending, SponsorLimits(), 0),
            newcomers=self.newcomers,
            log=structlog.get_logger(),
            allowance=allowance,
            files=(BlobFolder(str(folder / "blobs")), self.store.blobs),
        )
        context = server_context(str(pair.certificate), str(pair.key))
        self.listener = Listener(self.relay, context, intake=self.relay.intake)
        self.pair = pair
        self.named: tuple[RelayAddress, ...] = ()

    async def start(self) -> None:
        loop = asyncio.get_running_loop()

        def on_loop(tell: Any) -> Any:
            return lambda *values: loop.call_soon_threadsafe(tell, *values)

        letters = self.relay.letters
        self.writer = self.store.writer(
            StoreListener(
                on_loop(letters.kept), on_loop(letters.store_failed), on_loop(letters.store_settled)
            )
        )
        await self.relay.start(self.writer)
        port = await self.listener.start("127.0.0.1", 0)
        self.named = (RelayAddress(f"127.0.0.1:{port}", self.pair.spki, bytes(32)),)

    async def stop(self) -> None:
        self.listener.stop()
        await self.relay.drain(2)
        await asyncio.to_thread(self.writer.stop)
        self.store.close()

    def login(self, link: RelayLink) -> Login:
        account = self.account
        proof = login_proof(
            NETWORK,
            spki=link.spki,
            nonce=link.challenge.nonce,
            uid=ADA,
            device=1,
            epoch=0,
            login_key=account.login_key,
            signer=account.signer,
        )
        return Login(ADA, 1, 0, account.kdf, proof.login_signature, proof.device_signature)

    async def connect(self) -> RelayLink:
        link = await dial(self.named)
        await link.send(self.login(link))
        assert isinstance(await link.receive(), Welcome)
        return link


Begin = Callable[..., Awaitable[Here]]
"""Starts such a relay with an allowance; it ends with the test."""


async def until(holds: Callable[[], bool]) -> None:
    """Waits for something that is about to happen."""
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def farewell(link: RelayLink) -> Goodbye:
    async with asyncio.timeout(60):
        message = await link.receive()
        assert isinstance(message, Goodbye), message
        with pytest.raises(NetworkError):
            await link.receive()
    await link.close()
    return message
