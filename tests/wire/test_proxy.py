"""How a proxy introduces its client: the header's bytes, whole, cut short and wrong."""

from __future__ import annotations

import pytest

from chatchain.errors import ProtocolViolation
from chatchain.wire.proxy import FIXED, MOST, SIGNATURE, client_of, following

IPV4 = bytes([192, 0, 2, 7]) + bytes([127, 0, 0, 1]) + b"\xc0\x00\x15\xb3"
IPV6 = bytes.fromhex("20010db8000000000000000000000007") + bytes(16) + b"\xc0\x00\x15\xb3"


def header(rest: bytes, *, verb: int = 0x21, family: int = 0x11, signature: bytes = SIGNATURE) -> bytes:
    """A header as a proxy writes it."""
    return signature + bytes([verb, family]) + len(rest).to_bytes(2, "big") + rest


def read(data: bytes) -> str | None:
    """The client's address, as the transport finds it."""
    length = following(data[:FIXED])
    return client_of(data[:FIXED], data[FIXED : FIXED + length])


@pytest.mark.parametrize(
    ("data", "client"),
    [
        (header(IPV4), "192.0.2.7"),
        (header(IPV6, family=0x21), "2001:db8::7"),
        (header(IPV4 + b"\x04\x00\x03abc"), "192.0.2.7"),
        (header(b"", verb=0x20, family=0), None),
        (header(IPV4, verb=0x20), None),
    ],
    ids=["IPv4", "IPv6", "with a TLV", "for itself", "for itself, with addresses to ignore"],
)
def test_the_client_is_read(data: bytes, client: str | None) -> None:
    """Nothing but its address is taken."""
    assert read(data) == client


@pytest.mark.parametrize(
    "data",
    [
        header(IPV4, signature=b"\r\n\r\n\x00\r\nQUIT\r"),
        header(IPV4, verb=0x11),
        header(IPV4, verb=0x22),
        header(IPV4[:-1]),
        header(IPV4, family=0x21),
        header(IPV4, family=0x31),
        header(IPV4, family=0x01),
        header(bytes(MOST + 1)),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(20),
        b"PROXY TCP4 192.0.2.7 127.0.0.1 49152 5555\r\n",
        b"",
    ],
    ids=[
        "another signature",
        "version 1",
        "an unknown command",
        "cut short",
        "IPv4 said to be IPv6",
        "a UNIX socket",
        "no family",
        "too long",
        "TLS at once",
        "the older protocol",
        "nothing",
    ],
)
def test_what_is_no_introduction_is_refused(data: bytes) -> None:
    """Without reading further."""
    with pytest.raises(ProtocolViolation):
        read(data)
