"""The ratchet keeps its limits, loses nothing within them, and a failure moves nothing."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatchain.crypto import ratchet, session
from chatchain.crypto.ratchet import (
    KEM_INTERVAL,
    MAX_KEPT,
    MAX_SKIP,
    MAX_STALE,
    OVERHEAD_BYTES,
    SKIPPED_LIFETIME,
    Ratchet,
    SharedKeys,
    decode_ratchet,
    encode_ratchet,
)
from chatchain.crypto.session import Session
from chatchain.crypto.x25519 import public_of
from chatchain.errors import BadRecord, Undecryptable
from tests.crypto.pairs import NOW, pair, ping_pong, settled


def burst(sender: Ratchet, count: int) -> tuple[Ratchet, list[bytes]]:
    """Gives `count` messages, numbered."""
    messages = []
    for number in range(count):
        sender, message = ratchet.encrypt(sender, b"%d" % number, b"")
        messages.append(message)
    return sender, messages


def read(state: Ratchet, message: bytes, now: int = NOW) -> tuple[Ratchet, bytes]:
    """Decrypts without additional data."""
    return ratchet.decrypt(state, message, b"", now)


def turn(ada: Ratchet, bob: Ratchet, now: int = NOW) -> tuple[Ratchet, Ratchet]:
    """Lets Bob answer and Ada begin a new sending chain, both without loss."""
    bob, message = ratchet.encrypt(bob, b"turn", b"")
    ada, _ = read(ada, message, now)
    ada, message = ratchet.encrypt(ada, b"turn", b"")
    bob, _ = read(bob, message, now)
    return ada, bob


def refused(state: Ratchet, message: bytes, match: str, now: int = NOW) -> None:
    """The message is refused and the state does not move."""
    before = encode_ratchet(state)
    with pytest.raises(Undecryptable, match=match):
        read(state, message, now)
    assert encode_ratchet(state) == before


@pytest.fixture
def sides() -> tuple[Ratchet, Ratchet]:
    """Ada's and Bob's ratchet in a settled session."""
    ada, bob = settled()
    return ada.ratchet, bob.ratchet


Sides = tuple[Ratchet, Ratchet]


def test_a_message_is_longer_than_its_text_by_a_fixed_amount(sides: Sides) -> None:
    """91 bytes, and the session's byte before them."""
    for length in (0, 1, 1000):
        _, message = ratchet.encrypt(sides[0], bytes(length), b"")
        assert len(message) == length + OVERHEAD_BYTES == length + 91


def test_no_two_messages_share_visible_bytes(sides: Sides) -> None:
    """Headers are encrypted under random nonces: nothing in them shows a chain or a number."""
    _, messages = burst(sides[0], 50)
    assert len({message[:16] for message in messages}) == 50
    assert len({message[16:59] for message in messages}) == 50


def test_additional_data_is_bound(sides: Sides) -> None:
    """Another `ad` opens nothing."""
    ada, bob = sides
    _, message = ratchet.encrypt(ada, b"text", b"id 1")
    with pytest.raises(Undecryptable, match="altered"):
        ratchet.decrypt(bob, message, b"id 2", NOW)
    assert ratchet.decrypt(bob, message, b"id 1", NOW)[1] == b"text"


def test_every_altered_byte_is_refused_and_the_state_stays(sides: Sides) -> None:
    """Header, body, tags and nonce; whole, truncated and with a tail."""
    ada, bob = sides
    _, message = ratchet.encrypt(ada, b"some text", b"")
    for position in range(len(message)):
        changed = bytearray(message)
        changed[position] ^= 1
        refused(bob, bytes(changed), "altered")
    for length in range(len(message)):
        refused(bob, message[:length], "too short|altered")
    refused(bob, message + b"\0", "altered")
    assert read(bob, message)[1] == b"some text"


def test_a_message_decrypts_once(sides: Sides) -> None:
    """In order, out of order and in a chain that is over."""
    ada, bob = sides
    ada, messages = burst(ada, 4)
    for number in (0, 3, 1):
        bob, plaintext = read(bob, messages[number])
        assert plaintext == b"%d" % number
        refused(bob, messages[number], "decrypted before")
    ada, bob = turn(ada, bob)
    refused(bob, messages[1], "decrypted before")
    bob, plaintext = read(bob, messages[2])
    assert plaintext == b"2"
    refused(bob, messages[2], "no chain")


def test_a_thousand_skipped_messages_are_the_limit_of_a_jump(sides: Sides) -> None:
    """One more is refused; none of the thousand is lost."""
    ada, bob = sides
    ada, messages = burst(ada, MAX_SKIP + 2)
    refused(bob, messages[MAX_SKIP + 1], "jumps over")
    bob, plaintext = read(bob, messages[MAX_SKIP])
    assert plaintext == b"%d" % MAX_SKIP
    for number in random.Random(1).sample(range(MAX_SKIP), MAX_SKIP):
        bob, plaintext = read(bob, messages[number])
        assert plaintext == b"%d" % number
    assert bob.skipped == ()


def test_the_end_of_the_chain_before_counts_against_the_limit_as_well(sides: Sides) -> None:
    """PN may not make us derive without bound either."""
    ada, bob = turn(*sides)
    ada, _ = burst(ada, MAX_SKIP + 1)
    bob, message = ratchet.encrypt(bob, b"", b"")
    ada, _ = read(ada, message)
    # Bob has read one message of that chain; the next chain says how long it was.
    ada, message = ratchet.encrypt(ada, b"next chain", b"")
    assert ada.pn > MAX_SKIP
    refused(bob, message, "jumps over")


def test_two_thousand_keys_are_kept_and_the_oldest_go_first(sides: Sides) -> None:
    """Skipped-key exhaustion costs the oldest, within a bounded state."""
    ada, bob = sides
    ada, messages = burst(ada, 3 * MAX_SKIP + 3)
    for number in (MAX_SKIP, 2 * MAX_SKIP + 1, 3 * MAX_SKIP + 2):
        bob, _ = read(bob, messages[number])
    assert sum(len(chain.keys) for chain in bob.skipped) == MAX_KEPT
    assert len(encode_ratchet(bob)) < 96 * 1024
    refused(bob, messages[0], "decrypted before, or its key has expired")
    refused(bob, messages[MAX_SKIP - 1], "decrypted before, or its key has expired")
    for number in (MAX_SKIP + 1, 2 * MAX_SKIP, 3 * MAX_SKIP + 1):
        assert read(bob, messages[number])[1] == b"%d" % number


def test_the_keys_of_eight_past_chains_are_kept(sides: Sides) -> None:
    """Each costs a trial decryption, so the ninth pushes out the oldest."""
    ada, bob = sides
    late = []
    for _ in range(MAX_STALE + 2):
        ada, messages = burst(ada, 2)
        bob, _ = read(bob, messages[1])
        late.append(messages[0])
        ada, bob = turn(ada, bob)
    assert len(bob.skipped) <= MAX_STALE + 1
    refused(bob, late[0], "no chain")
    for message in late[-MAX_STALE:]:
        bob, plaintext = read(bob, message)
        assert plaintext == b"0"


def test_skipped_keys_expire(sides: Sides) -> None:
    """What was lost for good does not stay readable to a thief; what came in time is read."""
    ada, bob = sides
    ada, messages = burst(ada, 4)
    bob, _ = read(bob, messages[1])
    assert read(bob, messages[0], NOW + SKIPPED_LIFETIME)[1] == b"0"
    refused(bob, messages[0], "expired", NOW + SKIPPED_LIFETIME + 1)
    bob, _ = read(bob, messages[3], NOW + SKIPPED_LIFETIME + 1)
    refused(bob, messages[0], "expired")
    assert read(bob, messages[2], NOW + SKIPPED_LIFETIME + 1)[1] == b"2"


def test_a_reflected_chain_out_of_turn_is_refused() -> None:
    """A chain that answers a key which was answered before has no place."""
    ada, bob = settled()
    state = ada.ratchet
    _, first = ratchet.encrypt(bob.ratchet, b"", b"")
    fork, second = ratchet.encrypt(ratchet.encrypt(bob.ratchet, b"", b"")[0], b"", b"")
    state, _ = read(state, first)
    assert read(state, second)[1] == b""
    forged = msgspec.structs.replace(fork, hks=state.nhkr)
    _, message = ratchet.encrypt(forged, b"", b"")
    refused(state, message, "out of turn")


# --- the KEM ratchet ------------------------------------------------------------------------------------


def test_a_kem_step_comes_about_every_fifty_messages() -> None:
    """In a conversation without loss: one offer, one answer, and both sides' epochs agree."""
    ada, bob = ping_pong(*settled(), rounds=26 * 10)
    assert ada.ratchet.epoch == bob.ratchet.epoch
    assert 9 <= ada.ratchet.epoch <= 10
    assert KEM_INTERVAL == 50


def test_the_average_overhead_includes_the_kem_steps() -> None:
    """At most 140 bytes a message over a long conversation, the handshake included."""
    ada, bob = pair()
    overhead, count = 1714.0, 1
    for _ in range(1500):
        ada, message = session.encrypt(ada, bytes(100), b"")
        bob, _ = session.decrypt(bob, message, b"", NOW)
        overhead += len(message) - 100
        bob, message = session.encrypt(bob, bytes(100), b"")
        ada, _ = session.decrypt(ada, message, b"", NOW)
        overhead += len(message) - 100
        count += 2
    assert overhead / count <= 140


def test_the_kem_secret_enters_the_root(sides: Sides) -> None:
    """A state that knows everything but the KEM secret cannot follow the step."""
    ada, bob = sides
    for _ in range(KEM_INTERVAL):
        bob, message = ratchet.encrypt(bob, b"", b"")
        ada, _ = read(ada, message)
        if ada.kem_secret:
            break
        ada, message = ratchet.encrypt(ada, b"", b"")
        bob, _ = read(bob, message)
    assert bob.kem_secret == ada.kem_secret != b""
    ada, message = ratchet.encrypt(ada, b"after the step", b"")
    assert ada.epoch == bob.epoch + 1
    assert read(bob, message)[1] == b"after the step"
    refused(msgspec.structs.replace(bob, kem_secret=bytes(32)), message, "altered")
    refused(msgspec.structs.replace(bob, kem_secret=b""), message, "another KEM epoch")


def test_a_chain_of_a_wrong_epoch_is_refused(sides: Sides) -> None:
    """The root is not rolled back to an epoch before."""
    ada, bob = turn(*sides)
    bob, message = ratchet.encrypt(bob, b"", b"")
    ada, _ = read(ada, message)
    for epoch in (1, 2, 65535):
        _, message = ratchet.encrypt(msgspec.structs.replace(ada, epoch=epoch), b"", b"")
        refused(bob, message, "another KEM epoch")


def test_an_answer_of_an_epoch_before_changes_nothing(sides: Sides) -> None:
    """The relay holds one back until the next key is offered: it answers another key than that."""
    (ada, bob), late, message = sides, b"", b""
    for _ in range(3 * KEM_INTERVAL):
        ada, message = ratchet.encrypt(ada, b"ping", b"")
        if late and ada.epoch == 1 and ada.kem_seed:
            break
        bob, _ = read(bob, message)
        bob, message = ratchet.encrypt(bob, b"pong", b"")
        if not late and len(message) > 1000:
            late = message
        else:
            ada, _ = read(ada, message)
    after, text = read(ada, late)
    assert text == b"pong"
    assert (after.epoch, after.kem_seed, after.kem_secret) == (1, ada.kem_seed, b"")
    bob, _ = read(bob, message)
    for _ in range(KEM_INTERVAL):
        after, bob = turn(after, bob)
    assert after.epoch == bob.epoch > 1


def test_a_malformed_offer_is_refused_and_moves_nothing(
    sides: Sides, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key with a coefficient beyond the modulus (FIPS 203, section 7.2)."""
    ada, bob = sides
    ada = msgspec.structs.replace(ada, since=KEM_INTERVAL)
    monkeypatch.setattr(ratchet, "_kem_to_send", lambda state: (1, b"\xff" * 1184, 0, bytes(64)))
    _, message = ratchet.encrypt(ada, b"", b"")
    refused(bob, message, "malformed KEM key")
    monkeypatch.setattr(ratchet, "_kem_to_send", lambda state: (1, b"\xff" * 1183, 0, bytes(64)))
    _, message = ratchet.encrypt(ada, b"", b"")
    refused(bob, message, "truncated")
    monkeypatch.setattr(ratchet, "_kem_to_send", lambda state: (3, b"", 0, b""))
    _, message = ratchet.encrypt(ada, b"", b"")
    refused(bob, message, "does not know")


def test_one_way_traffic_offers_once(sides: Sides) -> None:
    """Without an answer there is no second offer: a thousand messages bear one KEM key."""
    _, messages = burst(sides[0], 1000)
    assert sum(len(message) > 1000 for message in messages) == 1


@pytest.mark.parametrize("loss", [0.0, 0.2, 0.5])
def test_kem_steps_go_on_over_a_lossy_reordering_network(loss: float) -> None:
    """Offers and answers are lost with the rest; steps still come, and what arrives is read."""
    dice = random.Random(f"loss {loss}")
    sides = list(settled())
    flying: list[list[tuple[bytes, bytes]]] = [[], []]
    read_count = 0
    for number in range(3000):
        mine = dice.randrange(2)
        text = b"%d" % number
        sides[mine], message = session.encrypt(sides[mine], text, b"")
        if dice.random() >= loss:
            flying[1 - mine].append((text, message))
        side = dice.randrange(2)
        while flying[side] and (len(flying[side]) > 8 or dice.random() < 0.5):
            text, message = flying[side].pop(dice.randrange(min(4, len(flying[side]))))
            sides[side], plaintext = session.decrypt(sides[side], message, b"", NOW)
            assert plaintext == text
            read_count += 1
    assert read_count > 3000 * (1 - loss) * 0.95
    assert abs(sides[0].ratchet.epoch - sides[1].ratchet.epoch) <= 1
    assert sides[0].ratchet.epoch >= 3000 / KEM_INTERVAL * (1 - loss) * 0.5


def test_a_stolen_state_heals_after_both_have_spoken(sides: Sides) -> None:
    """Post-compromise security: the copy reads what comes at once; the answer's fresh key shuts it out."""
    ada, bob = sides
    stolen = bob
    ada, message = ratchet.encrypt(ada, b"still readable", b"")
    assert read(stolen, message)[1] == b"still readable"
    stolen, _ = read(stolen, message)
    bob, _ = read(bob, message)
    bob, answer = ratchet.encrypt(bob, b"", b"")
    ada, _ = read(ada, answer)
    ada, message = ratchet.encrypt(ada, b"healed", b"")
    bob, _ = read(bob, message)
    refused(stolen, message, "out of turn")
    ada, bob = turn(*turn(ada, bob))
    _, message = ratchet.encrypt(ada, b"healed", b"")
    refused(stolen, message, "no chain")


def test_a_new_state_reads_no_old_message(sides: Sides) -> None:
    """Forward secrecy: what was read is not readable from any later state."""
    ada, bob = sides
    ada, messages = burst(ada, 3)
    for message in messages:
        bob, _ = read(bob, message)
    for message in messages:
        refused(bob, message, "decrypted before")


# --- the saved state ------------------------------------------------------------------------------------


def largest() -> list[Session]:
    """States of both sides at every step of a conversation with KEM steps."""
    ada, bob = pair()
    found = [ada, bob]
    for _ in range(60):
        ada, message = session.encrypt(ada, b"", b"")
        found.append(ada)
        bob, _ = session.decrypt(bob, message, b"", NOW)
        found.append(bob)
        bob, message = session.encrypt(bob, b"", b"")
        found.append(bob)
        ada, _ = session.decrypt(ada, message, b"", NOW)
        found.append(ada)
    return found


def test_a_saved_state_is_the_same_state_and_small() -> None:
    """At most 4,096 bytes without skipped keys, at every point of the KEM ratchet."""
    states = largest()
    for each in states:
        data = session.encode_session(each)
        assert len(data) <= 4096
        assert session.decode_session(data) == each
        assert session.encode_session(session.decode_session(data)) == data
    assert any(each.ratchet.kem_seed for each in states)
    assert any(each.ratchet.kem_answer for each in states)
    assert any(each.handshake for each in states)


def test_a_saved_state_with_skipped_keys_is_the_same_state(sides: Sides) -> None:
    """Of several chains, in their order."""
    ada, bob = sides
    for count in (3, 5):
        ada, messages = burst(ada, count)
        bob, _ = read(bob, messages[-1])
        ada, bob = turn(ada, bob)
    data = encode_ratchet(bob)
    assert len(bob.skipped) == 2
    assert decode_ratchet(data) == bob


def test_a_damaged_saved_state_is_refused(sides: Sides) -> None:
    """Truncated anywhere, with a tail, of another version, or with an impossible count."""
    ada, bob = sides
    _, messages = burst(ada, 3)
    bob, _ = read(bob, messages[2])
    data = encode_ratchet(bob)
    for length in range(len(data)):
        with pytest.raises(BadRecord):
            decode_ratchet(data[:length])
    for bad in (data + b"\0", b"\x02" + data[1:], b"\0" + data[1:], data[:1] + b"\x02" + data[2:]):
        with pytest.raises(BadRecord):
            decode_ratchet(bad)


def test_the_bare_profile_can_neither_be_saved_nor_reached() -> None:
    """The mode for comparing has no way into a session: its state has no bytes."""
    keys = SharedKeys(os.urandom(32), os.urandom(32), os.urandom(32), os.urandom(32))
    bare = ratchet.initiate(keys, public_of(os.urandom(32)), ratchet.BARE)
    with pytest.raises(ValueError, match="suite 2"):
        encode_ratchet(bare)
    assert all(each.ratchet.profile == ratchet.SUITE_2 for each in (*pair(), *settled()))
    package = Path(ratchet.__file__).parent.parent
    naming = [
        path.name
        for path in package.rglob("*.py")
        if re.search(r"\b(BARE|ratchet\.Profile)\b", path.read_text())
    ]
    assert naming == ["ratchet.py"]


def test_the_responder_cannot_send_before_it_has_received() -> None:
    """There is no sending chain yet; `accept` always receives first."""
    keys = SharedKeys(*(os.urandom(32) for _ in range(4)))
    with pytest.raises(ValueError, match="after it has received"):
        ratchet.encrypt(ratchet.respond(keys, os.urandom(32)), b"", b"")


def test_secrets_do_not_show_in_a_repr() -> None:
    """A state in a traceback gives nothing away."""
    ada, _ = settled()
    keys = SharedKeys(*(b"secret" for _ in range(4)))
    assert [repr(ada.ratchet), repr(keys)] == ["Ratchet(…)", "SharedKeys(…)"]
    assert repr(ada) == f"Session({ada.id.hex()[:16]}…)"


@pytest.mark.parametrize("parse", [decode_ratchet, session.decode_session])
@given(data=st.one_of(st.binary(max_size=400), st.binary(max_size=600).map(lambda tail: b"\x01\x01" + tail)))
@settings(deadline=None)
def test_only_bad_record_escapes_the_parsers(parse: Callable[[bytes], object], data: bytes) -> None:
    """Whatever the file holds."""
    try:
        parse(data)
    except BadRecord:
        return


@given(data=st.binary(max_size=300))
@settings(deadline=None)
def test_noise_is_undecryptable(data: bytes) -> None:
    """Whatever the relay delivers."""
    ada, bob = SETTLED
    for side in (ada, bob):
        for message in (data, b"\x02" + data, b"\x01" + data):
            with pytest.raises(Undecryptable):
                session.decrypt(side, message, b"", NOW)


SETTLED = settled()
