"""Prekeys: what is published verifies, what is due rotates, what is used is gone."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatchain.crypto import prekeys, session
from chatchain.crypto.prekeys import (
    BATCH,
    CLOCK_SKEW,
    GRACE,
    LIFETIME,
    MAX_BEGUN,
    MAX_ONE_TIME,
    MAX_PAIRS,
    NOTHING,
    ROTATION,
    Begun,
    KeyKind,
    Past,
    PrekeyBundle,
    PrekeyStore,
    decode_bundle,
    decode_one_time,
    decode_signed_key,
    decode_store,
    encode_bundle,
    encode_one_time,
    encode_signed_key,
    encode_store,
    maintain,
    renew,
    verify_bundle,
)
from chatchain.errors import BadRecord, LimitReached, Undecryptable
from tests.crypto.pairs import ADA, BOB, BUNDLE, MALLORY, NOW, STORE, Device, device, restarted
from tests.identity.people import NETWORK, OTHER_NETWORK, OTHER_REGISTRY


def check(bundle: PrekeyBundle = BUNDLE, now: int = NOW) -> None:
    """Judges a bundle by Bob's record."""
    verify_bundle(NETWORK, bundle, BOB.party.record, BOB.party.uid, now)


# --- bundles ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("one_time", [True, False])
@pytest.mark.parametrize("one_time_kem", [True, False])
def test_a_right_bundle_verifies_and_has_one_form(one_time: bool, one_time_kem: bool) -> None:
    """With and without one-time keys, until it expires."""
    bundle = BOB.bundle(STORE, one_time=one_time, one_time_kem=one_time_kem)
    for now in (NOW - CLOCK_SKEW, NOW, NOW + LIFETIME - 1):
        check(bundle, now)
    data = encode_bundle(bundle)
    assert len(data) == 1787 + 36 * one_time
    assert decode_bundle(data) == bundle


@pytest.mark.parametrize(("now", "why"), [(NOW + LIFETIME, "expired"), (NOW - CLOCK_SKEW - 1, "future")])
def test_a_bundle_outside_of_its_time_is_refused(now: int, why: str) -> None:
    """A relay cannot serve withdrawn keys for ever."""
    with pytest.raises(BadRecord, match=why):
        check(now=now)


@pytest.mark.parametrize("part", ["signed", "kem"])
@pytest.mark.parametrize(
    "changed",
    [
        {"id": 7},
        {"issued": NOW - 1},
        {"issued": 2**64},
        {"expires": NOW + LIFETIME + 1},
        {"expires": -1},
        {"signature": bytes(64)},
        {"signature": b""},
        {"key": bytes(32)},
    ],
)
def test_an_altered_signed_key_is_refused(part: str, changed: dict[str, Any]) -> None:
    """Id, times and key are all under the signature."""
    key = msgspec.structs.replace(getattr(BUNDLE, part), **changed)
    with pytest.raises(BadRecord):
        check(msgspec.structs.replace(BUNDLE, **{part: key}))


def test_a_key_is_taken_only_for_the_purpose_that_it_was_signed_for() -> None:
    """A last-resort key shown as a one-time key, or the other way round, or in another's place."""
    last = BOB.upload(STORE).last_resort
    for kind in (KeyKind.ONE_TIME_KEM, KeyKind.SIGNED_PREKEY):
        with pytest.raises(BadRecord):
            check(msgspec.structs.replace(BUNDLE, kem=msgspec.structs.replace(last, kind=kind)))
    with pytest.raises(BadRecord, match="another purpose"):
        check(msgspec.structs.replace(BUNDLE, signed=last))
    with pytest.raises(BadRecord, match="another purpose"):
        check(msgspec.structs.replace(BUNDLE, kem=BUNDLE.signed))


@pytest.mark.parametrize("network", [OTHER_NETWORK, OTHER_REGISTRY])
def test_a_bundle_of_another_network_is_refused(network: Any) -> None:
    """The same device's keys elsewhere."""
    up = BOB.upload(STORE, network)
    with pytest.raises(BadRecord, match="not signed"):
        check(msgspec.structs.replace(BUNDLE, signed=up.signed))


def test_a_malformed_kem_key_is_refused_when_it_is_used() -> None:
    """Signed by its owner and yet no ML-KEM key."""
    key = msgspec.structs.replace(BUNDLE.kem, key=b"\xff" * 1568)
    claim = prekeys._signed_bytes(NETWORK, BOB.party.uid, 1, 1, key)
    key = msgspec.structs.replace(key, signature=BOB.secrets.signing_key.sign(claim))
    with pytest.raises(BadRecord, match="malformed"):
        ADA.begin(BOB, msgspec.structs.replace(BUNDLE, kem=key))


# --- rotation, refill, deletion ----------------------------------------------------------------------------


def first_message(bundle: PrekeyBundle, now: int = NOW, by: Device = ADA) -> bytes:
    """Gives an initial message, from Ada unless somebody else is named."""
    return session.encrypt(by.begin(BOB, bundle, now), b"hi", b"")[1]


def test_nothing_is_done_before_it_is_due() -> None:
    """The store is the same value, so nothing need be saved."""
    assert maintain(STORE, NOW + ROTATION - 1, 20, 20) == STORE


def test_one_time_keys_are_refilled_below_twenty() -> None:
    """Each sort for itself, up to fifty at the relay; only the new ones are uploaded."""
    store = maintain(STORE, NOW, 19, 20)
    assert len(store.one_time) == BATCH + 31
    assert store.kem_one_time == STORE.kem_one_time
    up = BOB.upload(store, since=STORE.next_id)
    assert (len(up.one_time), len(up.kem_one_time)) == (31, 0)
    store = maintain(store, NOW, 50, 0)
    assert len(store.kem_one_time) == 2 * BATCH


def test_one_time_keys_do_not_pile_up() -> None:
    """A relay that claims to have none left makes us draw new ones, not keep without bound."""
    store = STORE
    for _ in range(30):
        store = maintain(store, NOW, 0, 0)
    assert len(store.one_time) == len(store.kem_one_time) == MAX_ONE_TIME
    assert min(store.one_time) > max(STORE.one_time)
    late = NOW + LIFETIME + GRACE
    assert len(maintain(store, late, 20, 20).one_time) == 0


def test_the_signed_prekey_and_the_last_resort_key_rotate_weekly() -> None:
    """What was made with the old ones is still answered within the grace, and never after it."""
    bundle = BOB.bundle(STORE, one_time=False, one_time_kem=False)
    waiting = first_message(bundle)
    week = NOW + ROTATION
    store = maintain(STORE, week, 50, 50)
    up = BOB.upload(store)
    assert up.signed.id != bundle.signed.id
    assert up.last_resort.id != bundle.kem.id
    assert up.signed.issued == week
    assert BOB.accept(store, ADA, waiting)[2] == b"hi"

    store = maintain(store, week + GRACE - 1, 50, 50)
    assert BOB.accept(store, ADA, waiting)[2] == b"hi"
    store = maintain(store, week + GRACE, 50, 50)
    old = STORE.pairs[0]
    assert all(pair.kem != old.kem and pair.signed != old.signed for pair in store.pairs)
    with pytest.raises(Undecryptable, match="used or deleted"):
        BOB.accept(store, ADA, waiting)


def test_a_one_time_key_serves_once() -> None:
    """Two initiators who were handed the same one: the second is refused and must try anew."""
    store, _, _ = BOB.accept(STORE, ADA, first_message(BUNDLE))
    assert BUNDLE.one_time is not None
    assert BUNDLE.one_time.id not in store.one_time
    assert BUNDLE.kem.id not in store.kem_one_time
    with pytest.raises(Undecryptable, match="used or deleted"):
        BOB.accept(store, ADA, first_message(BUNDLE))


def test_an_initial_message_is_refused_the_second_time() -> None:
    """With and without one-time keys, and after a restart; the store does not move."""
    for one_time in (True, False):
        for one_time_kem in (True, False):
            message = first_message(BOB.bundle(STORE, one_time=one_time, one_time_kem=one_time_kem))
            store, _, _ = BOB.accept(STORE, ADA, message)
            for each, past in ((store, NOTHING), restarted(store)):
                with pytest.raises(Undecryptable, match=r"repeats a handshake|used or deleted"):
                    BOB.accept(each, ADA, message, past=past)
            assert len(store.begun) == (not one_time and not one_time_kem)


def last_resort(store: PrekeyStore) -> PrekeyBundle:
    """What a relay hands out that has no one-time keys, or says so."""
    return BOB.bundle(store, one_time=False, one_time_kem=False)


def past_of(number: int) -> Past:
    """So many handshakes of one user."""
    return Past(frozenset(struct.pack(">Q", mark) for mark in range(number)))


def test_a_flood_of_last_resort_handshakes_locks_out_the_flooder_alone() -> None:
    """One user begins as many as may be remembered of one; nobody else notices, and nothing comes again."""
    store = STORE
    messages = [first_message(last_resort(store)) for _ in range(2)]
    for message in messages:
        store, _, _ = BOB.accept(store, ADA, message, past=past_of(MAX_BEGUN - 2))
    for each, past in ((store, past_of(MAX_BEGUN - 2)), restarted(store, past_of(MAX_BEGUN - 2))):
        with pytest.raises(LimitReached, match="This user"):
            BOB.accept(each, ADA, first_message(last_resort(each)), past=past)
        for message in messages:
            with pytest.raises(Undecryptable, match="repeats"):
                BOB.accept(each, ADA, message, past=past)
        BOB.accept(each, MALLORY, first_message(last_resort(each), by=MALLORY))
        # Whoever has one-time keys is not concerned, and a new signed prekey is a new beginning.
        BOB.accept(each, ADA, first_message(BOB.bundle(each)), past=past)
        rotated = renew(each, NOW + 1)
        BOB.accept(rotated, ADA, first_message(last_resort(rotated)))


def test_of_whom_the_memory_was_given_up_nothing_is_answered_without_a_one_time_key() -> None:
    """So nothing can come again that is not remembered; by the signed prekey that it concerns alone."""
    closed, message = Past(closed=True), first_message(last_resort(STORE))
    for each in (message, first_message(last_resort(STORE))):
        with pytest.raises(LimitReached):
            BOB.accept(STORE, ADA, each, past=closed)
    BOB.accept(STORE, ADA, first_message(BOB.bundle(STORE)), past=closed)
    BOB.accept(STORE, MALLORY, first_message(last_resort(STORE), by=MALLORY))


def test_a_flood_by_any_number_of_names_brings_no_rotation_and_retires_no_prekey() -> None:
    """An honest first message made before it is answered after it, for as long as the grace lasts."""
    waiting, store = first_message(last_resort(STORE)), STORE
    begun = tuple(Begun(1, user, struct.pack(">Q", user)) for user in range(1, 20_000))
    for day in range(7 + 30):
        store = msgspec.structs.replace(store, begun=begun)
        store = decode_store(encode_store(maintain(store, NOW + day * 24 * 3600, 50, 50)))
        assert BOB.accept(store, ADA, waiting)[2] == b"hi"
    assert [pair.issued for pair in store.pairs] == [NOW + week * ROTATION for week in range(6)]
    assert encode_store(store) == encode_store(msgspec.structs.replace(store, begun=begun))
    gone = maintain(store, NOW + ROTATION + GRACE, 50, 50)
    with pytest.raises(Undecryptable, match="used or deleted"):
        BOB.accept(gone, ADA, waiting)


def test_what_was_just_begun_goes_with_its_signed_prekey() -> None:
    """A store that was not saved since."""
    store, _, _ = BOB.accept(STORE, ADA, first_message(last_resort(STORE)))
    store = maintain(store, NOW + ROTATION, 50, 50)
    assert len(store.begun) == 1
    assert maintain(store, NOW + ROTATION + GRACE, 50, 50).begun == ()


def test_the_number_of_kept_pairs_is_bounded() -> None:
    """Though somebody replaces the keys of a device every hour; daily, none goes before its time."""
    store = STORE
    for day in range(1, 30):
        store = renew(store, NOW + day * 24 * 3600)
    assert store.pairs[0].signed_id == STORE.pairs[0].signed_id
    for hour in range(2 * MAX_PAIRS):
        store = renew(store, NOW + 30 * 24 * 3600 + hour * 3600)
        assert len(store.pairs) <= MAX_PAIRS
    assert decode_store(encode_store(store)) == store


def test_new_key_versions_sign_the_same_prekeys_anew() -> None:
    """After a rotation of the identity keys everything is uploaded again, under the new signature."""
    bob = device("bob", rotated=True)
    bundle = bob.bundle(STORE)
    verify_bundle(NETWORK, bundle, bob.party.record, bob.party.uid, NOW)
    message = session.encrypt(ADA.begin(bob, bundle), b"hi", b"")[1]
    assert bob.accept(STORE, ADA, message)[2] == b"hi"
    with pytest.raises(Undecryptable, match="other key versions"):
        BOB.accept(STORE, ADA, message)


# --- bytes ------------------------------------------------------------------------------------------------


def used_store() -> PrekeyStore:
    """A store with everything in it."""
    store = maintain(STORE, NOW + ROTATION, 0, 0)
    message = first_message(BOB.bundle(store, one_time=False, one_time_kem=False), NOW + ROTATION)
    return BOB.accept(store, ADA, message)[0]


def test_a_saved_store_is_the_same_store() -> None:
    """And shows no secrets in a traceback."""
    store = used_store()
    assert len(store.pairs) == 2
    assert len(store.begun) == 1
    assert decode_store(encode_store(store)) == msgspec.structs.replace(store, begun=())
    assert repr(store) == "PrekeyStore(…)"
    assert {repr(each) for each in store.pairs} == {"Pair(…)"}
    assert {repr(each) for each in store.one_time.values()} == {"Secret(…)"}


def test_a_damaged_store_is_refused() -> None:
    """Truncated, with a tail, empty or of a newer version."""
    data = encode_store(msgspec.structs.replace(used_store(), one_time={}, kem_one_time={}))
    for length in range(len(data)):
        with pytest.raises(BadRecord):
            decode_store(data[:length])
    for bad in (data + b"\0", b"\x01" + data[1:], b"\x04" + data[1:]):
        with pytest.raises(BadRecord):
            decode_store(bad)


def test_published_keys_have_one_form() -> None:
    """Whole, never truncated or with a tail."""
    up = BOB.upload(STORE)
    for key in (up.signed, up.last_resort, up.kem_one_time[0]):
        data = encode_signed_key(key)
        assert decode_signed_key(data) == key
        for bad in (data[:-1], data + b"\0", data[:92], b"", b"\x00" + data[1:], b"\x04" + data[1:]):
            with pytest.raises(BadRecord):
                decode_signed_key(bad)
    data = encode_one_time(up.one_time[0])
    assert decode_one_time(data) == up.one_time[0]
    for bad in (data[:-1], data + b"\0", b"", bytes(4) + data[4:]):
        with pytest.raises(BadRecord):
            decode_one_time(bad)
    data = encode_bundle(BUNDLE)
    for bad in (data[:-1], data + b"\0", b"", b"\x02" + data[1:]):
        with pytest.raises(BadRecord):
            decode_bundle(bad)


@pytest.mark.parametrize("parse", [decode_store, decode_bundle, decode_signed_key, decode_one_time])
@given(
    data=st.one_of(
        st.binary(max_size=300), st.binary(min_size=1787, max_size=1787).map(lambda b: b"\1" + b[1:])
    )
)
@settings(deadline=None)
def test_only_bad_record_escapes_the_parsers(parse: Callable[[bytes], object], data: bytes) -> None:
    """Whatever a relay or a disk delivers."""
    try:
        parse(data)
    except BadRecord:
        return


def test_mallorys_keys_are_not_bobs() -> None:
    """Properly signed, by another device."""
    with pytest.raises(BadRecord, match="not signed"):
        check(msgspec.structs.replace(BUNDLE, signed=MALLORY.upload(STORE).signed))
