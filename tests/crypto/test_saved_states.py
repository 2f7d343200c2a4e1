"""What older programs saved still loads, what newer ones saved is refused, and nothing is lost on the way."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from chatchain.crypto import prekeys, ratchet, session
from chatchain.crypto.prekeys import NOTHING, Begun, PrekeyStore, decode_store, encode_store
from chatchain.crypto.ratchet import decode_ratchet, encode_ratchet
from chatchain.crypto.session import decode_session, encode_session
from chatchain.errors import BadRecord, LimitReached, Undecryptable
from tests.crypto.pairs import ADA, BOB, NOW, STORE, settled
from tests.identity.people import seed

Case = dict[str, Any]
CASES: Final[list[Case]] = json.loads((Path(__file__).parent.parent / "vectors" / "saved.json").read_text())[
    "cases"
]
AGAIN: Final[dict[str, Callable[[bytes], bytes]]] = {
    "prekeys": lambda data: encode_store(decode_store(data)),
    "session": lambda data: encode_session(decode_session(data)),
}


@pytest.mark.parametrize("case", [pytest.param(case, id=case["name"]) for case in CASES])
def test_a_saved_state_ends_as_it_says(case: Case) -> None:
    """Of whatever version, it becomes the same bytes of today's version; or it is refused."""
    saved = bytes.fromhex(case["saved"])
    if case["outcome"] == "ok":
        assert AGAIN[case["kind"]](saved).hex() == case["now"]
    else:
        with pytest.raises(BadRecord):
            AGAIN[case["kind"]](saved)


def test_every_version_that_was_ever_written_has_a_reader_and_a_vector() -> None:
    """No version goes missing between the first and today's."""
    found = {(case["kind"], int(case["saved"][:2], 16)) for case in CASES if case["outcome"] == "ok"}
    assert {version for kind, version in found if kind == "prekeys"} == prekeys.READERS.keys()
    assert {version for kind, version in found if kind == "session"} == session.READERS.keys()
    assert list(prekeys.READERS) == list(range(1, prekeys.STORE_VERSION + 1))
    assert list(session.READERS) == list(range(1, session.STATE_VERSION + 1))
    assert list(ratchet.READERS) == list(range(1, ratchet.STATE_VERSION + 1))


def test_prekeys_of_version_1_are_upgraded() -> None:
    """They did not say who had begun what was remembered: it cannot come again, and counts for nobody."""
    case = next(case for case in CASES if case["name"] == "prekeys of version 1, used up")
    store = decode_store(bytes.fromhex(case["saved"]))
    assert bytes.fromhex(case["saved"])[0] == 1
    assert bytes.fromhex(case["now"])[0] == 3
    (begun,) = store.begun
    assert (begun.signed_id, begun.user, len(begun.mark)) == (store.pairs[0].signed_id, 0, 8)
    ids = (begun.signed_id, 0, store.pairs[0].kem_id)
    with pytest.raises(Undecryptable, match="repeats"):
        prekeys.find(store, NOTHING, begun.mark + bytes(24), ADA.party.uid, *ids)
    prekeys.find(store, NOTHING, bytes(32), ADA.party.uid, *ids)


def test_prekeys_of_version_2_are_upgraded() -> None:
    """They held the memory themselves: it goes beside them, also of whom they answered no more."""
    case = next(case for case in CASES if case["name"] == "prekeys of version 2")
    store = decode_store(bytes.fromhex(case["saved"]))
    assert store.begun == (
        Begun(1, 670887400361956, seed("id")[:8]),
        Begun(8, 895825231796709, seed("id", 2)[:8]),
        Begun(1, 7, b""),
        Begun(8, 7, b""),
    )
    again = decode_store(bytes.fromhex(case["now"]))
    assert again == msgspec.structs.replace(store, begun=())
    last = store.pairs[1].kem_id
    with pytest.raises(Undecryptable, match="repeats"):
        prekeys.find(store, NOTHING, seed("id", 2), 895825231796709, 8, 0, last)
    with pytest.raises(LimitReached):
        prekeys.find(store, NOTHING, seed("new"), 7, 8, 0, last)
    prekeys.find(store, NOTHING, seed("new"), 8, 8, 0, last)


def test_an_upgraded_store_still_answers() -> None:
    """A message that was on its way while the program was updated."""
    message = session.encrypt(ADA.begin(BOB, BOB.bundle(STORE)), b"hi", b"")[1]
    upgraded = decode_store(version_1(STORE))
    assert upgraded == STORE
    assert BOB.accept(upgraded, ADA, message, now=NOW)[2] == b"hi"


def version_1(store: PrekeyStore) -> bytes:
    """What a program of version 1 would have saved of a store that remembers nothing."""
    assert not store.begun
    data = encode_store(store)
    return b"\x01" + data[1:10] + b"\0\0" + data[10:]


SAVED: Final = (
    (prekeys, decode_store, encode_store(STORE)),
    (session, decode_session, encode_session(settled()[0])),
    (ratchet, decode_ratchet, encode_ratchet(settled()[0].ratchet)),
)


@pytest.mark.parametrize(("room", "decode", "data"), SAVED, ids=["prekeys", "session", "ratchet"])
def test_what_a_newer_program_saved_is_refused_in_these_words(
    room: Any, decode: Callable[[bytes], object], data: bytes
) -> None:
    """The next version and every other that nobody knows, also nothing at all."""
    for version in set(range(256)) - room.READERS.keys():
        with pytest.raises(BadRecord, match="of a newer program than this one"):
            decode(bytes([version]) + data[1:])
    with pytest.raises(BadRecord):
        decode(b"")


@pytest.mark.parametrize(("room", "decode", "data"), SAVED, ids=["prekeys", "session", "ratchet"])
def test_a_version_is_read_by_its_own_reader(
    monkeypatch: pytest.MonkeyPatch, room: Any, decode: Callable[[bytes], Any], data: bytes
) -> None:
    """As the next program will have it: a reader beside the others, and they go on reading theirs."""
    now = decode(data)
    monkeypatch.setitem(room.READERS, 200, lambda new: decode(data[:1] + new[2:]))
    assert decode(b"\xc8\x00" + data[1:]) == now
    assert decode(data) == now
