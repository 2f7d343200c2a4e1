"""A relay as people run it: a process with its own certificate and database, on a network of a real chain.

`Stage` deploys and starts; `Device` is a client that speaks the protocol through the real transport and
signs with real keys, but encrypts nothing: what a relay carries is opaque to it.
"""

from __future__ import annotations

import asyncio
import copy
import hashlib
import os
import secrets
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from chatchain.client.station import attempts
from chatchain.identity import ed25519
from chatchain.identity.admission import work_for
from chatchain.identity.keys import NOBODY, address_of, new_secret, sign_digest, to_checksum
from chatchain.identity.login import login_proof, verifier_for
from chatchain.identity.record import SUITES, DeviceRecord, encode_record, sign_record
from chatchain.identity.typed_data import register_digest, vote_digest
from chatchain.model import (
    Address,
    Call,
    Copy,
    Delivery,
    Envelope,
    KeyBundle,
    Policy,
    ProposalId,
    RelayAddress,
)
from chatchain.relay.sponsor import is_registration
from chatchain.transport import RelayLink, dial
from chatchain.wire.messages import (
    Acknowledge,
    Deliver,
    Login,
    Message,
    Receive,
    Refused,
    Resume,
    Resumed,
    Sponsor,
    StaleDevices,
    Submit,
    Tick,
    Welcome,
)
from deploy import certificates
from tests.chain.world import World
from tests.fixtures.chains import DevChain
from tests.fixtures.processes import Process, free_port

ROOT: Final = Path(__file__).parents[2]
PATIENCE: Final = 60.0
"""Seconds after which a test gives up waiting for the relay."""

M = TypeVar("M", bound=Message)


@dataclass
class Account:
    """A user's keys: the account, the login key and one device."""

    name: str
    key: bytes = field(default_factory=new_secret, repr=False)
    login_key: bytes = field(default_factory=new_secret, repr=False)
    signer: bytes = field(default_factory=new_secret, repr=False)
    ed25519: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)
    kem_public: bytes = field(default_factory=lambda: secrets.token_bytes(1216), repr=False)
    kdf: bytes = field(default_factory=lambda: b"\x01" + secrets.token_bytes(22))
    uid: int = 0
    device: int = 1
    devices: int = 1
    """Device-list version, as the tests know it."""

    @property
    def address(self) -> Address:
        return address_of(self.key)

    @property
    def verifier(self) -> bytes:
        return verifier_for(self.login_key, self.kdf)

    def record(self, world: World, *, device: int = 1, version: int = 1, uid: int = 0) -> bytes:
        """The bytes that the registry publishes for this device."""
        plain = DeviceRecord(
            suites=SUITES,
            chain_id=world.network.chain_id,
            registry=world.network.registry,
            uid=uid,
            device=device,
            version=version,
            x25519=secrets.token_bytes(32),
            ed25519=ed25519.public_of(self.ed25519),
            signer=address_of(self.signer),
            kem_hash=hashlib.sha256(self.kem_public).digest(),
        )
        return encode_record(sign_record(plain, self.address, self.ed25519))

    def registration(self, world: World) -> Call:
        """The signed call by which a sponsor registers this account."""
        record, deadline, signer = self.record(world), 2**40, address_of(self.signer)
        digest = register_digest(
            world.network, self.name, self.address, self.verifier, self.kdf, NOBODY, signer, record, deadline
        )
        return world.calls.register_for(
            self.address,
            self.name,
            self.verifier,
            self.kdf,
            NOBODY,
            signer,
            record,
            deadline,
            sign_digest(self.key, digest),
        )

    def vote(self, world: World, proposal: int, support: bool) -> Call:
        """The signed call by which a sponsor casts this account's vote."""
        digest = vote_digest(world.network, proposal, self.uid, 0, support)
        return world.calls.vote_by_sig(
            ProposalId(proposal), support, address_of(self.signer), sign_digest(self.signer, digest)
        )


class Stage:
    """A network, and one relay for it that a test may kill and start again."""

    def __init__(self, chain: DevChain, folder: Path, database: str, policy: Policy = Policy.OPEN) -> None:
        self.folder = folder
        self.database = database
        self.world = World(chain, policy)
        self.pair = certificates.make(folder / "certificates")
        self.port = free_port()
        self.metrics_port = free_port()
        self.relays: tuple[RelayAddress, ...] = (
            RelayAddress(f"127.0.0.1:{self.port}", self.pair.spki, bytes(32)),
        )
        self.world.deployer.set_relays(self.world.network, self.relays)
        self.log = folder / "relay.log"
        self.process: Process | None = None
        # The second funded key, so that deploying and sponsoring do not take each other's nonces.
        self.environment = {"PRIVATE_KEY": chain.keys[1], "SPONSOR_WORK_BITS": "8"}

    def beside(self, folder: Path) -> Stage:
        """Another machine of the same operator: the same network, database and certificate, another port.

        Clients of each dial its own machine first and the other if that one does not answer.
        """
        other = copy.copy(self)
        other.folder, other.log, other.process = folder, folder / "relay.log", None
        other.port, other.metrics_port = free_port(), free_port()
        own = RelayAddress(f"127.0.0.1:{other.port}", self.pair.spki, bytes(32))
        self.relays, other.relays = (*self.relays, own), (own, *self.relays)
        self.world.deployer.set_relays(self.world.network, self.relays)
        return other

    def alone(self) -> Stage:
        """The same for clients that dial this machine only."""
        mine = copy.copy(self)
        mine.relays = self.relays[:1]
        return mine

    def command(self, *more: str) -> list[str]:
        return [
            "/usr/bin/env",
            "-C",
            str(self.folder),
            "-i",
            f"PATH={os.environ['PATH']}",
            f"HOME={self.folder}",
            *(f"{name}={value}" for name, value in self.environment.items()),
            sys.executable,
            str(ROOT / "server.py"),
            *("--port", str(self.port), "--db", self.database, "--rpc", self.world.chain.url),
            *("--directory", to_checksum(self.world.network.directory)),
            *("--cert", str(self.pair.certificate), "--key", str(self.pair.key)),
            *("--metrics-port", str(self.metrics_port)),
            *more,
        ]

    def start(self, *more: str) -> Process:
        """Starts the relay and waits until it says that it runs."""
        before = self.log.read_text().count("Server is running on") if self.log.exists() else 0
        process = self.process = Process(self.command(*more), self.log)
        process.wait_until(lambda: self.log.read_text().count("Server is running on") > before)
        return process

    def register(self, name: str) -> Account:
        """A registered account; the deployer pays."""
        account = Account(name)
        self.world.writer.send(account.registration(self.world), bytes.fromhex(self.world.chain.keys[2][2:]))
        self.settle(account)
        return account

    def settle(self, account: Account) -> None:
        """Looks up the id that the registry gave to an account, once its transaction is mined."""
        view = self.world.view()
        end = time.monotonic() + PATIENCE
        view.sync()
        while (user := view.user_by_name(account.name)) is None:
            assert time.monotonic() < end, f"{account.name} is not on the chain"
            time.sleep(0.05)
            view.sync()
        account.uid = user.uid

    def stop(self) -> None:
        if self.process is not None:
            self.process.stop()


class Device:
    """A client of the relay: sends, receives and remembers what it was told."""

    def __init__(self, stage: Stage, account: Account) -> None:
        self.stage = stage
        self.account = account
        self.link: RelayLink | None = None
        self.welcome: Welcome | None = None
        self.received: list[Delivery] = []

    async def connect(self) -> Device:
        """Dials and logs in."""
        self.link = await dial(self.stage.relays)
        return await self.log_in()

    async def log_in(self) -> Device:
        """Logs in on the link that is open."""
        await self.say(self.proof())
        self.welcome = await self.expect(Welcome)
        return self

    def proof(self, nonce: bytes | None = None) -> Login:
        """The login message for this connection's challenge, or for another nonce."""
        assert self.link is not None
        account = self.account
        proof = login_proof(
            self.stage.world.network,
            spki=self.link.spki,
            nonce=nonce if nonce is not None else self.link.challenge.nonce,
            uid=account.uid,
            device=account.device,
            epoch=0,
            login_key=account.login_key,
            signer=account.signer,
        )
        return Login(
            account.uid, account.device, 0, account.kdf, proof.login_signature, proof.device_signature
        )

    async def expect(self, kind: type[M]) -> M:
        """The next message, which must be of this kind."""
        message = await self.next()
        assert isinstance(message, kind), f"{message} instead of {kind.__name__}"
        return message

    async def next(self) -> Message:
        assert self.link is not None
        async with asyncio.timeout(PATIENCE):
            return await self.link.receive()

    async def say(self, message: Message) -> None:
        assert self.link is not None
        await self.link.send(message)  # type: ignore[arg-type]  # tests say what a client should not, too

    def envelope(self, to: Account, body: bytes = b"sealed", **changes: object) -> Envelope:
        """An envelope for another account's first device."""
        plain = Envelope(
            secrets.token_bytes(16),
            1,
            to.uid,
            to.devices,
            self.account.devices,
            body,
            (Copy(to.uid, to.device, b"header"),),
        )
        return msgspec.structs.replace(plain, **changes)

    async def send(self, to: Account, body: bytes = b"sealed", **changes: object) -> Message:
        """Submits one envelope and gives the answer to it."""
        return await self.submit(self.envelope(to, body, **changes))

    async def submit(self, envelope: Envelope) -> Message:
        await self.say(Submit(envelope))
        while True:
            message = await self.next()
            if isinstance(message, Tick | Refused | StaleDevices):
                assert message.id == envelope.id
                return message
            assert isinstance(message, Deliver)
            self.received.append(message.delivery)

    async def receive(self, count: int, *, acknowledge: bool = True) -> list[Delivery]:
        """The next deliveries, acknowledged one by one."""
        while len(self.received) < count:
            delivery = (await self.expect(Deliver)).delivery
            self.received.append(delivery)
            if acknowledge:
                await self.say(Acknowledge((delivery.sequence,)))
        taken, self.received = self.received[:count], self.received[count:]
        return taken

    async def begin(self) -> Device:
        """Connects and asks for deliveries."""
        await self.connect()
        await self.say(Receive(0))
        return self

    async def begin_again(self) -> Device:
        """Connects as a client whose relay was lost: until it works, with the real one's pauses.

        The kernel gives a new connection to a process that dies in that moment, too, and resets it then.
        """
        async for attempt in attempts():
            with attempt:
                try:
                    return await self.begin()
                except BaseException:
                    await self.close()
                    raise
        raise AssertionError("unreachable")

    async def resume(self, space: int, after: int) -> Resumed:
        """Asks for the deliveries behind a sequence of a space."""
        await self.say(Resume(space, after))
        return await self.expect(Resumed)

    async def sponsor(self, call: Call, ref: int = 1, *, admission: bytes | None = None) -> Message:
        """Asks the relay to pay for a call."""
        await self.say(self.request(call, ref, admission=admission))
        return await self.next()

    def request(self, call: Call, ref: int = 1, *, admission: bytes | None = None) -> Sponsor:
        """The request for a call, with the work that the relay asks for where nothing else is given."""
        if admission is None:
            assert self.link is not None
            challenge = self.link.challenge
            work = challenge.work if is_registration(call) else 0
            admission = work_for(challenge.nonce, ref, call, work) if work else b""
        return Sponsor(ref, call.contract, call.data, admission)

    def bundle(self, **changes: object) -> KeyBundle:
        """This device's key bundle; the relay checks its hash and leaves the signature to the clients."""
        account = self.account
        plain = KeyBundle(
            account.uid, account.device, 1, account.kem_public, 1, 2**40, secrets.token_bytes(64)
        )
        return msgspec.structs.replace(plain, **changes)

    async def close(self) -> None:
        if self.link is not None:
            await self.link.close()
