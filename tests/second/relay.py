"""Connections to the relay: TLS 1.3, the pin, frames, login, work."""

import itertools
import socket
import ssl
import time
from collections import deque
from collections.abc import Collection
from typing import Any

import msgspec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import load_der_x509_certificate

from tests.second.chain import Chain
from tests.second.primitives import sha256

LOGIN, SUBMIT, ACKNOWLEDGE, PUBLISH_KEYS, SPONSOR, PING, PONG = 1, 2, 4, 5, 7, 8, 9
PUBLISH_PREKEYS, FETCH_PREKEYS, RESUME, ENTER_FILES, UPLOAD, FETCH, PIECE = 10, 11, 12, 16, 17, 18, 20
CHALLENGE, WELCOME, TICK, REFUSED, STALE_DEVICES, DELIVER, SPONSORED = 32, 33, 34, 35, 36, 37, 39
DONE, FAILED, GOODBYE, PREKEYS_LEFT, PREKEYS, RESUMED = 40, 41, 42, 43, 44, 45
FILES_OPEN, UPLOADING, STORED, FETCHING = 48, 49, 50, 51
_VERSION = 2  # of the protocol


class Said(Exception):
    """The relay said no: tag, and what it said."""


class Line:
    """One connection, up to the challenge."""

    def __init__(self, chain: Chain) -> None:
        host, port, pins = chain.relay()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # the pin alone counts
        self._socket = context.wrap_socket(socket.create_connection((host, port), 30))
        self._socket.settimeout(120)
        self._heard = time.monotonic()
        certificate = load_der_x509_certificate(self._socket.getpeercert(binary_form=True) or b"")
        key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.spki = sha256(key)
        if self.spki not in pins:
            raise Said("another certificate")
        self._waiting: deque[list[Any]] = deque()
        self._refs = itertools.count(1)
        _, version, self.nonce, chain_id, directory, _, self.work = self.read(CHALLENGE)
        expected = (_VERSION, chain.network.chain_id, bytes.fromhex(chain.directory[2:]))
        if (version, chain_id, directory) != expected:
            raise Said("another protocol, or network")

    @property
    def silence(self) -> float:
        """Seconds since something came."""
        return time.monotonic() - self._heard

    def close(self) -> None:
        self._socket.close()

    def send(self, *message: Any) -> None:
        frame = msgspec.msgpack.encode(message)
        self._socket.sendall(len(frame).to_bytes(4) + frame)

    def ask(self, tag: int, *fields: Any, answers: Collection[int]) -> list[Any]:
        """Send with a ref of its own, and wait for the answer."""
        ref = next(self._refs)
        self.send(tag, ref, *fields)
        return self.read(*answers, about=ref)

    def read(self, *tags: int, about: object = None) -> list[Any]:
        """The first message of these tags; what comes before it waits."""
        for message in list(self._waiting):
            if message[0] in tags and about in (None, message[1]):
                self._waiting.remove(message)
                return message
        while True:
            message = msgspec.msgpack.decode(self._exactly(int.from_bytes(self._exactly(4))))
            if message[0] == PING:
                self.send(PONG, message[1])
            elif message[0] in tags and about in (None, message[1]):
                return list(message)
            elif message[0] == GOODBYE or (message[0] in (FAILED, REFUSED) and about in (None, message[1])):
                raise Said(*message)
            else:
                self._waiting.append(message)

    def _exactly(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            piece = self._socket.recv(count - len(data))
            if not piece:
                raise Said("the relay hung up")
            data += piece
        self._heard = time.monotonic()
        return bytes(data)

    def sponsor(self, calldata: bytes) -> bytes:
        """Have a registration paid for; the work is done when the relay asks for it."""
        contract = "identity"
        ref = next(self._refs)
        text = b"chatchain work v1\0" + self.nonce + ref.to_bytes(8)
        text += bytes([len(contract)]) + contract.encode() + sha256(calldata)
        counters = (n.to_bytes(8) for n in itertools.count())
        admission = b""
        if self.work:
            limit = 1 << (256 - self.work)
            admission = b"\x01" + next(n for n in counters if int.from_bytes(sha256(text + n)) < limit)
        self.send(SPONSOR, ref, contract, calldata, admission)
        return bytes(self.read(SPONSORED, about=ref)[2])
