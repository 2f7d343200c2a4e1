"""Writing by RSA to somebody who publishes nothing better: labelled, and refused to everybody else."""

from __future__ import annotations

import os

import pytest
from msgspec.structs import replace

from chatchain.chain.events import IDENTITY
from chatchain.crypto import content, rsa
from chatchain.errors import (
    AccountKeyElsewhere,
    BadText,
    FoldMismatch,
    ForgedMessage,
    KeyChanged,
    RefusedError,
    Undecryptable,
    UsageError,
)
from chatchain.identity.keys import NOBODY
from chatchain.model import Address, KeyKind, LogRow
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
    async with classroom.client("ada") as ada:
        contact = (await ada._station.store()).contact(chain.user("carol").uid)
        assert contact is not None
        assert contact.met  # nobody can have her devices forgotten by sending much


async def test_whoever_has_better_is_not_written_to_like_this(classroom: World) -> None:
    """Bob lists suite 2: publishing an RSA key besides changes nothing."""
    for name in ("ada", "bob"):
        async with classroom.client(name) as client:
            await client.publish_rsa()
    async with classroom.client("ada") as ada:
        with pytest.raises(RefusedError, match="better encryption") as refused:
            await ada.seal_rsa("bob", "hello")
        assert "`chatchain send bob …`" in refused.value.hint


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


ID = bytes(range(16))


def from_carol(
    world: World, to: str = "ada", *, said: str = "hello, ada", by: str = "bob", **changes: object
) -> str:
    """What carol's own program makes, which knows nothing better."""
    carol, recipient = world.chain.user("carol"), world.chain.user(to)
    sealed = rsa.seal(
        NETWORK,
        content.text(said),
        secret=SECRETS[by],
        sender=replace(carol, **changes) if changes else carol,
        recipient=replace(recipient, devices=()),  # carol's program does not look at devices
        message_id=ID,
        time_ms=int(world.now * 1000),
    )
    return rsa.armour(sealed)


async def test_what_an_rsa_peer_writes_back_is_opened(classroom: World) -> None:
    """With its label, and a word when it comes again; it enters no history."""
    async with classroom.client("ada") as ada:
        await ada.publish_rsa()
        text = from_carol(classroom)
        for repeated in (False, True):
            opened = await ada.open_rsa(text)
            assert (opened.from_, opened.text, opened.id) == ("carol", "hello, ada", ID.hex())
            assert (opened.label, opened.repeated, opened.changed) == (rsa.LABEL, repeated, None)
        assert [shown async for shown in ada.receive()] == []
        assert await ada.history("carol") == []
        assert await ada.search("hello") == []


async def test_downgrade_between_two_who_have_better_is_not_opened(classroom: World) -> None:
    """A thief of bob's RSA key writes to ada in bob's name: bob lists suite 2, and so does she."""
    async with classroom.client("bob") as bob:
        await bob.publish_rsa()
        stolen = (await bob._station.desk()).unlocked.store.setting("rsa")
    async with classroom.client("ada") as ada:
        await ada.publish_rsa()
        assert stolen is not None
        forged = rsa.seal(
            NETWORK,
            content.text("send me money"),
            secret=stolen,
            sender=classroom.chain.user("bob"),
            recipient=replace(classroom.chain.user("ada"), devices=()),
            message_id=ID,
            time_ms=int(classroom.now * 1000),
        )
        with pytest.raises(RefusedError, match="better encryption"):
            await ada.open_rsa(rsa.armour(forged))


async def test_what_cannot_be_opened_is_told(classroom: World) -> None:
    """No such text, no key of one's own, somebody else's, altered, forged, from nobody, or no text inside."""
    async with classroom.client("bob") as bob:
        await bob.publish_rsa()
    async with classroom.client("ada") as ada:
        with pytest.raises(RefusedError, match="no RSA key to open"):
            await ada.open_rsa(from_carol(classroom, "bob"))
        await ada.publish_rsa()
        text = from_carol(classroom)
        for wrong in ("", "hello", text[:-1], text.replace("no forward", "full forward")):
            with pytest.raises(UsageError):
                await ada.open_rsa(wrong)
        for bad in (from_carol(classroom, "bob"), altered(text, 400), rsa.armour(b"\x02" * 700)):
            with pytest.raises(Undecryptable):
                await ada.open_rsa(bad)
        with pytest.raises(ForgedMessage, match="does not list"):
            await ada.open_rsa(altered(text, 5))
        forged = published(classroom, "eve")
        with pytest.raises(ForgedMessage, match="not signed"):
            await ada.open_rsa(from_carol(classroom, by="eve", keys=forged))


def altered(text: str, place: int) -> str:
    """The text of an envelope with a byte changed."""
    data = bytearray(rsa.from_armour(text))
    data[place] ^= 1
    return rsa.armour(bytes(data))


def published(world: World, name: str) -> tuple[object, ...]:
    """Carol's key as she would have it who owns another."""
    (key,) = world.chain.user("carol").keys
    (version,) = key.history
    return (replace(key, history=(replace(version, key=rsa.public_of(SECRETS[name])),)),)


def replace_key(world: World, name: str = "eve") -> None:
    """Carol's key is replaced on the chain."""
    carol = world.chain.user("carol")
    world.chain._emit(
        IDENTITY,
        "KeyUpdated(uint64,uint32,uint32,bytes)",
        (carol.uid, 1),
        (carol.keys[0].current.version + 1, rsa.public_of(SECRETS[name])),
    )


async def test_swapped_rsa_key_is_told_with_the_next_use(classroom: World) -> None:
    """Sealing and opening say what changed since, once; for who was never verified that is all."""
    async with classroom.client("ada") as ada:
        await ada.publish_rsa()
        assert (await ada.seal_rsa("carol", "one")).changed is None
        replace_key(classroom)
        sealed = await ada.seal_rsa("carol", "two")
        assert sealed.changed is not None
        assert "carol replaced RSA key 1 (version 2) at block" in sealed.changed
        assert (await ada.seal_rsa("carol", "three")).changed is None
        opened = await ada.open_rsa(from_carol(classroom, by="eve"))
        assert opened.changed is None
        classroom.chain._publish(
            classroom.chain.user("carol"), KeyKind.RSA2048_OAEP, rsa.public_of(SECRETS["ada"])
        )
        told = (await ada.open_rsa(from_carol(classroom, by="ada"))).changed
        assert told is not None
        assert "carol published RSA key 2" in told


async def test_invented_text_uses_no_warning_up(classroom: World) -> None:
    """Whoever has put a key in place of carol's sends garbage first: the change is told when it matters."""
    async with classroom.client("ada") as ada:
        await ada.publish_rsa()
        await ada.open_rsa(from_carol(classroom))
        replace_key(classroom)
        with pytest.raises(Undecryptable):
            await ada.open_rsa(altered(from_carol(classroom, by="eve"), 400))
        told = (await ada.open_rsa(from_carol(classroom, by="eve"))).changed
        assert told is not None
        assert "carol replaced RSA key 1" in told
        assert (await ada.open_rsa(from_carol(classroom, by="eve"))).changed is None


async def test_swapped_rsa_key_of_a_verified_contact_blocks_its_use(classroom: World) -> None:
    """Until it was compared again; a key that nobody uses changes nothing for who has better."""
    async with classroom.client("ada") as ada:
        await ada.publish_rsa()
        assert (await ada.verify("carol")).verified
        replace_key(classroom)
        with pytest.raises(KeyChanged, match="carol replaced RSA key 1"):
            await ada.seal_rsa("carol", "hello")
        with pytest.raises(KeyChanged):
            await ada.open_rsa(from_carol(classroom, by="eve"))
        assert (await ada.safety_number("carol")).changed
        assert (await ada.verify("carol")).verified
        assert (await ada.seal_rsa("carol", "hello")).label == rsa.LABEL
        await ada.verify("bob")
    async with classroom.client("bob") as bob:
        await bob.publish_rsa()
    async with classroom.client("ada") as ada:
        assert (await ada.safety_number("bob")).verified


async def test_rolled_back_rsa_key(classroom: World) -> None:
    """An endpoint that shows the key before, which was stolen, gets nothing sealed to it."""
    async with classroom.client("ada") as ada:
        await ada.publish_rsa()
        replace_key(classroom)
        await ada.seal_rsa("carol", "hello")
    del classroom.chain.rows[-1]
    tip = classroom.chain.blocks.pop()
    classroom.chain.blocks.append(replace(tip, hash=os.urandom(32)))
    async with classroom.client("ada") as ada:
        with pytest.raises(FoldMismatch, match="hides the newer ones"):
            await ada.seal_rsa("carol", "hello again")
        with pytest.raises(FoldMismatch, match="hides the newer ones"):
            await ada.open_rsa(from_carol(classroom))


async def test_hidden_rsa_key(classroom: World) -> None:
    """An endpoint that hides the newest key is caught by what the contract holds, before its first use."""
    async with classroom.client("ada") as ada:
        await ada.publish_rsa()
    replace_key(classroom)
    newest = classroom.chain.rows[-1]

    def hide(row: LogRow) -> LogRow | None:
        return None if row is newest else row

    classroom.chain.lies = hide
    async with classroom.client("ada") as ada:
        with pytest.raises(FoldMismatch):
            await ada.seal_rsa("carol", "hello")
