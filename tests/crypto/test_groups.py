"""Sender keys: what is said reaches those who may hear it, once, and nobody else can say or hear it."""

from __future__ import annotations

import hashlib
import hmac
import random
import struct

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from chatchain.crypto import groups
from chatchain.crypto.groups import (
    KEPT_SECONDS,
    MAX_CHAIN_MESSAGES,
    MAX_CHAIN_SECONDS,
    MAX_CHAINS,
    MAX_KEPT,
    OVERHEAD_BYTES,
    Distribution,
    GroupEpoch,
    Listener,
    Rotation,
    Sender,
    SenderKeys,
    SendingChain,
)
from chatchain.crypto.padding import MAX_PADDED
from chatchain.errors import (
    BadRecord,
    ForgedMessage,
    MissingSenderKey,
    Replayed,
    TooLarge,
    Undecryptable,
    VerificationError,
    WrongEpoch,
)
from tests.crypto.talkers import (
    ADA,
    BOB,
    CAROL,
    DAVE,
    EVE,
    GROUP,
    NOW,
    ROSTERS,
    SENDER,
    at,
    listening,
    roster_hash,
    said,
    started,
)
from tests.identity.people import NETWORK, OTHER_NETWORK


def text(keys: SenderKeys, message: bytes, associated: bytes = b"") -> bytes:
    """What a message says."""
    return groups.decrypt(keys, message, associated, NOW)[1].plaintext


def heard(keys: SenderKeys, messages: list[bytes]) -> tuple[SenderKeys, list[bytes]]:
    """The keys after these messages, and what they say."""
    texts = []
    for message in messages:
        keys, received = groups.decrypt(keys, message, b"", NOW)
        texts.append(received.plaintext)
    return keys, texts


def refused(keys: SenderKeys, message: bytes, error: type[Exception], associated: bytes = b"") -> None:
    """The message is refused, and not a byte of the state moves."""
    before = keys.encode()
    with pytest.raises(error):
        groups.decrypt(keys, message, associated, NOW)
    assert keys.encode() == before


# --- talking --------------------------------------------------------------------------------------------


def test_all_who_were_given_the_chain_read_it_in_order() -> None:
    """One ciphertext serves every listener."""
    chain = started(audience=[BOB, CAROL])
    bob, carol = listening(chain), listening(chain)
    _, messages = said(chain, 20)
    expected = [f"message {number}".encode() for number in range(20)]
    assert heard(bob, messages)[1] == expected
    assert heard(carol, messages)[1] == expected


def test_order_does_not_matter_and_nothing_is_kept_in_the_end() -> None:
    """Every message opens in any order; then no key is left over."""
    chain = started()
    _, messages = said(chain, 200)
    shuffled = messages[:]
    random.Random(7).shuffle(shuffled)
    keys, texts = heard(listening(chain), shuffled)
    assert sorted(texts) == sorted(f"message {number}".encode() for number in range(200))
    assert keys.kept == 0


def test_a_received_message_says_where_it_stands() -> None:
    """Epoch, generation and index, for whoever judges lateness."""
    chain = started(2, after=started(1))
    _, messages = said(chain, 3)
    _, received = groups.decrypt(listening(chain), messages[1], b"", NOW)
    assert received == groups.Received(b"message 1", at(2), 2, 1)


def test_the_overhead_is_what_it_says() -> None:
    """129 bytes on top of the padded plaintext."""
    chain = started()
    for length in (0, 256, MAX_PADDED):
        _, message = groups.encrypt(chain, chain.epoch, bytes(length))
        assert len(message) == length + OVERHEAD_BYTES
        assert text(listening(chain), message) == bytes(length)
    assert OVERHEAD_BYTES == 129
    with pytest.raises(TooLarge):
        groups.encrypt(chain, chain.epoch, bytes(MAX_PADDED + 1))


def test_a_second_implementation_reads_it() -> None:
    """From the text of docs/protocol.md alone, step by step."""
    chain = started()
    given_, (_, messages) = groups.distribution(chain), said(chain, 5, b"bound")
    message = messages[4]
    key = given_.chain_key
    for _ in range(4):
        key = hmac.new(key, b"\x02", hashlib.sha256).digest()
    seed = hmac.new(key, b"\x01", hashlib.sha256).digest()
    keys = hmac.new(seed, b"chatchain/2 group keys", hashlib.sha512).digest()
    assert message[:17] == struct.pack(">BQII", 1, 1, 1, 4)
    assert message[17:49] == keys[32:]
    additional = (
        b"chatchain/2 group body"
        + GROUP
        + struct.pack(">Q", 1)
        + roster_hash(1)
        + struct.pack(">QIII", ADA.uid, 1, 1, 4)
        + b"bound"
    )
    assert AESGCM(keys[:32]).decrypt(bytes(12), message[49:-64], additional) == b"message 4"
    signed = b"chatchain/2 group message" + hashlib.sha256(additional).digest() + message[17:-64]
    Ed25519PublicKey.from_public_bytes(given_.public).verify(message[-64:], signed)


# --- who may read: rotation -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("epoch", "audience", "now", "asked", "reason"),
    [
        (1, [BOB, CAROL], NOW, False, None),
        (1, [BOB, CAROL], NOW + MAX_CHAIN_SECONDS - 1, False, None),
        (1, [BOB, CAROL], NOW - 10**6, False, None),
        (1, [BOB, CAROL, DAVE], NOW, False, None),
        (1, [BOB, CAROL], NOW + MAX_CHAIN_SECONDS, False, Rotation.AGE),
        (1, [BOB], NOW, False, Rotation.LISTENER),
        (1, [BOB, DAVE], NOW, False, Rotation.LISTENER),
        (1, [BOB, Listener(CAROL.uid, 1, 1)], NOW, False, Rotation.LISTENER),
        (1, [BOB, Listener(CAROL.uid, 2, 0)], NOW, False, Rotation.LISTENER),
        (2, [BOB, CAROL], NOW, False, Rotation.ROSTER),
        (1, [BOB, CAROL], NOW, True, Rotation.ASKED),
    ],
)
def test_a_chain_ends_when_somebody_must_not_read_on(
    epoch: int, audience: list[Listener], now: int, asked: bool, reason: Rotation | None
) -> None:
    """Removal, revocation, recovery, a vote, age; a newcomer alone is given the chain as it stands."""
    chain = started(audience=[CAROL, BOB])
    assert groups.rotation_due(chain, at(epoch), audience, now, asked=asked) == reason


def test_there_is_no_chain_before_the_first() -> None:
    """So the first message rotates too."""
    assert groups.rotation_due(None, at(1), [BOB], NOW) == Rotation.FIRST


def test_a_fork_of_the_roster_ends_a_chain() -> None:
    """The same epoch with another hash is another roster."""
    fork = GroupEpoch(GROUP, 1, roster_hash(2))
    assert groups.rotation_due(started(), fork, [BOB], NOW) == Rotation.ROSTER


def test_a_chain_ends_after_a_thousand_messages() -> None:
    """Both sides keep to it: the sender cannot go on, and a listener refuses what goes on."""
    chain = started()
    longest = msgspec.structs.replace(chain, index=MAX_CHAIN_MESSAGES - 1)
    assert groups.rotation_due(longest, at(1), [BOB], NOW) is None
    keys = listening(longest)
    ended, message = groups.encrypt(longest, at(1), b"the last")
    assert text(keys, message) == b"the last"
    assert groups.rotation_due(ended, at(1), [BOB], NOW) == Rotation.COUNT
    with pytest.raises(ValueError, match="ended"):
        groups.encrypt(ended, at(1), b"one more")
    beyond = bytearray(message)
    beyond[13:17] = MAX_CHAIN_MESSAGES.to_bytes(4, "big")
    refused(keys, bytes(beyond), Undecryptable)


def test_a_newcomer_reads_from_then_on_and_nothing_of_before() -> None:
    """It is given the chain as it stands, which cannot be walked back."""
    chain, before = said(started(audience=[BOB]), 5)
    assert groups.newcomers(chain, [BOB, DAVE, CAROL]) == tuple(
        sorted([CAROL, DAVE], key=msgspec.structs.astuple)
    )
    chain = groups.admit(chain, [DAVE, CAROL])
    assert groups.newcomers(chain, [BOB, DAVE, CAROL]) == ()
    dave = listening(chain)
    _, after = said(chain, 2)
    assert heard(dave, after)[1] == [b"message 5", b"message 6"]
    for message in before:
        refused(dave, message, Undecryptable)


def test_a_removed_member_reads_nothing_of_the_next_epoch() -> None:
    """Its keys of the old chain neither open nor lead to the new one; who stays reads on."""
    old = started(1, [BOB, EVE])
    bob = eve = listening(old)
    old, early = said(old, 3)
    (bob, _), (eve, _) = heard(bob, early), heard(eve, early)
    assert groups.rotation_due(old, at(2), [BOB], NOW) == Rotation.ROSTER
    with pytest.raises(WrongEpoch):
        groups.encrypt(old, at(2), b"without a new chain")
    new = started(2, [BOB], after=old)
    bob = groups.accept(bob, groups.distribution(new), ROSTERS, NOW)
    _, late = said(new, 3)
    assert heard(bob, late)[1] == [b"message 0", b"message 1", b"message 2"]
    for message in late:
        refused(eve, message, MissingSenderKey)
        # Nor under the number of the chain that she has.
        refused(eve, message[:1] + struct.pack(">QII", 1, 1, 3) + message[17:], ForgedMessage)
    assert old.chain_key != new.chain_key
    assert old.signing_secret != new.signing_secret


def test_late_messages_of_the_chain_before_still_open() -> None:
    """A rotation loses nothing that is on its way."""
    chain = started(1)
    keys = listening(chain)
    chain, old = said(chain, 3)
    keys = groups.accept(keys, groups.distribution(started(2, after=chain)), ROSTERS, NOW)
    assert heard(keys, [old[2], old[0], old[1]])[1] == [b"message 2", b"message 0", b"message 1"]


# --- bounds ---------------------------------------------------------------------------------------------


def test_skipped_keys_are_bounded_over_all_chains() -> None:
    """2,000 in all, the newest: an attacker who is a member fills no disk."""
    keys, chain, lasts = SenderKeys(GROUP, SENDER), None, []
    for _ in range(3):
        chain = started(after=chain)
        keys = groups.accept(keys, groups.distribution(chain), ROSTERS, NOW)
        chain, messages = said(chain, 900)
        lasts.append(messages)
        keys, _ = groups.decrypt(keys, messages[-1], b"", NOW)
    assert keys.kept == MAX_KEPT
    assert len(keys.encode()) < 100_000
    refused(keys, lasts[0][0], Replayed)
    assert text(keys, lasts[2][0]) == b"message 0"
    assert text(keys, lasts[0][898]) == b"message 898"


def test_chains_are_bounded() -> None:
    """Five of one sender; of older ones nothing opens any more."""
    keys, chain, firsts = SenderKeys(GROUP, SENDER), None, []
    for _ in range(MAX_CHAINS + 1):
        chain = started(after=chain)
        keys = groups.accept(keys, groups.distribution(chain), ROSTERS, NOW)
        chain, messages = said(chain, 1)
        firsts.append(messages[0])
    assert len(keys.chains) == MAX_CHAINS
    refused(keys, firsts[0], Undecryptable)
    assert heard(keys, firsts[1:])[1] == [b"message 0"] * MAX_CHAINS


def test_what_was_kept_long_enough_is_dropped() -> None:
    """Keys of skipped messages and replaced chains after 30 days; the newest chain stays."""
    first = started()
    _, messages = said(first, 3)
    keys, _ = groups.decrypt(listening(first), messages[2], b"", NOW)
    assert groups.expire(keys, NOW + KEPT_SECONDS - 1) == keys
    late = groups.expire(keys, NOW + KEPT_SECONDS)
    assert (late.kept, len(late.chains)) == (0, 1)
    refused(late, messages[0], Replayed)
    both = groups.accept(keys, groups.distribution(started(2, after=first)), ROSTERS, NOW)
    assert len(groups.expire(both, NOW + KEPT_SECONDS).chains) == 1


def test_older_epochs_can_be_closed() -> None:
    """For whoever wants nothing late from before a vote."""
    first = started(1)
    last, old = said(first, 1)
    keys = listening(first, started(2, after=last))
    closed = groups.forget_before(keys, 2)
    assert [chain.epoch.epoch for chain in closed.chains] == [2]
    refused(closed, old[0], Undecryptable)


# --- attacks --------------------------------------------------------------------------------------------


CHAIN = started(audience=[BOB, EVE])
AFTER, MESSAGES = said(CHAIN, 6, b"id")
BEFORE = listening(CHAIN)


def test_replayed_message() -> None:
    """Nothing opens twice, in order or skipped, also after a restart."""
    keys, _ = groups.decrypt(BEFORE, MESSAGES[2], b"id", NOW)
    keys, _ = groups.decrypt(keys, MESSAGES[0], b"id", NOW)
    for number in (0, 2):
        refused(keys, MESSAGES[number], Replayed, b"id")
        refused(SenderKeys.decode(keys.encode()), MESSAGES[number], Replayed, b"id")


def test_replayed_distribution() -> None:
    """A chain that is given again starts nothing again."""
    keys, _ = groups.decrypt(BEFORE, MESSAGES[3], b"id", NOW)
    again = groups.accept(keys, groups.distribution(CHAIN), ROSTERS, NOW)
    assert again == keys
    refused(again, MESSAGES[3], Replayed, b"id")


@pytest.mark.parametrize("at_byte", range(0, len(MESSAGES[0]), 3))
def test_tampered_message(at_byte: int) -> None:
    """Whichever byte is changed."""
    message = bytearray(MESSAGES[4])
    message[at_byte] ^= 0x10
    refused(BEFORE, bytes(message), VerificationError, b"id")


@pytest.mark.parametrize("length", [0, 1, 16, 48, OVERHEAD_BYTES - 1, len(MESSAGES[0]) - 1])
def test_truncated_message(length: int) -> None:
    """Cut anywhere, and with a tail."""
    refused(BEFORE, MESSAGES[0][:length], VerificationError, b"id")
    refused(BEFORE, MESSAGES[0] + b"\0", ForgedMessage, b"id")
    refused(BEFORE, MESSAGES[0].ljust(groups.MAX_MESSAGE_BYTES + 1, b"\0"), Undecryptable, b"id")


def test_message_moved_to_other_associated_data() -> None:
    """Another id, time or recipient than it was sent with."""
    refused(BEFORE, MESSAGES[0], ForgedMessage, b"ie")
    refused(BEFORE, MESSAGES[0], ForgedMessage, b"")


def rehomed(given_: Distribution, **fields: object) -> Distribution:
    """The same keys under other words."""
    return msgspec.structs.replace(given_, epoch=msgspec.structs.replace(given_.epoch, **fields))


@pytest.mark.parametrize(
    ("group", "epoch", "rosters"),
    [
        (groups.group_id(NETWORK, 8), 1, ROSTERS),
        (groups.group_id(OTHER_NETWORK, 7), 1, ROSTERS),
        (GROUP, 1, {1: roster_hash(9)}),
    ],
)
def test_message_moved_to_another_group_or_roster(
    group: bytes, epoch: int, rosters: dict[int, bytes]
) -> None:
    """The keys alone do not make a message belong."""
    moved = rehomed(groups.distribution(CHAIN), group=group, epoch=epoch, roster_hash=rosters[1])
    keys = groups.accept(SenderKeys(group, SENDER), moved, rosters, NOW)
    refused(keys, MESSAGES[0], ForgedMessage, b"id")


def test_unknown_key_share() -> None:
    """Eve passes Ada's chain on as her own: what Ada says still does not count as Eve's."""
    eve = SenderKeys(GROUP, Sender(EVE.uid, 1))
    eve = groups.accept(eve, groups.distribution(CHAIN), ROSTERS, NOW)
    refused(eve, MESSAGES[0], ForgedMessage, b"id")
    other_device = groups.accept(
        SenderKeys(GROUP, Sender(ADA.uid, 2)), groups.distribution(CHAIN), ROSTERS, NOW
    )
    refused(other_device, MESSAGES[0], ForgedMessage, b"id")


def test_forged_sender() -> None:
    """Eve reads Ada's chain, so she can encrypt with it; she cannot sign with it."""
    forged = msgspec.structs.replace(CHAIN, signing_secret=bytes(32))
    _, messages = said(forged, 1, b"id")
    refused(BEFORE, messages[0], ForgedMessage, b"id")


def test_two_plaintexts_in_one_ciphertext() -> None:
    """A sender who gives two listeners two chain keys under one signing key is caught by the commitment."""
    two_faced = msgspec.structs.replace(CHAIN, chain_key=bytes(32))
    refused(listening(two_faced), MESSAGES[0], ForgedMessage, b"id")


def test_reordered_ciphertext_under_the_right_signature_still_needs_its_key() -> None:
    """The signing key without the chain key makes nothing that opens."""
    sealed = bytearray(MESSAGES[0][:-64])
    sealed[-1] ^= 1
    additional = groups._additional(CHAIN.epoch, SENDER, 1, 0, b"id")
    signed = groups._signed(additional, bytes(sealed[17:49]), bytes(sealed[49:]))
    signature = Ed25519PrivateKey.from_private_bytes(CHAIN.signing_secret).sign(signed)
    refused(BEFORE, bytes(sealed) + signature, Undecryptable, b"id")


def test_epoch_rollback_by_a_distribution() -> None:
    """After a chain of epoch 3 none of epoch 2 is taken, nor an older generation."""
    first = started(2)
    second = started(3, after=first)
    third = started(3, after=second)
    keys = listening(first, third)
    for old in (started(2, after=first), second, started(1)):
        before = keys.encode()
        with pytest.raises(WrongEpoch, match="older"):
            groups.accept(keys, groups.distribution(old), ROSTERS, NOW)
        assert keys.encode() == before


def test_epoch_rollback_by_the_rosters_view() -> None:
    """A roster that the chain does not confirm is refused, older or newer or forked."""
    for rosters in ({}, {2: roster_hash(2)}, {1: roster_hash(2)}):
        with pytest.raises(WrongEpoch, match="confirm"):
            groups.accept(SenderKeys(GROUP, SENDER), groups.distribution(CHAIN), rosters, NOW)


def test_epoch_rollback_of_the_sender() -> None:
    """A device that has sent at epoch 5 is not talked into sending at 4."""
    with pytest.raises(WrongEpoch):
        started(4, after=started(5))
    with pytest.raises(WrongEpoch):
        groups.encrypt(started(5), at(4), b"to those of epoch 4")
    with pytest.raises(ValueError, match="same sender"):
        groups.start(at(5), Sender(BOB.uid, 1), [], NOW, started(4))


def test_injection_after_the_end() -> None:
    """A thief of the old signing key cannot go on where the sender stopped: the new chain says where."""
    old, messages = said(CHAIN, 3)
    keys, _ = groups.decrypt(listening(CHAIN), messages[0], b"", NOW)
    keys = groups.accept(keys, groups.distribution(started(2, after=old)), ROSTERS, NOW)
    _, stolen = said(old, 2)
    for message in stolen:
        refused(keys, message, Undecryptable)
    assert heard(keys, messages[1:])[1] == [b"message 1", b"message 2"]


def test_injection_before_the_end_was_known_is_cut_off() -> None:
    """What a thief made us skip beyond the end goes with it."""
    old, _ = said(CHAIN, 3)
    thief, stolen = said(old, 5)
    keys, _ = groups.decrypt(listening(CHAIN), stolen[-1], b"", NOW)
    assert keys.kept == 7
    keys = groups.accept(keys, groups.distribution(started(2, after=old)), ROSTERS, NOW)
    assert keys.kept == 3
    refused(keys, stolen[0], Undecryptable)
    assert thief.index == 8
    assert SenderKeys.decode(keys.encode()) == keys


def test_two_chains_under_one_number() -> None:
    """A sender that says different things to different listeners is not followed."""
    with pytest.raises(ForgedMessage, match="two different"):
        groups.accept(BEFORE, groups.distribution(started()), ROSTERS, NOW)


@pytest.mark.parametrize("public", [bytes(32), (1).to_bytes(32, "little"), b"\xff" * 32])
def test_small_order_signing_key(public: bytes) -> None:
    """Under such a key one signature would hold for many messages."""
    weak = msgspec.structs.replace(groups.distribution(CHAIN), public=public)
    with pytest.raises(ForgedMessage, match="safe point"):
        groups.accept(SenderKeys(GROUP, SENDER), weak, ROSTERS, NOW)


def test_distribution_of_another_group() -> None:
    """It is put nowhere."""
    with pytest.raises(ForgedMessage, match="another group"):
        groups.accept(SenderKeys(bytes(32), SENDER), groups.distribution(CHAIN), ROSTERS, NOW)


def test_skipped_key_exhaustion() -> None:
    """A forged index makes us derive nothing; a signed one at most a chain's length."""
    jump = bytearray(MESSAGES[0])
    jump[13:17] = (999).to_bytes(4, "big")
    refused(BEFORE, bytes(jump), ForgedMessage, b"id")
    far = msgspec.structs.replace(CHAIN, index=0)
    for _ in range(999):
        far = msgspec.structs.replace(
            far, index=far.index + 1, chain_key=groups._next_chain_key(far.chain_key)
        )
    _, messages = said(far, 1, b"id")
    keys, _ = groups.decrypt(BEFORE, messages[0], b"id", NOW)
    assert keys.kept == 999


# --- what is stored and what travels --------------------------------------------------------------------


def test_states_survive_a_restart() -> None:
    """Both sides, with skipped keys and several chains."""
    assert SendingChain.decode(AFTER.encode()) == AFTER
    chain = groups.admit(AFTER, [CAROL, DAVE, BOB])
    assert SendingChain.decode(chain.encode()) == chain
    assert chain.audience == {BOB, EVE, CAROL, DAVE}
    keys, _ = groups.decrypt(BEFORE, MESSAGES[5], b"id", NOW)
    keys = groups.accept(keys, groups.distribution(started(2, after=AFTER)), ROSTERS, NOW)
    loaded = SenderKeys.decode(keys.encode())
    assert (loaded, loaded.encode()) == (keys, keys.encode())
    assert text(loaded, MESSAGES[1], b"id") == b"message 1"


def test_a_state_shows_no_secret() -> None:
    """In a log or a traceback."""
    shown = repr((AFTER, BEFORE, groups.distribution(AFTER)))
    for secret in (AFTER.chain_key, AFTER.signing_secret, CHAIN.chain_key):
        assert secret.hex() not in shown
        assert repr(secret)[2:-1] not in shown


def test_a_distribution_survives() -> None:
    """149 bytes, with the index and the end of the chain before."""
    after = groups.distribution(started(3, after=AFTER))
    assert (after.previous, after.generation, after.index) == (6, 2, 0)
    for given_ in (groups.distribution(AFTER), after):
        assert Distribution.decode(given_.encode()) == given_
        assert len(given_.encode()) == groups.DISTRIBUTION_BYTES == 149


@pytest.mark.parametrize("cut", [0, 1, 100, -1])
def test_damaged_states_are_refused(cut: int) -> None:
    """Cut, with a tail, of another version."""
    keys, _ = groups.decrypt(BEFORE, MESSAGES[5], b"id", NOW)
    sending, receiving, given_ = AFTER.encode(), keys.encode(), groups.distribution(AFTER).encode()
    for state in (sending, receiving, given_):
        for damaged in (state[:cut], state + b"\0", b"\2" + state[1:]):
            for decode in (SendingChain.decode, SenderKeys.decode):
                with pytest.raises(BadRecord):
                    decode(damaged)
            with pytest.raises(Undecryptable):
                Distribution.decode(damaged)


@given(st.binary(max_size=400), st.integers(0, 600), st.binary(min_size=1, max_size=6))
@settings(deadline=None, max_examples=300)
def test_only_documented_errors_escape_the_parsers(garbage: bytes, where: int, patch: bytes) -> None:
    """Garbage, and real states with some bytes overwritten; what is read is written the same."""
    keys, _ = groups.decrypt(BEFORE, MESSAGES[5], b"id", NOW)
    for real in (AFTER.encode(), keys.encode(), groups.distribution(AFTER).encode(), MESSAGES[5], b""):
        place = where % (len(real) + 1)
        data = real[:place] + patch + real[place + len(patch) :] if real else garbage
        for decode in (SendingChain.decode, SenderKeys.decode, Distribution.decode):
            try:
                found = decode(data)
            except (BadRecord, Undecryptable):
                continue
            assert found.encode() == data
        if data != MESSAGES[5]:
            refused(BEFORE, data, VerificationError, b"id")


def test_a_group_has_one_id_per_network() -> None:
    """32 bytes, which nobody else's group has."""
    ids = {groups.group_id(network, number) for network in (NETWORK, OTHER_NETWORK) for number in range(3)}
    assert len(ids) == 6
    assert all(len(each) == 32 for each in ids)
    for group, roster in ((bytes(31), bytes(32)), (bytes(32), bytes(33))):
        with pytest.raises(ValueError, match="32 bytes"):
            GroupEpoch(group, 1, roster)
