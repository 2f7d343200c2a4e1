"""Work and invitations: each serves for what it was made, and for nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatchain.errors import RefusedError, UsageError
from chatchain.identity.admission import (
    INVITED_ONLY,
    MAX_WORK,
    Invitation,
    decode_invitation,
    parse_invitation,
    shows_work,
    work_for,
)
from chatchain.identity.keys import address_of, recover, sign_digest
from chatchain.model import Address, Call, Network

KEY = b"\x2a" * 32
NETWORK = Network(31337, Address(b"d" * 20), Address(b"r" * 20), Address(b"m" * 20))
NONCE, CALL = b"n" * 32, Call("identity", b"\1\2\3\4" + bytes(100))
BITS = 12

invitations = st.builds(
    Invitation,
    inviter=st.integers(0, 2**64 - 1),
    id=st.binary(min_size=16, max_size=16),
    expires=st.integers(0, 2**64 - 1),
    signature=st.binary(min_size=65, max_size=65),
)


def test_work_shows_that_it_was_done() -> None:
    """And more bits than were done are not shown, but by luck."""
    done = work_for(NONCE, 7, CALL, BITS)
    assert shows_work(done, NONCE, 7, CALL, BITS)
    assert not shows_work(done, NONCE, 7, CALL, 60)


@pytest.mark.parametrize(
    ("nonce", "ref", "call"),
    [
        (b"m" * 32, 7, CALL),
        (NONCE, 8, CALL),
        (NONCE, 7, Call("identity", CALL.data + b"\0")),
        (NONCE, 7, Call("membership", CALL.data)),
    ],
    ids=["another connection", "another request", "another call", "another contract"],
)
def test_work_serves_for_nothing_else(nonce: bytes, ref: int, call: Call) -> None:
    """It cannot be done before the connection, nor used twice."""
    bits = 20  # a chance of one in a million to be wrong about this
    assert not shows_work(work_for(NONCE, 7, CALL, BITS), nonce, ref, call, bits)


@pytest.mark.parametrize("admission", [b"", b"\1", bytes(9), b"\1" + bytes(9), b"\2" + bytes(97)])
def test_what_is_no_work_shows_none(admission: bytes) -> None:
    """Even where none is asked for beyond its form."""
    assert not shows_work(admission, NONCE, 7, CALL, 0)


@pytest.mark.parametrize("bits", [MAX_WORK + 1, INVITED_ONLY])
def test_a_program_does_not_work_for_hours(bits: int) -> None:
    """A relay that asks for too much is refused at once."""
    with pytest.raises(RefusedError, match="more work"):
        work_for(NONCE, 1, CALL, bits)


@given(invitations)
def test_an_invitation_is_what_it_was_before_people_handed_it_on(invitation: Invitation) -> None:
    """As bytes and as text, whatever line breaks a mail program puts into it."""
    assert decode_invitation(invitation.encode()) == invitation
    text = invitation.text()
    assert parse_invitation(f" {text[:40]}\n{text[40:]} ") == invitation


@pytest.mark.parametrize("change", ["cut", "longer", "prefix", "kind", "empty", "junk", "spelling"])
def test_what_is_no_invitation_is_told_so(change: str) -> None:
    """A sentence, whatever was pasted."""
    text = Invitation(1, bytes(16), 2, bytes(65)).text()
    broken = {
        "cut": text[:-1],
        "longer": text + "A",
        "prefix": text.removeprefix("invite1"),
        "kind": "invite1AQ" + text[9:],
        "empty": "",
        "junk": "invite1\u00e9" + text[8:],
        "spelling": text[:-1] + "B",  # bits that the encoding does not use
    }[change]
    with pytest.raises(UsageError, match="not an invitation"):
        parse_invitation(broken)


def test_the_signature_binds_every_part_of_an_invitation() -> None:
    """Network, epoch, inviter, id and expiry."""
    plain = Invitation(5, b"i" * 16, 99, b"")
    digest = plain.digest(NETWORK, 3)
    assert recover(digest, sign_digest(KEY, digest)) == address_of(KEY)
    others = {
        plain.digest(Network(1, NETWORK.directory, NETWORK.registry, NETWORK.membership), 3),
        plain.digest(Network(31337, NETWORK.directory, NETWORK.membership, NETWORK.registry), 3),
        plain.digest(NETWORK, 4),
        Invitation(6, b"i" * 16, 99, b"").digest(NETWORK, 3),
        Invitation(5, b"j" * 16, 99, b"").digest(NETWORK, 3),
        Invitation(5, b"i" * 16, 98, b"").digest(NETWORK, 3),
    }
    assert len(others) == 6
    assert digest not in others
