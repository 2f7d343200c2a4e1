"""Two people's devices that list suite 2, and sessions between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec

from chatchain.crypto import prekeys, session
from chatchain.crypto.device import DeviceSecrets
from chatchain.crypto.pqxdh import Party
from chatchain.crypto.prekeys import NOTHING, Past, PrekeyBundle, PrekeyStore, Upload
from chatchain.crypto.session import Session
from chatchain.identity.record import decode_record, sign_record
from chatchain.model import Network, Suite
from tests.identity.people import BLOCK_TIME, NETWORK, Person, person

NOW: Final = BLOCK_TIME
BOTH_SUITES: Final = 1 << Suite.SEALED | 1 << Suite.RATCHET


@dataclass(frozen=True)
class Device:
    """A device with its secrets and its record, which lists suite 2."""

    owner: Person
    secrets: DeviceSecrets
    party: Party

    def upload(self, store: PrekeyStore, network: Network = NETWORK, since: int = 0) -> Upload:
        """Gives what the device publishes."""
        record = self.party.record
        return prekeys.upload(
            store,
            network,
            self.secrets,
            uid=self.party.uid,
            device=record.device,
            version=record.version,
            since=since,
        )

    def bundle(self, store: PrekeyStore, *, one_time: bool = True, one_time_kem: bool = True) -> PrekeyBundle:
        """Gives the bundle that a relay would hand out."""
        up = self.upload(store)
        return PrekeyBundle(
            self.party.uid,
            self.party.record.device,
            self.party.record.version,
            up.signed,
            up.kem_one_time[0] if one_time_kem else up.last_resort,
            up.one_time[0] if one_time else None,
        )

    def begin(self, other: Device, bundle: PrekeyBundle, now: int = NOW) -> Session:
        """Begins a session with another device."""
        return session.initiate(NETWORK, self.secrets, self.party, other.party, bundle, now)

    def accept(
        self,
        store: PrekeyStore,
        other: Device,
        message: bytes,
        ad: bytes = b"",
        now: int = NOW,
        *,
        past: Past = NOTHING,
    ) -> tuple[PrekeyStore, Session, bytes]:
        """Answers another device's initial message."""
        return session.accept(store, past, self.secrets, self.party, other.party, message, ad, now)


def device(name: str, number: int = 1, rotated: bool = False, suites: int = BOTH_SUITES) -> Device:
    """Gives somebody's device; `rotated`: in its second key version."""
    owner = person(name)
    if number == 2:
        owner = owner.with_second_device()
    if rotated:
        owner = owner.rotated(number)
    secrets = owner.secrets(number)
    listed = decode_record(owner.user.devices[number - 1].current.record)
    record = sign_record(
        msgspec.structs.replace(listed, suites=suites, signature=b""), owner.user.account, secrets.ed25519
    )
    return Device(owner, secrets, Party(owner.uid, record))


ADA: Final = device("ada")
BOB: Final = device("bob")
MALLORY: Final = device("mallory")
STORE: Final = prekeys.new_store(NOW)
"""Bob's prekeys."""

BUNDLE: Final = BOB.bundle(STORE)


def restarted(store: PrekeyStore, past: Past = NOTHING) -> tuple[PrekeyStore, Past]:
    """The store as the next program reads it, and what is remembered beside it, all of one user."""
    marks = past.marks | {each.mark for each in store.begun}
    return prekeys.decode_store(prekeys.encode_store(store)), Past(marks)


def pair() -> tuple[Session, Session]:
    """Gives Ada's and Bob's side of a fresh session whose first message has arrived."""
    ada, message = session.encrypt(ADA.begin(BOB, BUNDLE), b"first", b"")
    _, bob, _ = BOB.accept(STORE, ADA, message)
    return ada, bob


def settled() -> tuple[Session, Session]:
    """Gives both sides after Ada has had an answer."""
    ada, bob = pair()
    bob, message = session.encrypt(bob, b"answer", b"")
    ada, _ = session.decrypt(ada, message, b"", NOW)
    return ada, bob


def ping_pong(ada: Session, bob: Session, rounds: int, now: int = NOW) -> tuple[Session, Session]:
    """Lets both say something in turn, without loss."""
    for _ in range(rounds):
        ada, message = session.encrypt(ada, b"ping", b"")
        bob, _ = session.decrypt(bob, message, b"", now)
        bob, message = session.encrypt(bob, b"pong", b"")
        ada, _ = session.decrypt(ada, message, b"", now)
    return ada, bob
