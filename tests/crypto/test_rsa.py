"""The RSA compatibility envelope: what it carries, and what it is refused for."""

from __future__ import annotations

import base64

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa as plain_rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from chatchain.crypto import content, rsa
from chatchain.errors import BadRecord, ForgedMessage, Undecryptable
from chatchain.model import DeviceState, Suite, User
from tests.crypto.rsa_people import SECRETS, published, rsa_user
from tests.identity.people import BLOCK_TIME, NETWORK, OTHER_NETWORK, OTHER_REGISTRY

ADA, BOB, EVE = rsa_user("ada"), rsa_user("bob"), rsa_user("eve")
HELLO = content.text("hello, classroom")
ID = bytes(range(16))
TIME = BLOCK_TIME * 1000


def sealed(sender: User = ADA, recipient: User = BOB, by: str = "ada") -> bytes:
    return rsa.seal(
        NETWORK,
        HELLO,
        secret=SECRETS[by],
        sender=sender,
        recipient=recipient,
        message_id=ID,
        time_ms=TIME,
    )


def opened(envelope: bytes, recipient: User = BOB, sender: User = ADA, by: str = "bob") -> rsa.Opened:
    return rsa.open_(NETWORK, envelope, secret=SECRETS[by], recipient=recipient, sender=sender)


ENVELOPE = sealed()


def test_a_message_comes_out_as_it_went_in_and_says_what_it_is() -> None:
    """Also through its text, whose first lines are the warning."""
    text = rsa.armour(ENVELOPE)
    assert text.startswith(f"{rsa.BEGIN}\n({rsa.LABEL})\n")
    assert opened(rsa.from_armour(text)) == rsa.Opened(HELLO, ADA.uid, ID, TIME, rsa.LABEL)
    assert sealed() != ENVELOPE


ANY_SUITE = (1 << Suite.SEALED, 1 << Suite.RATCHET, 1 << Suite.SEALED | 1 << Suite.RATCHET, 1 << 7)


@pytest.mark.parametrize("suites", ANY_SUITE)
def test_downgrade_is_refused_when_a_device_of_the_recipient_lists_any_suite(suites: int) -> None:
    """Nothing is made for such a user, whichever suite it is and whoever asks."""
    for sender in (ADA, rsa_user("ada", suites=suites)):
        with pytest.raises(BadRecord, match="refused"):
            sealed(sender=sender, recipient=rsa_user("bob", suites=suites))


@pytest.mark.parametrize("suites", ANY_SUITE)
def test_downgrade_is_refused_between_two_who_could_do_better(suites: int) -> None:
    """Nothing is read that was signed by an RSA key whose owner has better, and would have used it."""
    with pytest.raises(BadRecord, match="refused"):
        opened(ENVELOPE, recipient=rsa_user("bob", suites=suites), sender=rsa_user("ada", suites=1 << 2))


@pytest.mark.parametrize("suites", ANY_SUITE)
def test_who_has_a_better_device_reads_who_has_none(suites: int) -> None:
    """Such a peer cannot write in another way, and the recipient's RSA key is on the chain for it."""
    assert opened(ENVELOPE, recipient=rsa_user("bob", suites=suites)).content == HELLO


def test_who_has_a_better_device_may_write_to_who_has_none() -> None:
    """It is the recipient who has no other key."""
    modern = rsa_user("ada", suites=1 << Suite.RATCHET)
    assert opened(sealed(sender=modern), sender=modern).content == HELLO


def test_a_revoked_device_or_a_record_that_is_none_lists_nothing() -> None:
    """Only what is active and readable counts as something better."""
    modern = rsa_user("bob", suites=1 << Suite.RATCHET)
    revoked = msgspec.structs.replace(modern.devices[0], state=DeviceState.REVOKED)
    version = msgspec.structs.replace(modern.devices[0].current, record=b"of some classroom")
    foreign = msgspec.structs.replace(modern.devices[0], history=(version,))
    for device in (revoked, foreign):
        bob = msgspec.structs.replace(modern, devices=(device,))
        assert opened(sealed(recipient=bob), recipient=bob).content == HELLO


def test_keys_that_the_chain_does_not_have_in_force_are_refused() -> None:
    """None, a revoked one, a superseded one, another's."""
    with pytest.raises(BadRecord):
        sealed(recipient=msgspec.structs.replace(BOB, keys=()))
    with pytest.raises(BadRecord):
        sealed(recipient=rsa_user("bob", published("bob", state=DeviceState.REVOKED)))
    with pytest.raises(BadRecord):
        sealed(by="eve")
    with pytest.raises(ForgedMessage):
        opened(ENVELOPE, sender=rsa_user("ada", published("eve", "ada")))
    replaced = rsa_user("bob", published("eve", "bob"))
    with pytest.raises(BadRecord):
        opened(ENVELOPE, recipient=replaced)
    with pytest.raises(Undecryptable):
        opened(ENVELOPE, recipient=replaced, by="eve")


def test_a_forged_sender_is_refused() -> None:
    """Eve seals with her own key and puts ada's name on it, or signs as herself in ada's place."""
    by_eve = sealed(sender=EVE, by="eve")
    with pytest.raises(ForgedMessage):
        opened(by_eve)
    claiming = rsa_user("ada", published("eve"))  # how Eve would like the chain to be
    with pytest.raises(ForgedMessage, match="not signed"):
        opened(sealed(sender=claiming, by="eve"))


def test_a_reflected_or_forwarded_message_is_refused() -> None:
    """To its own sender, or to a third who is told that it was for him."""
    with pytest.raises(Undecryptable):
        opened(ENVELOPE, recipient=ADA, sender=BOB, by="ada")
    with pytest.raises(Undecryptable):
        opened(ENVELOPE, recipient=EVE, by="eve")
    renamed = ENVELOPE[:17] + EVE.uid.to_bytes(8, "big") + ENVELOPE[25:]
    with pytest.raises(Undecryptable):
        opened(renamed, recipient=EVE, by="eve")


@pytest.mark.parametrize("network", [OTHER_NETWORK, OTHER_REGISTRY])
def test_a_message_of_another_network_is_refused(network: object) -> None:
    """The network is in what is signed and in what opens the key."""
    with pytest.raises(Undecryptable):
        rsa.open_(network, ENVELOPE, secret=SECRETS["bob"], recipient=BOB, sender=ADA)  # type: ignore[arg-type]


def test_an_altered_message_is_refused() -> None:
    """In its head, its key, its box; cut or with a tail; and in one way whatever it was."""
    places = [*range(0, 57, 3), 60, 200, 312, 320, 600, len(ENVELOPE) - 1]
    said = set()
    for place in places:
        changed = ENVELOPE[:place] + bytes([ENVELOPE[place] ^ 1]) + ENVELOPE[place + 1 :]
        with pytest.raises((Undecryptable, ForgedMessage)) as refused:
            opened(changed)
        if place >= 57:
            said.add(refused.value.message)
    assert len(said) == 1, "an error that tells where it failed helps to guess the key"
    for cut in (b"", ENVELOPE[:57], ENVELOPE[:320], ENVELOPE[:-1], ENVELOPE + b"\0"):
        with pytest.raises(Undecryptable):
            opened(cut)


def test_weak_and_foreign_keys_are_refused() -> None:
    """1,024 bits, 4,096 bits, exponent 3, an elliptic key, rubbish."""
    for bits, exponent in ((1024, 65537), (4096, 65537), (2048, 3)):
        key = plain_rsa.generate_private_key(exponent, bits)
        public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        with pytest.raises(BadRecord):
            sealed(recipient=_with_key(public))
        if exponent == 65537:
            with pytest.raises(BadRecord):
                rsa.public_of(key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))
    for rubbish in (b"", b"\x30" * 294, bytes(294)):
        with pytest.raises(BadRecord):
            sealed(recipient=_with_key(rubbish))
        with pytest.raises(BadRecord):
            rsa.public_of(rubbish)


def _with_key(public: bytes) -> User:
    entry = published("bob")
    version = msgspec.structs.replace(entry.current, key=public)
    return rsa_user("bob", msgspec.structs.replace(entry, history=(version,)))


def test_a_new_key_is_one_that_the_registry_takes() -> None:
    """294 bytes with the prefix and the exponent that the contract demands."""
    public = rsa.public_of(rsa.new_secret())
    assert len(public) == rsa.PUBLIC_BYTES
    assert public.startswith(
        bytes.fromhex("30820122300d06092a864886f70d01010105000382010f003082010a0282010100")
    )
    assert public.endswith(bytes.fromhex("0203010001"))


@settings(max_examples=60, deadline=None)
@given(st.one_of(st.binary(max_size=900), st.binary(max_size=900).map(lambda tail: ENVELOPE[:313] + tail)))
def test_no_bytes_raise_anything_but_documented_errors(data: bytes) -> None:
    """Neither an envelope nor its text."""
    with pytest.raises((Undecryptable, ForgedMessage)):
        opened(data)
    text = f"{rsa.BEGIN}\n({rsa.LABEL})\n{base64.b64encode(data).decode()}\n{rsa.END}"
    assert rsa.from_armour(text) == data
    with pytest.raises(BadRecord):
        rsa.from_armour(data.decode("latin-1"))


def test_a_text_without_its_warning_is_none() -> None:
    """The label cannot be left out, nor half of the text."""
    text = rsa.armour(ENVELOPE)
    for wrong in (
        text.replace(f"({rsa.LABEL})\n", ""),
        text.replace("no forward", "full forward"),
        text.removesuffix(rsa.END),
        text[: len(text) // 2],
        text.replace("\n", "\n*", 3),
        text.replace("\n", "\né", 3).replace("é(", "(", 1),
        text * 400,
    ):
        with pytest.raises(BadRecord):
            rsa.from_armour(wrong)
