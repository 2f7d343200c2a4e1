"""Writing by RSA to somebody who publishes nothing better: labelled, and refused to everybody else."""

from __future__ import annotations

import pytest

from chatchain.chain.events import IDENTITY
from chatchain.crypto import content, rsa
from chatchain.errors import AccountKeyElsewhere, BadText, RefusedError
from chatchain.identity.keys import NOBODY
from chatchain.model import Address, KeyKind
from tests.crypto.rsa_people import SECRETS
from tests.world import NETWORK, World


@pytest.fixture
async def classroom(world: World) -> World:
    """Ada and bob, and carol, whose only usable key is an RSA key."""
    account, signer = world.address_of("carol"), world.address_of("carol's signer")
    record = b"whatever a classroom puts there"
    world.chain._new_user(Address(account), "carol", bytes(32), b"", NOBODY, signer, record)
    world.chain._publish(world.chain.user("carol"), KeyKind.RSA2048_OAEP, rsa.public_of(SECRETS["bob"]))
    return world


async def test_a_text_for_who_has_an_rsa_key_alone(classroom: World) -> None:
    """It says what it is, opens with carol's key, and is signed by ada's."""
    async with classroom.client("ada") as ada:
        key = await ada.publish_rsa()
        assert (key.key, key.version, key.state, key.label) == (1, 1, "active", rsa.LABEL)
        sealed = await ada.seal_rsa("carol", "hello, classroom")
    assert (sealed.to, sealed.label) == ("carol", rsa.LABEL)
    assert sealed.envelope.startswith(f"{rsa.BEGIN}\n({rsa.LABEL})\n")
    chain = classroom.chain
    opened = rsa.open_(
        NETWORK,
        rsa.from_armour(sealed.envelope),
        secret=SECRETS["bob"],
        recipient=chain.user("carol"),
        sender=chain.user("ada"),
    )
    assert opened.content == content.text("hello, classroom")
    assert (opened.sender, opened.id.hex(), opened.label) == (chain.user("ada").uid, sealed.id, rsa.LABEL)


async def test_whoever_has_better_is_not_written_to_like_this(classroom: World) -> None:
    """Bob lists suite 2: publishing an RSA key besides changes nothing."""
    for name in ("ada", "bob"):
        async with classroom.client(name) as client:
            await client.publish_rsa()
    async with classroom.client("ada") as ada:
        with pytest.raises(RefusedError, match="better encryption"):
            await ada.seal_rsa("bob", "hello")


async def test_what_cannot_be_sealed_is_refused(classroom: World) -> None:
    """Without a key of one's own, to who has none, and a text that is none."""
    async with classroom.client("ada") as ada:
        with pytest.raises(RefusedError, match="no RSA key to sign with"):
            await ada.seal_rsa("carol", "hello")
        await ada.publish_rsa()
        with pytest.raises(BadText):
            await ada.seal_rsa("carol", "")
        classroom.chain._emit(
            IDENTITY, "KeyRevoked(uint64,uint32)", (classroom.chain.user("carol").uid, 1), ()
        )
        with pytest.raises(RefusedError, match="publishes no RSA key"):
            await ada.seal_rsa("carol", "hello")


async def test_publishing_twice_shows_the_same_key(classroom: World) -> None:
    """And one that the chain did not take is published again, not drawn anew."""
    async with classroom.client("ada") as ada:
        first = await ada.publish_rsa()
        again = await ada.publish_rsa()
    assert first.tx is not None
    assert again.tx is None
    assert first.fingerprint == again.fingerprint
    assert classroom.transactions.count("addKeyFor") == 1


async def test_a_linked_device_publishes_none(classroom: World) -> None:
    """That is for who holds the account's key."""
    async with classroom.client("ada", home="second") as new:
        asked = await new.link("ada")
    async with classroom.client("ada") as old:
        accepted = await old.accept_link(asked.request)
    async with classroom.client("ada", home="second") as new:
        await new.finish_link(accepted.answer)
        with pytest.raises(AccountKeyElsewhere):
            await new.publish_rsa()
