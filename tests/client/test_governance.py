"""Asking, proposing and voting, with ether and without."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from chatchain.client import decisions
from chatchain.client.writing import Writer
from chatchain.errors import (
    AlreadyDone,
    AlreadyVoted,
    LoginRefused,
    NotAMember,
    NotFoundError,
    NoTick,
    UnknownProposal,
    UnknownUser,
    UsageError,
    VotingClosed,
)
from chatchain.model import (
    Address,
    Peer,
    RelayAddress,
    SetAnchorer,
    SetRelays,
    SetRewards,
    SetSuccessor,
    SetWitnesses,
)
from tests.world import World


@pytest.mark.parametrize("ether", [0, 10**18])
async def test_from_request_to_member(closed: World, ether: int) -> None:
    """A request, two votes, a seat: signed for the sponsor without ether, sent by the account with it."""
    closed.ether = ether
    closed.transactions.clear()
    async with closed.client("carol") as carol:
        made = await carol.register("carol")
        assert [(p.kind, p.subject, p.state) for p in await carol.proposals()] == [("admit", "carol", "open")]
    assert made.proposal == 1
    async with closed.client("ada") as ada:
        view = await ada.vote(1, True)
        assert (view.yes, view.no, view.electorate, view.state, view.voted) == (1, 0, 2, "open", True)
        assert (view.sponsored, bool(view.tx)) == (ether == 0, True)
    async with closed.client("bob") as bob:
        assert (await bob.vote(1, True)).state == "passed"
        assert [member.username for member in await bob.members()] == ["ada", "bob", "carol"]
    suffix = (
        ("register", "request", "vote", "vote")
        if ether
        else ("registerFor", "requestFor", "voteBySig", "voteBySig")
    )
    assert tuple(closed.transactions) == suffix


async def test_rejected_request(closed: World) -> None:
    """When it can pass no more it is rejected, and may be asked for again."""
    await closed.register("carol")
    async with closed.client("ada") as ada:
        assert (await ada.vote(1, False)).state == "rejected"
    async with closed.client("carol") as carol:
        assert (await carol.request()).id == 2


async def test_request_again_gives_the_open_one(closed: World) -> None:
    """Asking twice opens one proposal."""
    await closed.register("carol")
    before = len(closed.transactions)
    async with closed.client("carol") as carol:
        assert (await carol.request()).id == 1
    assert len(closed.transactions) == before


async def test_expelling(closed: World) -> None:
    """Members may be voted out; afterwards they neither send nor vote."""
    await closed.register("carol")
    closed.chain.seat("carol")
    async with closed.client("ada") as ada:
        opened = await ada.propose("expel", "carol")
        assert (opened.kind, opened.subject, opened.proposer, opened.yes) == ("expel", "carol", "ada", 0)
        await ada.vote(opened.id, True)
    async with closed.client("bob") as bob:
        assert (await bob.vote(opened.id, True)).state == "passed"
    async with closed.client("carol") as carol:
        assert not (await carol.whoami()).member
    with pytest.raises(NotAMember):
        await closed.say("carol", "ada", "hello")


async def test_who_waits_for_a_vote_is_told_so(closed: World) -> None:
    """Nobody is sent to ask again for what was asked for already."""
    async with closed.client("carol") as carol:
        made = await carol.register("carol")
        wait = f"Proposal {made.proposal} is open; wait for the vote."
        with pytest.raises(NotAMember) as told:
            await carol.propose("expel", "bob")
        assert told.value.hint == wait
        with pytest.raises(NotAMember) as told:
            await carol.require_reachable("ada")
        assert told.value.hint == wait


async def test_refused_before_anything_is_sent(closed: World) -> None:
    """What the fold can tell costs no transaction."""
    await closed.register("carol")
    async with closed.client("ada") as ada:
        await ada.vote(1, True)
        before = len(closed.transactions)
        with pytest.raises(AlreadyVoted):
            await ada.vote(1, False)
        with pytest.raises(UnknownProposal):
            await ada.vote(99, True)
        with pytest.raises(AlreadyDone):
            await ada.propose("admit", "bob")
        with pytest.raises(AlreadyDone):
            await ada.propose("admit", "carol")
        with pytest.raises(AlreadyDone):
            await ada.propose("expel", "carol")
        with pytest.raises(UsageError):
            await ada.propose("crown", "carol")
        with pytest.raises(UnknownUser):
            await ada.propose("expel", "nobody-here")
        with pytest.raises(AlreadyDone):
            await ada.request()
        with pytest.raises(NotFoundError):
            await ada.members("no-such-group")
    async with closed.client("carol") as carol:
        with pytest.raises(NotAMember):
            await carol.vote(1, True)
        with pytest.raises(NotAMember):
            await carol.propose("expel", "ada")
    assert len(closed.transactions) == before


async def test_joined_later_has_no_vote(closed: World) -> None:
    """The electorate is the members of the moment of opening."""
    await closed.register("carol", "dave")
    closed.chain.seat("dave")
    async with closed.client("dave") as dave:
        with pytest.raises(NotAMember, match="joined after"):
            await dave.vote(1, True)


async def test_expired_proposal_takes_no_vote(closed: World) -> None:
    """After the voting period it shows as expired."""
    await closed.register("carol")
    closed.now += 8 * 24 * 3600
    async with closed.client("ada") as ada:
        assert [p.state for p in await ada.proposals()] == ["expired"]
        assert await ada.proposals(open_only=True) == []
        with pytest.raises(VotingClosed, match="expired"):
            await ada.vote(1, True)


async def test_public_facts_need_no_password(closed: World) -> None:
    """Members, proposals and one's own account are public: no password, and no account for the first two."""
    await closed.register("carol")
    async with closed.client("carol", password=None) as carol:
        assert [member.username for member in await carol.members()] == ["ada", "bob"]
        assert [p.id for p in await carol.proposals()] == [1]
        assert not (await carol.whoami()).member
        assert [key.device for key in await carol.keys()] == [1]
        assert (await carol.status()).queued is None
    async with closed.client("nobody", password=None) as nobody:
        assert len(await nobody.members("network")) == 2


@pytest.mark.parametrize("ether", [0, 10**18])
async def test_a_group_of_its_own_is_governed_by_its_name(closed: World, ether: int) -> None:
    """Its members, proposals, votes and rules are its own, and the network's stay what they are."""
    closed.ether = ether
    await closed.register("carol")
    closed.chain.seat("carol")
    closed.chain.found("choir", "ada")
    async with closed.client("carol") as carol:
        asked = await carol.request("choir")
        assert (asked.group, asked.kind, asked.subject, asked.sponsored) == (
            "choir",
            "admit",
            "carol",
            ether == 0,
        )
        with pytest.raises(NotAMember):
            await carol.vote(asked.id, True)
    async with closed.client("ada") as ada:
        assert (await ada.vote(asked.id, True)).state == "passed"
        assert [member.username for member in await ada.members("#choir")] == ["ada", "carol"]
        assert [member.username for member in await ada.members()] == ["ada", "bob", "carol"]
        assert [p.id for p in await ada.proposals("choir")] == [asked.id]
        rules = await ada.propose_wish(decisions.rules(None, "66", None), "choir")
        assert (rules.group, rules.electorate) == ("choir", 2)
        with pytest.raises(UsageError, match="always open"):
            await ada.propose_wish(decisions.rules("vote", None, None), "choir")
        expel = await ada.propose("expel", "carol", "choir")
        await ada.vote(rules.id, True)
    async with closed.client("carol") as carol:
        assert (await carol.vote(rules.id, True)).state == "passed"
        assert (await carol.vote(expel.id, False)).state == "rejected"
    async with closed.client("bob", password=None) as bob:
        assert [p.state for p in await bob.proposals("choir")] == ["passed", "passed", "rejected"]
        with pytest.raises(NotFoundError, match="no governed group opera"):
            await bob.proposals("opera")
    assert (closed.chain.group(1).threshold, closed.chain.group(0).threshold) == (6600, 5000)


# --- devices --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ether", [0, 10**18])
async def test_rotated_keys_are_used_from_then_on(world: World, ether: int) -> None:
    """New keys on chain and at the relay; what was under way is still read, what comes is too."""
    world.ether = ether
    await world.say("bob", "ada", "under way")
    async with world.client("ada") as ada:
        view = await ada.rotate_keys()
        assert (view.device, view.version, view.state, view.here) == (1, 2, "active", True)
        assert [shown.text async for shown in ada.receive()] == ["under way"]
    await world.say("bob", "ada", "to the new key")
    assert [shown.text for shown in await world.hear("ada")] == ["to the new key"]
    assert [sent.state for sent in await world.say("ada", "bob", "by the new key")] == ["sent"]
    assert [shown.kind for shown in await world.hear("bob")] == ["text"]


async def test_rotation_broken_off_before_it_was_mined(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The keys in force go on working, and the next rotation takes up the stored ones."""

    def crash(*_: object) -> None:
        raise MemoryError("killed here")

    monkeypatch.setattr(world.chain, "execute", crash)
    ada = world.client("ada")
    with pytest.raises(MemoryError):
        await ada.rotate_keys()
    await world.kill(ada)
    monkeypatch.undo()
    assert [sent.state for sent in await world.say("ada", "bob", "hello")] == ["sent"]
    async with world.client("ada") as again:
        stored = (await again._station.desk()).unlocked.store.own_keys()[0]
        assert (await again.rotate_keys()).version == 2
        assert (await again._station.desk()).unlocked.store.own_keys()[0] == stored


async def test_rotation_broken_off_after_it_was_mined(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next run finds the new keys in force and uses them."""
    execute = world.chain.execute

    def crash(*given: object) -> None:
        execute(*given)  # type: ignore[arg-type]  # passed through
        raise MemoryError("killed here")

    monkeypatch.setattr(world.chain, "execute", crash)
    ada = world.client("ada")
    with pytest.raises(MemoryError):
        await ada.rotate_keys()
    await world.kill(ada)
    monkeypatch.undo()
    async with world.client("ada") as again:
        await again.login()
        assert [key.version for key in await again.keys()] == [2]
    await world.say("bob", "ada", "hello")
    assert [shown.text for shown in await world.hear("ada")] == ["hello"]


async def test_message_queued_before_a_rotation_is_signed_anew(world: World) -> None:
    """An envelope signed by the old key would be refused: it is sealed again under its id, and shown once."""
    world.relay.deaf = True
    async with world.client("ada") as ada:
        with pytest.raises(NoTick):
            await world.drain(ada.send("bob", "hello", wait_s=0.1), [])
    world.relay.deaf = False
    async with world.client("ada") as ada:
        await ada.rotate_keys()
    world.now += 3600
    async with world.client("ada") as ada:
        await ada.login()
    assert [(shown.kind, shown.text) for shown in await world.hear("bob")] == [("text", "hello")]


async def test_new_device_of_the_recipient_gets_what_was_queued(empty: World) -> None:
    """The relay calls the device list stale; the client looks at the chain and seals for both."""
    phrases: list[str] = []
    await empty.register("ada")
    async with empty.client("bob") as bob:
        await bob.register("bob", on_phrase=phrases.append)
    async with empty.client("ada") as ada:
        assert [sent.state async for sent in ada.send("bob", "one")] == ["sent"]
        async with empty.client("bob", home="laptop") as laptop:
            await laptop.register("bob", mnemonic=phrases[0])
        # The open client has not looked at the chain since.
        desk = await ada._station.desk()
        peer = empty.chain.user("bob")
        writer = Writer(desk.own.uid, desk.own.device, Peer(peer.uid), ada._station.now_ms())
        written = writer.text("two")
        await desk.outbox.add(peer, [written], ada._station.session)
        assert (await desk.outbox.outcome(written.outgoing.id)).state == "sent"
    async with empty.client("bob", home="laptop") as laptop:
        assert [shown.text async for shown in laptop.receive()] == ["two"]
    assert [shown.text for shown in await empty.hear("bob")] == ["one", "two"]


async def test_device_without_keys_is_told_that_a_message_passed_it_by(world: World) -> None:
    """A device on the chain that has published nothing stops nobody; it learns what it missed."""
    world.chain.execute(
        world.edges.calls.add_device(world.address_of("x"), b"r"), world.chain.user("bob").account
    )
    assert [sent.state for sent in await world.say("ada", "bob", "hello")] == ["sent"]
    assert [shown.text for shown in await world.hear("bob")] == ["hello"]
    (left,) = [delivery for (uid, device), delivery in world.relay.rows.values() if device == 2]
    assert left.header == b""


async def test_revoking_another_device(empty: World) -> None:
    """The first device ends the second, which can read its past and do nothing else."""
    phrases: list[str] = []
    await empty.register("bob")
    async with empty.client("ada") as ada:
        await ada.register("ada", on_phrase=phrases.append)
    async with empty.client("ada", home="lost") as lost:
        await lost.register("ada", mnemonic=phrases[0])
        await lost.login()
    async with empty.client("ada") as ada:
        view = await ada.revoke_device(2)
        assert (view.state, view.here) == ("revoked", False)
        assert [(key.device, key.state) for key in await ada.keys()] == [(1, "active"), (2, "revoked")]
        with pytest.raises(AlreadyDone):
            await ada.revoke_device(2)
        with pytest.raises(NotFoundError):
            await ada.revoke_device(9)
    async with empty.client("ada", home="lost") as lost:
        with pytest.raises(LoginRefused, match="revoked"):
            await lost.login()
        assert await lost.history("bob") == []


# --- what members decide beside who belongs ---------------------------------------------------------------

ADDRESS = "0x" + "ad" * 20
KEY = "0b" * 32


@pytest.mark.parametrize("ether", [0, 10**18])
async def test_rules_are_proposed_and_voted(closed: World, ether: int) -> None:
    """What is not named stays; what was voted holds; everybody reads it in a sentence."""
    closed.ether = ether
    async with closed.client("ada") as ada:
        before = await ada.proposals()
        view = await ada.propose_wish(decisions.rules(None, "66", "2d"))
        assert (view.kind, view.subject, view.subject_uid, view.sponsored) == ("set_rules", "", 0, ether == 0)
        assert view.action == "members only send; more than 66 % pass a proposal, within 2 days"
        with pytest.raises(AlreadyDone):
            await ada.propose_wish(decisions.rules("vote", "66.00 %", "48h"))  # the same in other words
        assert len(await ada.proposals()) == len(before) + 1
        await ada.vote(view.id, True)
    async with closed.client("bob") as bob:
        assert (await bob.vote(view.id, True)).state == "passed"
        another = await bob.propose_wish(decisions.rules(None, None, "90m"))
        assert another.action == "members only send; more than 66 % pass a proposal, within 90 minutes"


async def test_a_pause_is_proposed_with_its_reason(closed: World) -> None:
    """Two proposals to pause may differ in their reasons only."""
    async with closed.client("ada") as ada:
        view = await ada.propose_pause("a rogue relay")
        assert view.action == "pause the network for 7 days (a rogue relay)"
        assert (await ada.propose_pause()).id == view.id + 1
        assert (await ada.propose_pause(end=True)).kind == "unpause"
        with pytest.raises(UsageError):
            await ada.propose_pause("é" * 513)


async def test_offices_are_proposed_from_what_is_typed(closed: World) -> None:
    """Each kind arrives as its typed values; nothing is lost between the command and the chain."""
    wishes = [
        (decisions.anchorer(ADDRESS, KEY), SetAnchorer(Address(b"\xad" * 20), b"\x0b" * 32)),
        (
            decisions.witnesses(1, [ADDRESS, "0x" + "0c" * 20]),
            SetWitnesses(1, (Address(b"\x0c" * 20), Address(b"\xad" * 20))),
        ),
        (
            decisions.relays([f"[::1]:5555={KEY},0x{KEY}", f"b.example:1={':'.join(['0B'] * 32)}"]),
            SetRelays(
                (
                    RelayAddress("[::1]:5555", b"\x0b" * 32, b"\x0b" * 32),
                    RelayAddress("b.example:1", b"\x0b" * 32, bytes(32)),
                )
            ),
        ),
        (decisions.rewards(ADDRESS), SetRewards(Address(b"\xad" * 20))),
        (decisions.successor(ADDRESS), SetSuccessor(Address(b"\xad" * 20))),
        (decisions.successor("none"), SetSuccessor(None)),
    ]
    async with closed.client("ada") as ada:
        for wish, _ in wishes:
            await ada.propose_wish(wish)
        assert len({view.action for view in await ada.proposals()}) == len(wishes)
    found = closed.chain.fold.proposals(0, 0)
    assert [proposal.decision for proposal in found] == [decision for _, decision in wishes]


async def test_a_stranger_sets_nothing(closed: World) -> None:
    """Refused before anything is sent."""
    await closed.register("carol")
    before = len(closed.transactions)
    async with closed.client("carol") as carol:
        with pytest.raises(NotAMember):
            await carol.propose_wish(decisions.rewards(ADDRESS))
        with pytest.raises(NotAMember):
            await carol.propose_pause()
    assert len(closed.transactions) == before


async def test_the_first_log_needs_a_name(closed: World) -> None:
    """The log that grows is meant where there is one."""
    async with closed.client("ada") as ada:
        with pytest.raises(UsageError, match="no log"):
            await ada.propose_wish(decisions.anchorer(ADDRESS, None))


@pytest.mark.parametrize(
    "mistake",
    [
        lambda: decisions.rules(None, None, None),
        lambda: decisions.rules("closed", None, None),
        lambda: decisions.rules(None, None, "59m"),
        lambda: decisions.rules(None, None, "9" * 5000 + "d"),
        lambda: decisions.rules(None, "0", None),
        lambda: decisions.rules(None, "0.66", None),
        lambda: decisions.rules(None, "100%", None),
        lambda: decisions.rules(None, "two thirds", None),
        lambda: decisions.rules(None, "nan", None),
        lambda: decisions.rules(None, "66%%", None),
        lambda: decisions.rules(None, "100", None),
        lambda: decisions.rules(None, "inf", None),
        lambda: decisions.rules(None, "-1", None),
        lambda: decisions.rules(None, None, "0d"),
        lambda: decisions.rules(None, None, "366d"),
        lambda: decisions.rules(None, None, "7"),
        lambda: decisions.rules(None, None, ""),
        lambda: decisions.anchorer("ada", None),
        lambda: decisions.anchorer("0x" + "00" * 20, None),
        lambda: decisions.anchorer(ADDRESS, "0b"),
        lambda: decisions.anchorer(ADDRESS, "00" * 32),
        lambda: decisions.witnesses(0, [ADDRESS]),
        lambda: decisions.witnesses(2, [ADDRESS]),
        lambda: decisions.witnesses(1, []),
        lambda: decisions.witnesses(1, [ADDRESS, ADDRESS]),
        lambda: decisions.witnesses(1, [f"0x{number:040x}" for number in range(1, 18)]),
        lambda: decisions.relays(["b.example:1"]),
        lambda: decisions.relays([f"b.example={KEY}"]),
        lambda: decisions.relays([f"b.example:0={KEY}"]),
        lambda: decisions.relays([f"{'b' * 255}:1={KEY}"]),
        lambda: decisions.relays([f"b.example:1={KEY}"] * 17),
        lambda: decisions.successor("nobody"),
    ],
)
def test_what_no_contract_would_take_is_refused_before_it_is_proposed(mistake: Callable[[], object]) -> None:
    """A vote takes days: what is mistyped is told at once."""
    with pytest.raises(UsageError):
        mistake()
