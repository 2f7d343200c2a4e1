"""A user with one device: registers, logs in, writes, reads."""

import hashlib
import os
import time
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
from eth_account import Account
from eth_keys.datatypes import PrivateKey
from eth_utils.crypto import keccak
from nacl.pwhash import argon2id

from tests.second import relay
from tests.second.chain import Chain, Device, User, calldata, sign
from tests.second.files import blob_size, open_file, seal_file
from tests.second.keys import DeviceKeys, Prekeys, Session, handshake_of
from tests.second.primitives import hkdf, pad, seal, sha256, unpad, unseal
from tests.second.ratchet import Unreadable
from tests.second.relay import Line

TEXT, RECEIPT, FILE, EDIT, DELETE, REPLY, REACTION = range(1, 8)
DELIVERED, READ = 1, 2

_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141  # of secp256k1
_REGISTER = (
    "Register(string username,address account,bytes32 verifier,bytes kdf,address recovery,"
    "address signer,bytes record,uint256 deadline)"
)
_REGISTER_FOR = "registerFor(address,string,bytes32,bytes,address,address,bytes,uint256,bytes)"
_LOGIN = "Login(bytes32 spki,bytes32 nonce,uint64 uid,uint32 device,uint32 epoch)"
_NOBODY = "0x" + "00" * 20
_BODY = b"chatchain/2 body"
_STOCK, _FEW = 50, 20
_PIECE = 196_608
_SILENCE = 10  # seconds; after 15 the relay asks, after 40 it hangs up


@dataclass(frozen=True)
class Message:
    """What came in: who wrote it under which id and when, and its content."""

    sender: int
    id: bytes
    time_ms: int
    content: list[Any]


class Person:
    """Everything that one device holds, in memory."""

    me: Device
    _user: User
    _prekeys: Prekeys
    _line: Line | None = None

    def __init__(self, chain: Chain, password: str) -> None:
        self.chain, self.keys = chain, DeviceKeys()
        self.account = Account.create()
        self._kdf = b"\x01" + os.urandom(16) + b"\x01" + (8192).to_bytes(4) + b"\x01"
        self._login_key = login_key(password, os.urandom(16), self._kdf)
        self.sessions: dict[tuple[int, int], list[Session]] = {}  # of a device; the one to send on last
        self.repeats = 0
        self._seen: set[tuple[int, bytes]] = set()
        self._space, self._after = 0, 0

    @property
    def line(self) -> Line:
        """The connection for messages; another one where nobody answered the relay's pings on it."""
        if self._line is None or self._line.silence > _SILENCE:
            self.connect()
        assert self._line is not None
        return self._line

    def register(self, name: str) -> None:
        """Have the relay pay, and find oneself on the chain."""
        account, signer = self.account.address, self.keys.address
        verifier = keccak(PrivateKey(self._login_key).public_key.to_bytes() + self._kdf)
        record, deadline = self.keys.record(self.chain.network, account), int(time.time()) + 600
        digest = self.chain.digest(
            _REGISTER, username=name, account=account, verifier=verifier, kdf=self._kdf,
            recovery=_NOBODY, signer=signer, record=record, deadline=deadline,
        )  # fmt: skip
        agreed = sign(self.account.key, digest)
        line = Line(self.chain)
        transaction = line.sponsor(
            calldata(
                _REGISTER_FOR, account, name, verifier, self._kdf, _NOBODY, signer, record, deadline, agreed
            )
        )
        line.close()
        while not self.chain.mined(transaction):
            time.sleep(0.05)
        uid = self.chain.uid_of(name)
        self.me, self._user = self.chain.devices(uid)[1][1], self.chain.user(uid)
        self._prekeys = Prekeys(self.chain.network, self.keys, self.me)

    def connect(self) -> int:
        """Log in, lay out keys, go on where the last connection ended; gives how many messages wait."""
        self.disconnect()
        self._line = Line(self.chain)
        _, _, waiting, _ = self._enter(self._line, relay.LOGIN, relay.WELCOME)
        self._publish()
        self._line.send(relay.RESUME, self._space, self._after)
        _, self._space, self._after = self._line.read(relay.RESUMED)
        return int(waiting)

    def disconnect(self) -> None:
        if self._line:
            self._line.close()
        self._line = None

    def send(self, to: int, *content: Any) -> bytes:
        """Encrypt once, make a header for each device, and wait for the tick."""
        ident, body_key, now = os.urandom(16), os.urandom(32), int(time.time() * 1000)
        inside = b"\x01" + now.to_bytes(8) + b"\x01" + msgspec.msgpack.encode(content)
        body = seal(body_key, pad(inside), _BODY)
        peers = self._current(to)
        if content[0] != RECEIPT:
            peers += [own for own in self._current(self.me.uid) if own.number != self.me.number]
        self._begin([peer for peer in peers if not self._usable(peer)])
        opens, bound, copies = body_key + sha256(body), self._bound(ident, self.me, to), []
        for peer in peers:
            usable = self._usable(peer)
            header = usable[-1].encrypt(opens, bound) if usable else b""
            copies.append([peer.uid, peer.number, header])
        lists = (self.chain.user(uid).list_version for uid in (to, self.me.uid))
        self.line.send(relay.SUBMIT, [ident, 2, to, *lists, body, copies])
        self.line.read(relay.TICK, about=ident)
        return ident

    def receive(self) -> Message:
        """Wait for the next message that is new, and acknowledge it."""
        while True:
            _, (sequence, ident, suite, sender, *rest) = self.line.read(relay.DELIVER)
            message = None
            if (sender, ident) in self._seen:
                self.repeats += 1
            else:
                message = self._open(ident, suite, sender, *rest)
            self._seen.add((sender, ident))
            self._after = sequence
            self.line.send(relay.ACKNOWLEDGE, [sequence])
            if message:
                return message

    def texts(self) -> Iterator[Message]:
        """What comes in, without receipts."""
        while True:
            message = self.receive()
            if message.content[0] != RECEIPT:
                yield message

    def send_file(self, to: int, content: bytes, name: str, kind: str) -> bytes:
        """Seal a file, bring it to the relay, and tell of it."""
        key, blob = seal_file(content)
        line = Line(self.chain)
        self._enter(line, relay.ENTER_FILES, relay.FILES_OPEN)
        tag, ref, at = line.ask(
            relay.UPLOAD, sha256(blob), len(blob), answers=(relay.UPLOADING, relay.STORED)
        )
        if tag == relay.UPLOADING:
            for start in range(at, len(blob), _PIECE):
                line.send(relay.PIECE, ref, blob[start : start + _PIECE])
            line.read(relay.STORED, about=ref)
        line.close()
        return self.send(to, FILE, sha256(blob), name, kind, key, len(content), sha256(content))

    def fetch_file(self, message: Message) -> bytes:
        _, ident, _, _, key, size, digest, *_ = message.content
        line = Line(self.chain)
        self._enter(line, relay.ENTER_FILES, relay.FILES_OPEN)
        length = blob_size(size)
        _, ref, whole = line.ask(relay.FETCH, ident, 0, length, answers=(relay.FETCHING,))
        if whole != length:
            raise ValueError("a blob of another size")
        blob = b""
        while len(blob) < length:
            blob += line.read(relay.PIECE, about=ref)[2]
        line.close()
        return open_file(key, size, digest, blob)

    def _enter(self, line: Line, tag: int, answer: int) -> list[Any]:
        place = {"uid": self.me.uid, "device": self.me.number, "epoch": self._user.epoch}
        digest = self.chain.digest(_LOGIN, spki=line.spki, nonce=line.nonce, **place)
        line.send(
            tag, *place.values(), self._kdf, sign(self._login_key, digest), sign(self.keys.signer, digest)
        )
        return line.read(answer)

    def _publish(self) -> None:
        bundle = self.keys.key_bundle(self.chain.network, self.me)
        self.line.ask(relay.PUBLISH_KEYS, bundle, answers=(relay.DONE,))
        keys: list[Any] = [b"", b"", [], []]
        for _ in range(2):  # ask first, and publish what is missing
            left = self.line.ask(
                relay.PUBLISH_PREKEYS, self.me.version, *keys, answers=(relay.PREKEYS_LEFT,)
            )[2]
            if left >= _FEW:
                break
            keys = self._prekeys.more(_STOCK - left)

    def _current(self, uid: int) -> list[Device]:
        """A user's active devices, each with its keys in force."""
        devices = self.chain.devices(uid)
        return [devices[number][max(devices[number])] for number in sorted(devices)]

    def _usable(self, peer: Device) -> list[Session]:
        """The sessions with a device's keys in force."""
        sessions = self.sessions.setdefault((peer.uid, peer.number), [])
        return [session for session in sessions if session.version == peer.version]

    def _begin(self, peers: list[Device]) -> None:
        """Begin sessions with those who published prekeys, in one request for all."""
        if peers:
            wanted = [[peer.uid, peer.number] for peer in peers]
            _, _, bundles, _ = self.line.ask(relay.FETCH_PREKEYS, wanted, answers=(relay.PREKEYS,))
            by_place = {bundle[1:17]: bundle for bundle in bundles}
            for peer in peers:
                if bundle := by_place.get(peer.place):
                    session = Session.begin(self.chain.network, self.keys, self.me, peer, bundle)
                    self.sessions[peer.uid, peer.number].append(session)

    def _open(
        self, ident: bytes, suite: int, sender: int, device: int, to: int, at: int, header: bytes, body: bytes
    ) -> Message:
        if suite != 2 or self.me.uid not in (sender, to):
            raise Unreadable("another suite, or not for us")
        versions = self.chain.devices(sender)[device]
        session, text = self._unlock(versions, header, self._bound(ident, versions[max(versions)], to))
        if sha256(body) != text[32:]:
            raise Unreadable("another body")
        inside = unpad(unseal(text[:32], body, _BODY))
        time_ms = int.from_bytes(inside[1:9])
        if not self.chain.may_sign(versions, session.version, time_ms, at):
            raise Unreadable("written with keys that were replaced")
        content = msgspec.msgpack.decode(inside[10:])
        if (inside[0], inside[9], inside[10:]) != (1, 1, msgspec.msgpack.encode(content)):
            raise Unreadable("another format, or spelling")
        return Message(sender, ident, time_ms, content)

    def _unlock(self, versions: dict[int, Device], header: bytes, bound: bytes) -> tuple[Session, bytes]:
        """The session that opens a header, which is the one to send on from now, and what is in it."""
        peer = versions[max(versions)]
        sessions = self.sessions.setdefault((peer.uid, peer.number), [])
        handshake = handshake_of(header)
        if handshake and sha256(handshake) not in [session.name for session in sessions]:
            session = Session.answer(self._prekeys, self.keys, self.me, versions, handshake)
            text = session.decrypt(header, bound)
            self._prekeys.used(handshake)
            sessions.append(session)
            return session, text
        for session in reversed(sessions):
            try:
                text = session.decrypt(header, bound)
            except Unreadable:
                continue
            sessions.remove(session)
            sessions.append(session)
            return session, text
        raise Unreadable("no session opens that")

    def _bound(self, ident: bytes, sender: Device, to: int) -> bytes:
        place = sender.uid.to_bytes(8) + sender.number.to_bytes(4) + to.to_bytes(8)
        return b"chatchain/2 header" + bytes(self.chain.network) + ident + place


def login_key(password: str, account_secret: bytes, kdf: bytes) -> bytes:
    spelled = unicodedata.normalize("NFC", password).encode()
    memory = int.from_bytes(kdf[18:22]) * 1024
    stretched = argon2id.kdf(32, spelled, kdf[1:17], opslimit=kdf[17], memlimit=memory)
    wide = hkdf(stretched + account_secret, b"chatchain/1 login key", 48)
    return (int.from_bytes(wide) % (_ORDER - 1) + 1).to_bytes(32)


def fingerprint(uid: int, account: bytes) -> bytes:
    """One side of a safety number."""
    text = b"\0\0" + account + str(uid).encode()
    for _ in range(5200):
        text = hashlib.sha512(text + account).digest()
    return text


def safety_number(one: User, other: User) -> str:
    halves = []
    for user in (one, other):
        text = fingerprint(user.uid, user.account)
        halves.append(" ".join(f"{int.from_bytes(text[n : n + 5]) % 100_000:05}" for n in range(0, 30, 5)))
    return " ".join(sorted(halves))
