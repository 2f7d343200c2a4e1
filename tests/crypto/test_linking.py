"""Linking: what the two texts carry, and what a person in the middle can do with them: nothing."""

from __future__ import annotations

import base64
import secrets

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatchain.crypto import linking, x25519
from chatchain.crypto.attachments import FileRef
from chatchain.crypto.linking import Answer, Handed, Request
from chatchain.errors import BadRecord
from chatchain.identity import ed25519
from tests.identity.people import NETWORK, OTHER_NETWORK, Person, person, secrets_of

ADA = person("ada")
EPHEMERAL = bytes(range(32))
SECRET = bytes(range(32, 64))
HANDED = Handed(b"account secret16", FileRef(b"k" * 32, 1000, b"h" * 32), b"b" * 32)


def asking(owner: Person = ADA, device: int = 2, **changes: object) -> Request:
    """The request of somebody's next device."""
    record = secrets_of(owner.name, device).record(
        NETWORK, owner.user.account, uid=owner.uid, device=device, version=1
    )
    return msgspec.structs.replace(linking.request(record, EPHEMERAL, SECRET), **changes)


REQUEST = asking()
ADMITTED = ADA.with_second_device()


def answering(
    asked: Request = REQUEST, handed: Handed = HANDED, owner: Person = ADMITTED, device: int = 1
) -> Answer:
    return linking.answer(asked, handed, owner.secrets(device), uid=owner.uid, device=device, version=1)


def opened(given: Answer, asked: Request = REQUEST, owner: Person = ADMITTED) -> Handed:
    return linking.open_answer(given, asked, EPHEMERAL, NETWORK, owner.user)


def test_the_new_device_gets_what_the_old_one_hands_over() -> None:
    """Through both texts, also when they were wrapped on the way."""
    read = linking.decode_request(wrapped(REQUEST.encode()))
    assert read == REQUEST
    assert linking.verify_request(read, NETWORK, ADA.user).device == 2
    given = linking.decode_answer(wrapped(answering(read).encode()))
    assert opened(given) == HANDED
    without = Handed(HANDED.account_secret)
    assert opened(linking.decode_answer(answering(handed=without).encode())) == without


def wrapped(text: str) -> str:
    return "\n  ".join(text[start : start + 60] for start in range(0, len(text), 60))


def test_texts_show_no_secret_when_they_are_printed() -> None:
    """Neither in a traceback nor in a log."""
    for value in (REQUEST, HANDED):
        assert str(SECRET) not in repr(value)
        assert "account secret16" not in repr(value)


def test_a_device_that_was_added_already_may_be_answered_again() -> None:
    """The old device crashed before its answer was shown."""
    assert linking.verify_request(REQUEST, NETWORK, ADMITTED.user).device == 2
    with pytest.raises(BadRecord, match="cannot have yet"):
        linking.verify_request(asking(device=4), NETWORK, ADMITTED.user)
    other = linking.request(
        secrets_of("bob").record(NETWORK, ADA.user.account, uid=ADA.uid, device=2, version=1),
        EPHEMERAL,
        SECRET,
    )
    with pytest.raises(BadRecord):
        linking.verify_request(other, NETWORK, ADMITTED.user)


@pytest.mark.parametrize(
    "change",
    ["another network", "another user", "another account", "a swapped key", "a first device"],
)
def test_a_request_that_the_chain_would_not_bear_out_is_refused(change: str) -> None:
    """Before a transaction is paid for."""
    asked, network, user = REQUEST, NETWORK, ADA.user
    if change == "another network":
        network = OTHER_NETWORK
    elif change == "another user":
        user = person("bob").user
    elif change == "another account":
        record = secrets_of("ada", 2).record(
            NETWORK, person("bob").user.account, uid=ADA.uid, device=2, version=1
        )
        asked = msgspec.structs.replace(REQUEST, record=record)
    elif change == "a swapped key":
        at = 48 + 5  # within the X25519 key
        swapped = REQUEST.record[:at] + bytes([REQUEST.record[at] ^ 1]) + REQUEST.record[at + 1 :]
        asked = msgspec.structs.replace(REQUEST, record=swapped)
    else:
        asked = asking(device=1)
    with pytest.raises(BadRecord):
        linking.verify_request(asked, network, user)


def test_any_swap_in_the_request_changes_the_code() -> None:
    """Record, key or secret: whoever swaps one of them shows the old device other digits."""
    codes = {
        linking.code(asked)
        for asked in (
            REQUEST,
            asking(device=3),
            msgspec.structs.replace(REQUEST, ephemeral=x25519.public_of(secrets.token_bytes(32))),
            msgspec.structs.replace(REQUEST, secret=bytes(32)),
        )
    }
    assert len(codes) == 4
    for code in codes:
        assert len(code.replace(" ", "")) == 20
        assert code.replace(" ", "").isdigit()


def test_an_answer_opens_for_its_own_request_only() -> None:
    """Not with another ephemeral key, not for another request of the same device."""
    given = answering()
    with pytest.raises(BadRecord):
        linking.open_answer(given, REQUEST, bytes(32), NETWORK, ADMITTED.user)
    for other in (
        msgspec.structs.replace(REQUEST, secret=bytes(32)),
        msgspec.structs.replace(REQUEST, ephemeral=x25519.public_of(bytes([5]) * 32)),
    ):
        with pytest.raises(BadRecord, match="not for this request"):
            opened(given, other)


def test_an_answer_from_anybody_but_a_device_of_the_account_is_refused() -> None:
    """Forged by another user, by a revoked device, by keys that were replaced, by the new device itself."""
    with pytest.raises(BadRecord):
        opened(answering(owner=person("bob")))
    claimed = linking.answer(REQUEST, HANDED, person("bob").secrets(), uid=ADA.uid, device=1, version=1)
    with pytest.raises(BadRecord, match="altered"):
        opened(claimed)
    with pytest.raises(BadRecord):
        opened(answering(), owner=ADMITTED.revoked(1))
    with pytest.raises(BadRecord):
        opened(answering(), owner=ADMITTED.rotated(1))


def test_an_altered_answer_is_refused() -> None:
    """Every byte of it, in whatever place."""
    data = base64.urlsafe_b64decode(answering().encode().split("=", 1)[1] + "==")
    for place in range(len(data)):
        changed = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        text = base64.urlsafe_b64encode(changed).decode().rstrip("=")
        with pytest.raises(BadRecord):
            opened(linking.decode_answer(f"chatchain://link?answer={text}"))


def test_small_order_keys_are_refused() -> None:
    """On either side: the shared secret would be known to all."""
    with pytest.raises(BadRecord):
        answering(msgspec.structs.replace(REQUEST, ephemeral=bytes(32)))
    plain = msgspec.structs.replace(answering(), ephemeral=bytes(32))
    transcript = linking._signed(REQUEST, plain, plain.sealed)
    signed = msgspec.structs.replace(plain, signature=ed25519.sign(ADMITTED.secrets(1).ed25519, transcript))
    with pytest.raises(BadRecord, match="small order"):
        opened(signed)


def test_a_text_has_one_spelling() -> None:
    """Truncated, extended, of another sort or with other letters it is none."""
    for text in (REQUEST.encode(), answering().encode()):
        decode = linking.decode_request if "new=" in text else linking.decode_answer
        for wrong in (text[:-1], text + "A", text + "=", text.replace("link", "contact"), "", text * 3):
            with pytest.raises(BadRecord):
                decode(wrong)
    with pytest.raises(BadRecord):
        linking.decode_answer(REQUEST.encode())
    with pytest.raises(BadRecord):
        linking.decode_request(answering().encode())


@settings(max_examples=100, deadline=None)
@given(st.one_of(st.text(max_size=400), st.binary(max_size=300).map(lambda data: data.hex())))
def test_no_text_raises_anything_but_a_bad_record(noise: str) -> None:
    """Nor any bytes behind the right beginning."""
    body = base64.urlsafe_b64encode(noise.encode()).decode().rstrip("=")
    for text in (noise, f"chatchain://link?new={body}", f"chatchain://link?answer={body}"):
        for decode in (linking.decode_request, linking.decode_answer):
            with pytest.raises(BadRecord):
                decode(text)
