"""What the relay does when nothing happens: deadlines, heartbeats, limits, a chain and a database that are
away.

The relay runs inside the test, with its waits made short; its database is real, its chain a few values.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog

from chatchain.errors import ChainUnreachable, NetworkError, StoreUnavailable
from chatchain.identity.keys import address_of
from chatchain.identity.login import login_proof
from chatchain.model import (
    Address,
    BlockRef,
    Copy,
    DeviceState,
    Envelope,
    Group,
    LogRow,
    Member,
    Network,
    Policy,
    RelayAddress,
    Uid,
    User,
)
from chatchain.relay import follower, housekeeping
from chatchain.relay.allowance import Allowance
from chatchain.relay.directory import Keeper
from chatchain.relay.limits import Rate
from chatchain.relay.newcomers import Newcomers, Rules
from chatchain.relay.service import Deployment, Relay
from chatchain.relay.spending import Spending
from chatchain.relay.sponsor import Sponsor, SponsorLimits
from chatchain.store.blobs import BlobFolder
from chatchain.store.server import ServerStore
from chatchain.store.writer import Listener as StoreListener
from chatchain.transport import Listener, RelayLink, dial, server_context
from chatchain.wire import deadlines
from chatchain.wire.messages import (
    Failed,
    FetchKeys,
    Goodbye,
    Keys,
    Login,
    Ping,
    Refused,
    Sponsored,
    Submit,
    Tick,
    Welcome,
)
from chatchain.wire.messages import (
    Sponsor as SponsorRequest,
)
from deploy import certificates
from tests.relay.stage import Account
from tests.relay.test_mailbox import ADA, user
from tests.relay.test_sponsor import Payer, registration

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
        self.up = True
        self.looks = 0

    def sync(self) -> int:
        self.looks += 1
        if not self.up:
            raise ChainUnreachable("Gone.")
        return self.head

    def user(self, uid: Uid) -> User | None:
        return self.ada if uid == ADA else None

    def group(self, group: int = 0) -> Group:
        return Group(0, "network", Policy.OPEN, 5000, 3600, 1, bytes(32), (Member(Uid(ADA), 1, 1),))


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
        self.listener = Listener(self.relay, server_context(str(pair.certificate), str(pair.key)))
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


@pytest.fixture
async def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Here]:
    """Started with short waits."""
    monkeypatch.setattr(housekeeping, "SWEEP", 0.05)
    monkeypatch.setattr(follower, "POLL", 0.05)
    monkeypatch.setattr(follower, "LOOK_GAP", 0.01)
    made = Here(tmp_path)
    await made.start()
    yield made
    await made.stop()


async def farewell(link: RelayLink) -> Goodbye:
    async with asyncio.timeout(20):
        message = await link.receive()
        assert isinstance(message, Goodbye), message
        with pytest.raises(NetworkError):
            await link.receive()
    await link.close()
    return message


async def test_who_does_not_log_in_is_sent_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger's time is short; who logged in may stay; who was just registered gets longer."""
    monkeypatch.setattr(deadlines, "LOGIN", 1.0)
    monkeypatch.setattr(housekeeping, "SWEEP", 0.05)
    here = Here(tmp_path)
    await here.start()
    stranger, newcomer = await dial(here.named), await dial(here.named)
    member = await here.connect()
    call = registration()
    await newcomer.send(SponsorRequest(1, call.contract, call.data))
    assert isinstance(await newcomer.receive(), Sponsored)
    assert (await farewell(stranger)).code == "login_deadline"
    await newcomer.send(SponsorRequest(2, "identity", bytes(4)))
    assert isinstance(await newcomer.receive(), Failed)
    await member.send(FetchKeys(1, (ADA,)))
    assert await member.receive() == Keys(1, ())
    await newcomer.close()
    await member.close()
    await here.stop()


async def test_a_silent_peer_is_asked_and_then_dropped(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that answers the relay's Pings stays; one that answers nothing goes."""
    alive, dead = await here.connect(), await dial(here.named)
    for link in (alive, dead):
        assert link._beat is not None
        link._beat.cancel()
    monkeypatch.setattr(deadlines, "HEARTBEAT", 0.2)
    monkeypatch.setattr(deadlines, "SILENCE", 1.5)
    reading = asyncio.create_task(alive.receive())  # whoever reads answers
    async with asyncio.timeout(20):
        while here.relay.health()["connections"] != 1:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    # The one that is gone never read: the Pings lie unanswered in its socket.
    pings = list(dead._connection.receive_data(await dead._reader.read(2**16)))
    assert pings
    assert all(isinstance(message, Ping) for message in pings)
    await asyncio.sleep(2.0)
    assert here.relay.health()["sessions"] == 1
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    await alive.close()
    await dead.close()


async def test_failed_logins_of_an_address_are_limited(tmp_path: Path) -> None:
    """After some the address waits, even with a right proof; right ones cost nothing."""
    here = Here(tmp_path, Allowance(failed_logins=Rate(burst=3, per_second=0.001)))
    await here.start()
    for _ in range(5):
        await (await here.connect()).close()
    for _ in range(3):
        link = await dial(here.named)
        await link.send(msgspec.structs.replace(here.login(link), login_signature=bytes(65)))
        assert (await farewell(link)).code == "login_refused"
    link = await dial(here.named)
    await link.send(here.login(link))
    goodbye = await farewell(link)
    assert goodbye.code == "limit_reached"
    assert goodbye.retry_after_ms > 0
    await here.stop()


async def test_f7_who_fails_on_purpose_keeps_no_neighbour_out(tmp_path: Path) -> None:
    """Failures count for a user at an address, however many come at once, and for the address only in
    masses.
    """
    few, more = Rate(burst=3, per_second=0.001), Rate(burst=8, per_second=0.001)
    here = Here(tmp_path, Allowance(failed_logins=few, address_failed_logins=more))
    await here.start()

    async def fail(uid: int) -> str:
        link = await dial(here.named)
        await link.send(msgspec.structs.replace(here.login(link), uid=uid, login_signature=bytes(65)))
        return (await farewell(link)).code

    told = await asyncio.gather(*(fail(ADA + 1) for _ in range(7)))
    assert sorted(told) == ["limit_reached"] * 4 + ["login_refused"] * 3
    for _ in range(10):
        await (await here.connect()).close()
    told = await asyncio.gather(*(fail(ADA + 2 + number) for number in range(7)))
    assert sorted(told) == ["limit_reached"] * 2 + ["login_refused"] * 5
    link = await dial(here.named)
    await link.send(here.login(link))
    assert (await farewell(link)).code == "limit_reached"
    await here.stop()


async def test_who_has_not_even_the_device_locks_nobody_out_of_it(tmp_path: Path) -> None:
    """A neighbour who fails in somebody's name, on and on, does not keep them from logging in."""
    here = Here(tmp_path, Allowance(failed_logins=Rate(burst=3, per_second=0.001)))
    await here.start()
    told = []
    for _ in range(5):
        link = await dial(here.named)
        proof = here.login(link)
        forged = proof.login_signature[:-2] + b"\x00" + proof.login_signature[-1:]
        await link.send(msgspec.structs.replace(proof, device_signature=forged))
        told.append((await farewell(link)).code)
    assert told == ["login_refused"] * 3 + ["limit_reached"] * 2
    await (await here.connect()).close()
    await here.stop()


@pytest.mark.parametrize("limit", ["logins", "address_logins"])
async def test_logins_are_limited(tmp_path: Path, limit: str) -> None:
    """Of an account, and from an address whoever it is; the farewell says how long to wait."""
    few = Rate(burst=3, per_second=0.1)
    here = Here(tmp_path, Allowance(logins=few) if limit == "logins" else Allowance(address_logins=few))
    await here.start()
    for _ in range(3):
        await (await here.connect()).close()
    link = await dial(here.named)
    await link.send(here.login(link))
    goodbye = await farewell(link)
    assert goodbye.code == "limit_reached"
    assert 8_000 < goodbye.retry_after_ms <= 10_001
    await here.stop()


async def test_who_sends_too_fast_is_refused_until_it_may_send_again(tmp_path: Path) -> None:
    """With the time to wait; what was on its way meanwhile overtakes nothing; other sessions count, too."""
    here = Here(tmp_path, Allowance(messages=Rate(burst=5, per_second=2)))
    await here.start()
    link = await here.connect()
    copies = (Copy(ADA, 1, b"header"),)
    sent = [Envelope(bytes([number]) * 16, 1, ADA, 1, 1, b"body", copies) for number in range(8)]

    async def submit(link: RelayLink, envelopes: Sequence[Envelope]) -> dict[bytes, Tick | Refused]:
        answers = {}
        for envelope in envelopes:
            await link.send(Submit(envelope))
        for _ in envelopes:
            answer = await link.receive()
            assert isinstance(answer, Tick | Refused)
            answers[answer.id] = answer
        return answers

    answers = await submit(link, sent)
    assert [type(answers[envelope.id]) for envelope in sent] == [Tick] * 5 + [Refused] * 3
    refused = answers[sent[5].id]
    assert isinstance(refused, Refused)
    assert refused.code == "limit_reached"
    assert 900 < refused.retry_after_ms <= 1_001
    await link.close()
    again = await here.connect()
    answers = await submit(again, sent[5:6])
    assert isinstance(answers[sent[5].id], Refused)
    await asyncio.sleep(1.1)
    answers = await submit(again, sent[5:7])
    assert {type(answer) for answer in answers.values()} == {Tick}
    await again.close()
    await here.stop()


async def test_strangers_are_looked_up_a_few_at_a_time(tmp_path: Path) -> None:
    """Whether they exist or not; those that were looked up before are free."""
    here = Here(tmp_path, Allowance(lookups=Rate(burst=4, per_second=0.01)))
    await here.start()
    link = await here.connect()
    for ref, uids in enumerate([(7, 8, 9), (ADA, 7, 8), (10,), (7, 8, 9, 10)]):
        await link.send(FetchKeys(ref, uids))
        assert await link.receive() == Keys(ref, ())
    await link.send(FetchKeys(9, (7, 11)))
    failed = await link.receive()
    assert isinstance(failed, Failed)
    assert failed.code == "limit_reached"
    assert 90_000 < failed.retry_after_ms <= 100_001
    await link.close()
    await here.stop()


async def test_requests_for_keys_are_limited(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the burst they fail with the time to wait, and the connection stays."""
    link = await here.connect()
    answers = []
    for ref in range(250):
        await link.send(FetchKeys(ref, (ADA,)))
        answers.append(await link.receive())
    failed = [answer for answer in answers if isinstance(answer, Failed)]
    assert failed
    assert {answer.code for answer in failed} == {"limit_reached"}
    assert all(answer.retry_after_ms > 0 for answer in failed)
    assert isinstance(answers[0], Keys)
    await link.close()


async def test_without_the_chain_the_relay_serves_whom_it_knows(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logins go on, a wrong one is refused as ever, and health tells after a while."""
    here.chain.up = False
    await (await here.connect()).close()
    link = await dial(here.named)
    await link.send(msgspec.structs.replace(here.login(link), device_signature=bytes(65)))
    assert (await farewell(link)).code == "login_refused"
    assert here.relay.health()["ok"]
    monkeypatch.setattr(follower, "STALE", 0.0)
    assert (here.relay.health()["ok"], here.relay.health()["chain"]) == (False, False)
    monkeypatch.setattr(follower, "STALE", 60.0)
    here.chain.up = True
    looks = here.chain.looks
    async with asyncio.timeout(20):
        while here.chain.looks < looks + 3:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_a_registration_that_a_reorg_took_back_ends_the_session(here: Here) -> None:
    """The user is gone from the database, and who was logged in is told."""
    link = await here.connect()
    here.chain.ada, here.chain.head = None, 2
    here.store.log.drop_from(1)
    assert (await farewell(link)).code == "login_refused"
    assert here.store.user(ADA) is None


async def test_a_recovered_account_ends_its_sessions(here: Here) -> None:
    """A raised epoch makes every earlier proof worthless."""
    link = await here.connect()
    assert here.chain.ada is not None
    here.chain.ada, here.chain.head = msgspec.structs.replace(here.chain.ada, epoch=1), 2
    row = LogRow(2, b"c" * 32, 0, 1, 1, (b"t" * 32,), b"", subject=ADA)
    here.store.log.take([row], [BlockRef(2, b"c" * 32, b"b" * 32)])
    assert (await farewell(link)).code == "login_refused"
    stored = here.store.user(ADA)
    assert stored is not None
    assert stored.epoch == 1


async def test_a_bug_ends_one_connection_and_is_reported(
    here: Here, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not the relay; and its words do not reach the client."""

    def broken(uids: object) -> Any:
        raise ZeroDivisionError("inner workings")

    link = await here.connect()
    monkeypatch.setattr(here.store, "bundles", broken)
    await link.send(FetchKeys(1, (ADA,)))
    goodbye = await farewell(link)
    assert goodbye.code == "relay_failure"
    assert "inner workings" not in goodbye.message
    monkeypatch.undo()
    await (await here.connect()).close()


async def test_a_store_that_cannot_read_refuses_and_goes_on(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look-up that fails is told as a failure that may pass."""

    def away(uids: object) -> Any:
        raise StoreUnavailable("Away.")

    link = await here.connect()
    with monkeypatch.context() as patch:
        patch.setattr(here.store, "bundles", away)
        await link.send(FetchKeys(1, (ADA,)))
        failed = await link.receive()
    assert isinstance(failed, Failed)
    assert failed.code == "store_unavailable"
    assert failed.retry_after_ms > 0
    await link.send(FetchKeys(2, (ADA,)))
    assert await link.receive() == Keys(2, ())
    await link.close()
