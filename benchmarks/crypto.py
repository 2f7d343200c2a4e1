"""How fast the end-to-end encryption is, on one core: handshakes, messages, groups, files.

Prints JSON lines only. Every case runs in a fresh process that is bound to one core, several rounds of it; a
figure is the best round's, since other work on the machine can only add to the time. What is counted stands
at each case.
"""

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

if TYPE_CHECKING:
    from chatchain.crypto.prekeys import PrekeyBundle, PrekeyStore
    from chatchain.crypto.session import Session

Figures = dict[str, float]
CASES: Final[dict[str, Callable[[], Figures]]] = {}
ROUNDS: Final = 15
TIMEOUT: Final = 200


def case(measure: Callable[[], Figures]) -> Callable[[], Figures]:
    """Enters a case under its function's name."""
    CASES[measure.__name__] = measure
    return measure


def best(
    work: Callable[[], object], prepare: Callable[[], object] = lambda: None, rounds: int = ROUNDS
) -> float:
    """The seconds of the fastest round; `prepare` runs before each and is not counted."""
    fastest = float("inf")
    for _ in range(rounds):
        prepare()
        start = time.perf_counter()
        work()
        fastest = min(fastest, time.perf_counter() - start)
    return fastest


def main() -> None:
    """Measures every case, or one in this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", choices=sorted(CASES))
    wanted = parser.parse_args().case
    if wanted:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        print(json.dumps({"bench": "crypto", "case": wanted, **CASES[wanted]()}), flush=True)
        return
    for name in CASES:
        command = [sys.executable, __file__, "--case", name]
        told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=TIMEOUT)
        print(told.stdout, end="", flush=True)


# --- two devices ------------------------------------------------------------------------------------------

NOW: Final = 1_700_000_000
HANDSHAKES: Final = 10
IN_ORDER: Final = 300
MANY_ROUNDS: Final = 150
"""Of short work: some of them meet a core that nobody else wants."""
ROUND_TRIPS: Final = 104
"""Twice as many messages: four KEM steps."""
CONVERSATION: Final = 520
"""Round trips that the sizes are averaged over."""
SHORT: Final = bytes(256)


class Device:
    """A device with fresh keys and a record that lists suite 2."""

    def __init__(self, uid: int) -> None:
        from chatchain.crypto.device import DeviceSecrets
        from chatchain.crypto.pqxdh import Party
        from chatchain.identity.record import DeviceRecord, sign_record
        from chatchain.model import Address, Network, Suite

        self.network = Network(31337, Address(b"\xd1" * 20), Address(b"\x1d" * 20), Address(b"\x3b" * 20))
        self.secrets = DeviceSecrets.generate()
        record = DeviceRecord(
            suites=1 << Suite.RATCHET,
            chain_id=self.network.chain_id,
            registry=self.network.registry,
            uid=uid,
            device=1,
            version=1,
            x25519=self.secrets.x25519_public,
            ed25519=self.secrets.ed25519_public,
            signer=self.secrets.signer_address,
            kem_hash=bytes(32),
        )
        self.party = Party(uid, sign_record(record, Address(bytes(20)), self.secrets.ed25519))

    def bundles(self, store: "PrekeyStore") -> "list[PrekeyBundle]":
        """What a relay would hand out, one after the other."""
        from chatchain.crypto.prekeys import PrekeyBundle, upload

        up = upload(store, self.network, self.secrets, uid=self.party.uid, device=1, version=1, since=0)
        return [
            PrekeyBundle(self.party.uid, 1, 1, up.signed, kem, one_time)
            for kem, one_time in zip(up.kem_one_time, up.one_time, strict=True)
        ]


def begun() -> "tuple[Session, Session]":
    """Both sides of a session after the first answer."""
    from chatchain.crypto import prekeys, session

    ada, bob = Device(1), Device(2)
    store = prekeys.new_store(NOW)
    mine = session.initiate(ada.network, ada.secrets, ada.party, bob.party, bob.bundles(store)[0], NOW)
    mine, message = session.encrypt(mine, SHORT, b"")
    _, theirs, _ = session.accept(
        store, prekeys.NOTHING, bob.secrets, bob.party, ada.party, message, b"", NOW
    )
    theirs, message = session.encrypt(theirs, SHORT, b"")
    return session.decrypt(mine, message, b"", NOW)[0], theirs


@case
def sessions() -> Figures:
    """Both sides of a handshake with all one-time keys: the bundle's signatures checked, the first message
    sealed and opened, the prekeys used up."""
    from chatchain.crypto import prekeys, session

    ada, bob = Device(1), Device(2)
    first = prekeys.new_store(NOW)
    bundles = bob.bundles(first)[:HANDSHAKES]

    def shake() -> None:
        store = first
        for bundle in bundles:
            mine = session.initiate(ada.network, ada.secrets, ada.party, bob.party, bundle, NOW)
            _, message = session.encrypt(mine, SHORT, b"")
            store, _, _ = session.accept(
                store, prekeys.NOTHING, bob.secrets, bob.party, ada.party, message, b"", NOW
            )
        assert len(store.one_time) == len(first.one_time) - HANDSHAKES

    return {"sessions_per_s": round(HANDSHAKES / best(shake, rounds=MANY_ROUNDS))}


@case
def in_order_saved() -> Figures:
    """Messages one way, 256 bytes each, encrypted and decrypted; both states loaded and saved each time."""
    from chatchain.crypto import session

    states = [session.encode_session(each) for each in begun()]

    def talk() -> None:
        for _ in range(IN_ORDER):
            mine, message = session.encrypt(session.decode_session(states[0]), SHORT, b"")
            states[0] = session.encode_session(mine)
            theirs, _ = session.decrypt(session.decode_session(states[1]), message, b"", NOW)
            states[1] = session.encode_session(theirs)

    return {"in_order_saved_per_s": round(IN_ORDER / best(talk, rounds=MANY_ROUNDS))}


@case
def ping_pong() -> Figures:
    """Messages in turn, so that each takes a DH step; KEM steps included; states stay in memory.

    The sizes are of the same conversation: what a message is longer than its text, on average, and the
    largest state on the way, also at the beginning.
    """
    from chatchain.crypto import prekeys, session

    sides = list(begun())

    def talk() -> None:
        for _ in range(ROUND_TRIPS):
            sides[0], message = session.encrypt(sides[0], SHORT, b"")
            sides[1], _ = session.decrypt(sides[1], message, b"", NOW)
            sides[1], message = session.encrypt(sides[1], SHORT, b"")
            sides[0], _ = session.decrypt(sides[0], message, b"", NOW)

    seconds = best(talk, rounds=MANY_ROUNDS)
    assert sides[0].ratchet.epoch >= MANY_ROUNDS * 2 * ROUND_TRIPS // 54
    ada, bob = Device(1), Device(2)
    store = prekeys.new_store(NOW)
    mine = session.initiate(ada.network, ada.secrets, ada.party, bob.party, bob.bundles(store)[0], NOW)
    mine, message = session.encrypt(mine, SHORT, b"")
    _, theirs, _ = session.accept(
        store, prekeys.NOTHING, bob.secrets, bob.party, ada.party, message, b"", NOW
    )
    sizes, states = [len(message) - len(SHORT)], [len(session.encode_session(mine))]
    for _ in range(CONVERSATION):
        theirs, message = session.encrypt(theirs, SHORT, b"")
        mine, _ = session.decrypt(mine, message, b"", NOW)
        sizes.append(len(message) - len(SHORT))
        mine, message = session.encrypt(mine, SHORT, b"")
        theirs, _ = session.decrypt(theirs, message, b"", NOW)
        sizes.append(len(message) - len(SHORT))
        states += [len(session.encode_session(each)) for each in (mine, theirs)]
    return {
        "ping_pong_per_s": round(2 * ROUND_TRIPS / seconds),
        "overhead_bytes": round(sum(sizes) / len(sizes), 1),
        "state_bytes": max(states),
    }


# --- groups and files -----------------------------------------------------------------------------------

GROUP_SIZE: Final = 500
FILE_BYTES: Final = 25_000_000
PLAINTEXT: Final = bytes(256)
"""A short text in the smallest bucket of padding."""


@case
def group_fanout() -> Figures:
    """A rotation in a group of 500: the reason found, a chain drawn, its key encrypted in 499 pairwise
    sessions, each loaded and saved; the message encrypted once.

    Every session has been answered since it was last sent on, so each takes its Diffie-Hellman step: the
    dearest way. `ongoing_ms` is the same where none was; one in fifty makes its KEM step there.
    """
    import msgspec

    from chatchain.crypto import groups, ratchet, x25519
    from chatchain.crypto.padding import pad

    def ongoing(number: int) -> ratchet.Ratchet:
        keys = ratchet.SharedKeys(*(os.urandom(32) for _ in range(4)))
        state = ratchet.initiate(keys, x25519.public_of(os.urandom(32)))
        return msgspec.structs.replace(state, since=1 + number % ratchet.KEM_INTERVAL)

    def answered() -> ratchet.Ratchet:
        keys, dhs = ratchet.SharedKeys(*(os.urandom(32) for _ in range(4))), os.urandom(32)
        _, message = ratchet.encrypt(ratchet.initiate(keys, x25519.public_of(dhs)), b"", b"")
        return ratchet.decrypt(ratchet.respond(keys, dhs), message, b"", 0)[0]

    sender = groups.Sender(1, 1)
    members = frozenset(groups.Listener(uid, 1, 0) for uid in range(2, GROUP_SIZE + 1))
    before = groups.GroupEpoch(bytes(32), 1, bytes(32))
    now = groups.GroupEpoch(bytes(32), 2, hashlib.sha256(b"").digest())
    stored = groups.start(before, sender, members, 0).encode()
    kept: list[bytes] = []
    sent: list[int] = []

    def rotate(sessions: list[bytes]) -> None:
        kept.clear()
        sent.clear()
        old = groups.SendingChain.decode(stored)
        if not groups.rotation_due(old, now, members, 0):
            raise AssertionError("nothing to do")
        chain = groups.start(now, sender, members, 0, old)
        given = pad(groups.distribution(chain).encode())
        for state in sessions:
            after, copy = ratchet.encrypt(ratchet.decode_ratchet(state), given, b"")
            kept.append(ratchet.encode_ratchet(after))
            sent.append(len(copy))
        chain, message = groups.encrypt(chain, now, PLAINTEXT)
        kept.append(chain.encode())
        sent.append(len(message))

    turning = [ratchet.encode_ratchet(answered()) for _ in members]
    going = [ratchet.encode_ratchet(ongoing(number)) for number in range(len(members))]
    slow, fast = best(lambda: rotate(turning)), best(lambda: rotate(going))
    assert len(sent) == len(kept) == GROUP_SIZE
    return {
        "group_500_fanout_ms": round(slow * 1e3, 1),
        "ongoing_ms": round(fast * 1e3, 1),
        "sent_bytes": sum(sent),
    }


@case
def group_messages() -> Figures:
    """Messages of one chain, 256 bytes each, encrypted, then opened in order; the states stay in memory."""
    from chatchain.crypto import groups

    count = groups.MAX_CHAIN_MESSAGES
    epoch = groups.GroupEpoch(bytes(32), 1, bytes(32))
    sender = groups.Sender(1, 1)
    first = groups.start(epoch, sender, [groups.Listener(uid, 1, 0) for uid in range(2, GROUP_SIZE + 1)], 0)
    messages: list[bytes] = []

    def encrypt() -> None:
        chain = first
        messages.clear()
        for _ in range(count):
            chain, message = groups.encrypt(chain, epoch, PLAINTEXT, b"associated data")
            messages.append(message)

    def decrypt() -> None:
        keys = groups.accept(
            groups.SenderKeys(bytes(32), sender), groups.distribution(first), {1: bytes(32)}, 0
        )
        for message in messages:
            keys, _ = groups.decrypt(keys, message, b"associated data", 0)

    return {
        "group_encrypt_per_s": round(count / best(encrypt)),
        "group_decrypt_per_s": round(count / best(decrypt)),
        "group_overhead_bytes": groups.OVERHEAD_BYTES,
    }


@case
def file_25mb() -> Figures:
    """A file of 25,000,000 bytes sealed, and opened; the slower of both.

    Pieces are made and dropped on the way, as if from and to a disk. The memory is what the process grew by.
    """
    from chatchain.crypto.attachments import PIECE_BYTES, FileRef, Opener, Sealer, blob_size

    piece = os.urandom(PIECE_BYTES)

    def source() -> Iterator[bytes]:
        left = FILE_BYTES
        while left:
            yield piece[:left]
            left -= min(left, len(piece))

    def seal(keep: list[bytes] | None = None) -> FileRef:
        sealer = Sealer(FILE_BYTES)
        for part in source():
            made = sealer.update(part)
            if keep is not None:
                keep.append(made)
        end, file = sealer.finish()
        if keep is not None:
            keep.append(end)
        return file

    def open_() -> None:
        opener = Opener(file)
        for part in blob:
            opener.update(part)
        opener.finish()

    small = Sealer(1)
    small.update(b"x")
    small.finish()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sealing = best(seal)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    blob: list[bytes] = []
    file = seal(blob)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    opening = best(open_)
    grown = max(grown, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    assert sum(map(len, blob)) == blob_size(FILE_BYTES)
    return {
        "file_25mb_ms": round(max(sealing, opening) * 1e3, 1),
        "seal_ms": round(sealing * 1e3, 1),
        "open_ms": round(opening * 1e3, 1),
        "extra_mb": round(grown * 1024 / 1e6, 1),
    }


if __name__ == "__main__":
    main()
