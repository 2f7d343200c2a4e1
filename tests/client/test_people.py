"""Contacts, cards, safety numbers; homes, links and what `doctor` sees."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from chatchain.client.core import Client
from chatchain.client.home import Home, OwnAccount, write_private
from chatchain.client.links import join_link, parse_join_link
from chatchain.client.people import changes, pin_of
from chatchain.client.ports import NetworkSettings
from chatchain.client.session import failure
from chatchain.errors import (
    AlreadyDone,
    BadConfig,
    BadRecord,
    CertificateMismatch,
    ChainUnreachable,
    LimitReached,
    NotAMember,
    RelayFailure,
    StoreUnavailable,
    UnknownUser,
    UsageError,
    VerificationError,
    WrongChain,
)
from chatchain.identity.keys import to_checksum
from chatchain.model import Address, Uid
from tests.world import NETWORK, PASSWORD, World

LINK = f"chatchain://join?rpc=http://127.0.0.1:8545&chain=31337&directory={to_checksum(NETWORK.directory)}"


# --- contacts -------------------------------------------------------------------------------------------


async def test_card_makes_an_unverified_contact(world: World) -> None:
    """Bob's card, handed to ada, lists him; comparing the number verifies him."""
    async with world.client("bob") as bob:
        card = await bob.own_card()
    async with world.client("ada") as ada:
        added = await ada.add_contact(card.card)
        assert (added.username, added.uid, added.verified) == ("bob", card.uid, False)
        assert [one.username for one in await ada.contacts()] == ["bob"]
        assert (await ada.verify("bob")).verified
        assert (await ada.safety_number("bob")).verified


@pytest.mark.parametrize(
    "how", ["nothing", "writes", "reacts", "writes offline", "verifies", "adds the card", "sets"]
)
async def test_a_stranger_is_who_was_only_heard(world: World, how: str) -> None:
    """Whoever was written to, verified or added was met, for good: also when the own words have disappeared.

    Only then they learn one's display name, and may never be forgotten for what others send.
    """
    async with world.client("bob") as bob:
        card = await bob.own_card()
    (said,) = await world.say("bob", "ada", "hello?")
    await world.hear("ada")
    async with world.client("ada") as ada:
        match how:
            case "writes" | "writes offline":
                world.chain.up = how == "writes"
                with suppress(ChainUnreachable):
                    await world.drain(ada.send("bob", "hi"), [])
                world.chain.up = True
            case "reacts":
                await world.drain(ada.react(said.id, "👍"), [])
            case "verifies":
                await ada.verify("bob")
            case "adds the card":
                await ada.add_contact(card.card)
            case "sets":
                await ada.chat_settings("bob", expires=1)
    world.now += 3600
    async with world.client("ada") as ada:
        store = (await ada._station.desk()).unlocked.store
        contact = store.contact(Uid(card.uid))
        assert contact is not None
        assert (contact.listed, contact.met) == (True, how != "nothing")
        assert (await ada.profile("Ada L.")).told == (0 if how == "nothing" else 1)


async def test_both_sides_see_the_same_number(world: World) -> None:
    """Sixty digits, equal at both ends, different for another pair."""
    await world.register("carol")
    async with world.client("ada") as ada, world.client("bob") as bob:
        mine, theirs = await ada.safety_number("bob"), await bob.safety_number("ada")
        assert mine.fingerprint == theirs.fingerprint
        assert len(mine.fingerprint.replace(" ", "")) == 60
        assert (await ada.safety_number("carol")).fingerprint != mine.fingerprint


async def test_a_scanned_code_verifies_whom_it_shows_and_nobody_else(world: World) -> None:
    """Bob's screen as ada scans it; her own, another pair's and rubbish note nothing."""
    await world.register("carol")
    async with world.client("ada") as ada, world.client("bob") as bob:
        shown = (await bob.safety_number("ada")).code
        own, other = (await ada.safety_number("bob")).code, (await bob.safety_number("carol")).code
        with pytest.raises(UsageError, match="your own program shows"):
            await ada.verify("bob", own)
        with pytest.raises(UsageError, match="not the code of a safety number"):
            await ada.verify("bob", "1234")
        for wrong, peer in ((other, "bob"), (shown, "carol")):
            with pytest.raises(VerificationError, match="not the code of your two accounts"):
                await ada.verify(peer, wrong)
        assert not any(view.verified for view in await ada.contacts())
        assert (await ada.verify("bob", shown)).verified
        assert (await bob.verify("ada", own)).verified


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (lambda card: card[:-3] + "AAA", BadRecord),
        (lambda card: card.replace("name=bob", "name=ada"), BadRecord),
        (lambda _: "hello", UsageError),
    ],
)
async def test_altered_card_is_refused(world: World, spoil: object, error: type[Exception]) -> None:
    """A card that is not what the chain says, or not signed, adds nobody; nor does what is no card."""
    assert callable(spoil)
    async with world.client("bob") as bob:
        card = (await bob.own_card()).card
    async with world.client("ada") as ada:
        with pytest.raises(error):
            await ada.add_contact(spoil(card))
        assert await ada.contacts() == []


async def test_own_card_and_self(world: World) -> None:
    """One is not one's own contact."""
    async with world.client("ada") as ada:
        with pytest.raises(UsageError):
            await ada.add_contact((await ada.own_card()).card)
        with pytest.raises(UsageError):
            await ada.verify("ada")
        with pytest.raises(UnknownUser) as unknown:
            await ada.safety_number("nobody")
        assert "`chatchain members`" in unknown.value.hint


async def test_who_writes_becomes_a_contact(world: World) -> None:
    """Both sides list each other after a message, unverified."""
    await world.say("ada", "bob", "hello")
    await world.hear("bob")
    for name, other in (("ada", "bob"), ("bob", "ada")):
        async with world.client(name) as client:
            assert [(one.username, one.verified) for one in await client.contacts()] == [(other, False)]


async def test_changes_name_each_kind(world: World) -> None:
    """The sentences say who did what at which block."""
    bob = world.chain.user("bob")
    pin = pin_of(bob)
    assert changes(pin, bob) == []
    assert changes(pin, msgspec.structs.replace(bob, account=Address(b"\1" * 20))) == [
        f"the account is now {to_checksum(Address(bytes([1]) * 20))} (block {bob.block})"
    ]
    assert "recovery" in changes(pin, msgspec.structs.replace(bob, recovery=Address(b"\1" * 20)))[0]
    assert changes(pin, msgspec.structs.replace(bob, devices=())) == ["device 1 is no longer listed"]
    world.chain.execute(world.edges.calls.add_device(Address(b"\2" * 20), b"r"), bob.account)
    assert changes(pin, world.chain.user("bob")) == [
        f"bob added device 2 at block {len(world.chain.blocks) - 1}"
    ]
    world.chain.execute(world.edges.calls.revoke_device(1), bob.account)
    assert (
        changes(pin, world.chain.user("bob"))[0]
        == f"bob revoked device 1 at block {len(world.chain.blocks) - 1}"
    )


# --- joining --------------------------------------------------------------------------------------------


async def test_joined_home_needs_no_flags(world: World) -> None:
    """`join` stores what registering and logging in need afterwards."""
    home = world.home("carol")
    async with Client(home, world.edges, password=PASSWORD) as carol:
        joined = await carol.join(LINK)
    assert (joined.rpc, joined.directory) == ("http://127.0.0.1:8545", to_checksum(NETWORK.directory))
    assert (joined.chain_id, joined.policy, joined.relay) == (31337, "open", "relay.test:5555")
    async with Client(home, world.edges, password=PASSWORD) as carol:
        await carol.register("carol")
    async with Client(home, world.edges, password=PASSWORD) as carol:
        assert (await carol.login()).username == "carol"
        other = LINK.replace(to_checksum(NETWORK.directory), "0x" + "77" * 20)
        with pytest.raises(AlreadyDone):
            await carol.join(other)


async def test_link_to_another_chain_is_not_stored(world: World) -> None:
    """The chain id in the link is compared with the endpoint's."""
    async with Client(world.home("carol"), world.edges) as carol:
        with pytest.raises(WrongChain):
            await carol.join(LINK.replace("31337", "1"))
    assert Home(world.home("carol")).network() is None
    world.chain.up = False
    async with Client(world.home("carol"), world.edges) as carol:
        with pytest.raises(ChainUnreachable):
            await carol.join(LINK)


def test_links_round_trip() -> None:
    """What is written is read, several endpoints included."""
    settings = NetworkSettings(
        ("http://a.test:8545", "https://b.test/rpc?key=x&y=z"), NETWORK.directory, 31337
    )
    assert parse_join_link(join_link(settings)) == settings
    assert parse_join_link(LINK).chain_id == 31337


@pytest.mark.parametrize(
    "link",
    [
        "",
        "hello",
        "https://join?rpc=http://a&chain=1&directory=0x" + "11" * 20,
        "chatchain://contact?rpc=http://a&chain=1&directory=0x" + "11" * 20,
        "chatchain://join?",
        "chatchain://join?rpc=http://a",
        "chatchain://join?rpc=ftp://a&chain=1&directory=0x" + "11" * 20,
        "chatchain://join?rpc=http://a&chain=one&directory=0x" + "11" * 20,
        "chatchain://join?rpc=http://a&chain=1&directory=0x11",
        "chatchain://join?" + "rpc=http://a&" * 40 + "directory=0x" + "11" * 20,
        "chatchain://join?rpc=http://[&chain=1&directory=0x" + "11" * 20,
        "chatchain://join?rpc=" + "a" * 5000,
        "chatchain://[join?rpc",
    ],
)
def test_malformed_links(link: str) -> None:
    """Each is a usage error with a sentence."""
    with pytest.raises(UsageError):
        parse_join_link(link)


# --- homes ----------------------------------------------------------------------------------------------


def test_files_are_replaced_whole_and_private(tmp_path: Path) -> None:
    """A file is 0600 from the start, nothing is left beside it; without `replace` nothing is overwritten."""
    target = tmp_path / "file"
    write_private(target, b"one")
    write_private(target, b"two")
    assert target.read_bytes() == b"two"
    assert target.stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        write_private(target, b"three", replace=False)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    with pytest.raises(StoreUnavailable):
        write_private(tmp_path / "missing" / "file", b"x")


def test_home_of_others_is_tightened(tmp_path: Path) -> None:
    """A folder that others could read is closed when it is used."""
    tmp_path.chmod(0o755)
    home = Home(tmp_path)
    home.put_account(OwnAccount("ada", "0x" + "11" * 20, 1, "0x" + "22" * 20))
    assert tmp_path.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("name", ["network.json", "account.json"])
@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b'{"rpc": 1}', b"\xff\xfe", b'{"rpc":["x"],"directory":"0x11"}']
)
def test_damaged_files_are_named(tmp_path: Path, name: str, data: bytes) -> None:
    """A damaged file is a sentence that names it."""
    home = Home(tmp_path)
    home.write(name, data)
    with pytest.raises(BadConfig, match=name):
        home.network() if name == "network.json" else home.account()


# --- the relay's words ----------------------------------------------------------------------------------


def test_codes_become_errors() -> None:
    """A code that is known is its error, another is RelayFailure; what the relay says is kept printable and
    short.
    """
    assert isinstance(failure("not_a_member", "no"), NotAMember)
    limited = failure("limit_reached", "slow down", 700)
    assert isinstance(limited, LimitReached)
    assert limited.retry_after_ms == 700
    odd = failure("no-such-code", "\x1b[31mred\n" + "x" * 2000)
    assert isinstance(odd, RelayFailure)
    assert "\x1b" not in odd.message
    assert len(odd.message) <= 500


# --- doctor ---------------------------------------------------------------------------------------------


async def test_doctor_on_a_healthy_home(world: World) -> None:
    """Everything is looked at and fine."""
    async with world.client("ada") as ada:
        findings = await ada.doctor()
    assert [finding.check for finding in findings] == [
        "home",
        "cryptography",
        "chain",
        "contracts",
        "relay",
        "account",
        "recovery",
    ]
    assert all(finding.ok for finding in findings)
    assert "trusted" in findings[2].hint


async def test_doctor_names_what_is_wrong(world: World) -> None:
    """Loose rights, an absent chain, a wrong certificate, a wrong clock: each found, none an exception."""
    world.home("ada").chmod(0o755)
    world.chain.up = False
    async with world.client("ada", password=None) as ada:
        found = {finding.check: finding.ok for finding in await ada.doctor()}
    assert found == {"home": False, "cryptography": True, "chain": False, "contracts": False}
    world.chain.up = True

    async def mismatch(_: object) -> None:
        raise CertificateMismatch("Two fingerprints.")

    dial, world.relay.dial = world.relay.dial, mismatch  # type: ignore[method-assign,assignment]  # in the middle
    async with world.client("ada", password=None) as ada:
        assert not {finding.check: finding.ok for finding in await ada.doctor()}["relay"]
    world.relay.dial = dial  # type: ignore[method-assign]  # back again
    async with Client(world.home("nobody"), world.edges) as nobody:
        assert [finding.check for finding in await nobody.doctor()][-1] == "network"
