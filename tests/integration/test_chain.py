"""The chain room against a real Anvil: the fold equals what the contracts hold, and what is not ours is
refused.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from typing import Any

import pytest

from chatchain.chain import calls
from chatchain.chain.events import SIGNATURES
from chatchain.chain.rpc import Endpoints, Request, Rpc, RpcFault, hexed, unhex
from chatchain.chain.sync import MemoryLogStore
from chatchain.chain.view import ChainView
from chatchain.errors import AlreadyDone, ChainUnreachable, FoldMismatch, NoContract, UnknownUser, WrongChain
from chatchain.identity.keys import NOBODY, address_of, keccak256, new_secret, parse_address, sign_digest
from chatchain.identity.typed_data import transfer_digest
from chatchain.model import (
    Address,
    DeviceState,
    Kind,
    Policy,
    ProposalId,
    ProposalState,
    RelayAddress,
    Uid,
)
from tests.chain.proxy import Bend, proxy
from tests.chain.world import Person, World, fresh, state
from tests.fixtures.chains import DevChain
from tests.fixtures.processes import free_port


def ask(world: World, view: calls.View, *values: object) -> tuple[Any, ...]:
    """What a contract itself answers."""
    at = calls.address_in(world.network, view.contract)
    request = view.request(at, *values)
    return view.answer(unhex(world.rpc.call(request.method, *request.params)))


def scripted(world: World) -> None:
    """A history with an event of every kind."""
    ada, bob, eve = (world.register(name) for name in ("ada", "bob", "eve"))
    uids = [world.uid(person) for person in (ada, bob, eve)]
    world.seat(ada, bob)
    world.add_device(ada)
    world.update_device(ada, 2, 2)
    world.update_device(ada, 2, 3)
    world.send(ada, world.calls.revoke_device(2))
    world.add_device(ada)
    world.send(bob, world.calls.set_verifier(secrets.token_bytes(32), secrets.token_bytes(23)))
    world.send(eve, world.calls.request(0))
    world.send(ada, world.calls.vote(ProposalId(1), True))
    world.send(bob, world.calls.vote(ProposalId(1), True))
    world.send(ada, world.calls.propose(0, Kind.EXPEL, uids[2], b""))
    world.send(eve, world.calls.vote(ProposalId(2), False))
    world.send(ada, world.calls.vote(ProposalId(2), True))
    world.send(bob, world.calls.vote(ProposalId(2), True))
    world.send(eve, world.calls.request(0))
    world.deployer.set_relays(world.network, [RelayAddress("localhost:5555", b"s" * 32, bytes(32))])


def test_the_fold_equals_what_the_contracts_hold(anvil: DevChain) -> None:
    """After every kind of event, users, devices, roster and proposals are those of the contracts."""
    world = World(anvil)
    scripted(world)
    view = world.view()
    view.sync()
    assert ask(world, calls.USER_COUNT) == (3,)
    for name in ("ada", "bob", "eve"):
        user = view.user_by_name(name)
        assert user is not None
        assert ask(world, calls.UID_OF, name) == (user.uid,)
        view.confirm(user.uid)
        assert view.user_by_address(user.account) == user
        for device in user.devices:
            resolved = ask(world, calls.RESOLVE, device.current.signer)
            active = device.state is DeviceState.ACTIVE
            assert resolved == ((user.uid, device.device, 0) if active else (0, 0, 0))
            assert view.user_by_address(device.current.signer) == (user if active else None)
        inside = user.uid in {member.uid for member in view.group().members}
        assert ask(world, calls.MEMBER, 0, user.uid)[0] is inside
    view.confirm_group()
    ada = view.user_by_name("ada")
    assert ada is not None
    assert [device.state for device in ada.devices] == [
        DeviceState.ACTIVE,
        DeviceState.REVOKED,
        DeviceState.ACTIVE,
    ]
    assert [version.version for version in ada.devices[1].history] == [1, 2, 3]
    for proposal in view.proposals():
        ((group, kind, subject, proposer, electorate, yes, no, deadline, told, _),) = ask(
            world, calls.PROPOSAL, proposal.id
        )
        assert (proposal.group, proposal.kind, proposal.subject, proposal.proposer) == (
            group,
            kind,
            subject,
            proposer,
        )
        assert (proposal.electorate, proposal.yes, proposal.no) == (electorate, yes, no)
        assert (proposal.deadline, proposal.state) == (deadline, told)
        for voter in proposal.voters:
            assert ask(world, calls.HAS_VOTED, proposal.id, voter) == (True,)
    assert [proposal.state for proposal in view.proposals()] == [
        ProposalState.PASSED,
        ProposalState.PASSED,
        ProposalState.OPEN,
    ]
    assert view.relays() == (RelayAddress("localhost:5555", b"s" * 32, bytes(32)),)
    assert view.nonce(ada.uid) == 0


def test_following_gives_what_reading_anew_gives(anvil: DevChain) -> None:
    """A store that looked after every transaction equals one that reads the history once."""
    world = World(anvil)
    store = MemoryLogStore()
    view = world.view(store)
    people = []
    for name in ("ada", "bob", "eve"):
        people.append(world.register(name))
        view.sync()
    world.seat(*people)
    step = view.advance()
    assert step.membership
    assert step.added == 3
    world.add_device(people[0])
    step = view.advance()
    assert (step.added, step.membership, set(step.subjects)) == (1, False, {world.uid(people[0])})
    assert view.advance().added == 0
    assert state(store) == state(fresh(world))


def test_reads_see_what_sync_brought(anvil: DevChain) -> None:
    """What was folded before is not kept beyond the change that ends it."""
    world = World(anvil)
    view = world.view()
    view.sync()
    assert view.user_by_name("ada") is None
    ada = world.register("ada")
    view.sync()
    user = view.user_by_name("ada")
    assert user is not None
    assert view.user(user.uid) is view.user(user.uid)
    assert view.group().members == ()
    world.add_device(ada)
    world.seat(ada)
    view.sync()
    newer = view.user(user.uid)
    assert newer is not None
    assert newer.device_list_version == user.device_list_version + 1
    assert [member.uid for member in view.group().members] == [user.uid]
    assert view.group() == view.group()


def test_two_views_of_one_store_see_each_others_rows(anvil: DevChain) -> None:
    """A process that only reads forgets what it folded when another process moved the store on."""
    world = World(anvil)
    store = MemoryLogStore()
    syncing, reading = world.view(store), world.view(store)
    ada, bob = world.register("ada"), world.register("bob")
    world.seat(ada, bob)
    syncing.sync()
    user = reading.user_by_name("ada")
    assert user is not None
    assert len(reading.group().members) == 2
    world.add_device(ada)
    world.send(ada, world.calls.propose(0, Kind.EXPEL, user.uid, b""))
    for person in (ada, bob):
        world.send(person, world.calls.vote(ProposalId(1), True))
    syncing.sync()
    seen = reading.user(user.uid)
    assert seen is not None
    assert len(seen.devices) == 2
    assert [member.uid for member in reading.group().members] == [world.uid(bob)]


def test_additions_wait_and_removals_act_at_once(anvil: DevChain) -> None:
    """With confirmations, a new device and a new member count only later; a revocation counts now."""
    world = World(anvil)
    ada, bob = world.register("ada"), world.register("bob")
    world.seat(ada)
    world.add_device(ada)
    world.mine(3)
    view = world.view(confirmations=3)
    uid = world.uid(ada)
    world.add_device(ada)
    world.seat(bob)
    world.send(ada, world.calls.revoke_device(2))
    view.sync()
    user = view.user(uid)
    assert user is not None
    assert [(device.device, device.state) for device in user.devices] == [
        (1, DeviceState.ACTIVE),
        (2, DeviceState.REVOKED),
    ]
    assert [member.uid for member in view.group().members] == [uid]
    view.confirm(uid)
    view.confirm_group()
    world.mine(2)
    view.sync()
    user = view.user(uid)
    assert user is not None
    assert [device.device for device in user.devices] == [1, 2, 3]
    assert len(view.group().members) == 2


def test_an_unknown_user_is_none_and_has_no_nonce(anvil: DevChain) -> None:
    """Nothing is invented for an id, a name or an address that nobody has."""
    world = World(anvil)
    view = world.view()
    view.sync()
    assert view.user(Uid(123_456_789_012_345)) is None
    assert view.user_by_address(address_of(new_secret())) is None
    assert view.proposal(ProposalId(1)) is None
    view.confirm(Uid(123_456_789_012_345))
    with pytest.raises(UnknownUser):
        view.nonce(Uid(123_456_789_012_345))
    with pytest.raises(FoldMismatch):
        view.group(7)


def test_a_lapsed_proposal_reads_expired_before_anybody_closes_it(new_anvil: Callable[..., DevChain]) -> None:
    """The chain's own clock decides, also where it runs ahead of ours."""
    world = World(new_anvil(), voting_period=60)
    ada, bob = world.register("ada"), world.register("bob")
    world.seat(ada)
    world.send(bob, world.calls.request(0))
    view = world.view()
    view.sync()
    assert view.proposals()[0].state is ProposalState.OPEN
    world.rpc.call("evm_increaseTime", 100)
    world.mine()
    view.sync()
    assert view.proposals()[0].state is ProposalState.EXPIRED
    world.send(ada, world.calls.close(ProposalId(1)))
    view.sync()
    assert view.proposals()[0].state is ProposalState.EXPIRED


def test_a_wrong_chain_is_refused(new_anvil: Callable[..., DevChain], anvil: DevChain) -> None:
    """An endpoint of another chain is named with both chain ids, and nothing is taken from it."""
    world = World(anvil)
    other = new_anvil("--chain-id", "5")
    store = MemoryLogStore()
    view = ChainView(Endpoints([other.url]), world.network.directory, store, chain_id=31337)
    with pytest.raises(WrongChain, match=r"chain 5.*chain 31337"):
        view.network()
    moved = ChainView(Endpoints([anvil.url]), world.network.directory, store)
    moved.network()
    moved._sync = None
    moved.endpoints = Endpoints([other.url])
    with pytest.raises(WrongChain):
        moved.sync()
    assert store.head() is None


def test_an_address_without_our_contract_is_refused(anvil: DevChain) -> None:
    """No code, the wrong one of our own contracts, and the other contracts of another network."""
    world = World(anvil)
    empty = ChainView(world.endpoints, Address(b"\x11" * 20), MemoryLogStore())
    with pytest.raises(
        NoContract, match="no contract at 0x1111111111111111111111111111111111111111 on chain 31337"
    ):
        empty.network()
    registry = ChainView(world.endpoints, world.network.registry, MemoryLogStore())
    with pytest.raises(NoContract, match="is not the Directory that this version"):
        registry.network()


def test_contracts_that_were_tampered_with_are_refused(new_anvil: Callable[..., DevChain]) -> None:
    """One byte of code, in any of the contracts, is noticed when a program starts."""
    world = World(new_anvil())
    for at, name in (
        (world.network.directory, "Directory"),
        (world.network.registry, "IdentityRegistry"),
        (world.network.membership, "Membership"),
        (world.network.ledger, "MessageLedger"),
        (world.network.rewards, "RewardDistributor"),
        (parse_address(world.deployment.reward_token), "RewardToken"),
    ):
        found = unhex(world.rpc.call("eth_getCode", hexed(at), "latest"))
        world.view().network()
        world.rpc.call("anvil_setCode", hexed(at), hexed(found + b"\0"))
        with pytest.raises(NoContract, match=f"is not the {name} that"):
            world.view().network()
        world.rpc.call("anvil_setCode", hexed(at), hexed(found))


def test_a_ledger_or_distributor_of_another_network_is_refused(new_anvil: Callable[..., DevChain]) -> None:
    """Our own code, wired to another Directory or to other members, is noticed as well."""
    world = World(new_anvil())
    network = world.network
    for at in (network.ledger, network.rewards):
        found = unhex(world.rpc.call("eth_getCode", hexed(at), "latest"))
        for wired in (network.directory, network.membership):
            assert found.count(bytes(wired)) > 0
            world.rpc.call("anvil_setCode", hexed(at), hexed(found.replace(wired, b"\x11" * 20)))
            with pytest.raises(NoContract, match="do not belong together"):
                world.view().network()
        world.rpc.call("anvil_setCode", hexed(at), hexed(found))
    assert world.view().network() == network


def test_an_unreachable_endpoint_is_named_without_its_key() -> None:
    """The message names host and port; what may be an access key stays out."""
    port = free_port()
    view = ChainView(
        Endpoints([f"http://user:secret@127.0.0.1:{port}/v2/secret?key=secret"]),
        Address(b"d" * 20),
        MemoryLogStore(),
    )
    with pytest.raises(ChainUnreachable, match=rf"http://127\.0\.0\.1:{port} does not answer") as caught:
        view.network()
    assert "secret" not in f"{caught.value}{caught.value.hint}"


def test_a_chain_that_vanishes_loses_nothing(new_anvil: Callable[..., DevChain]) -> None:
    """While the node is away sync fails with a sentence, and reads go on from the store."""
    chain = new_anvil()
    world = World(chain)
    world.register("ada")
    store = MemoryLogStore()
    view = world.view(store)
    view.sync()
    before = state(store)
    chain.process.stop()
    with pytest.raises(ChainUnreachable):
        view.sync()
    assert state(store) == before
    assert view.user_by_name("ada") is not None


def hiding(*signatures: str) -> Bend:
    """An endpoint that leaves out all events of some kinds."""
    hidden = {hexed(keccak256(signature.encode())) for signature in signatures}

    def bend(method: str, params: list[Any], response: dict[str, Any]) -> dict[str, Any] | None:
        if method != "eth_getLogs":
            return None
        return response | {"result": [log for log in response["result"] if log["topics"][0] not in hidden]}

    return bend


HIDDEN = {
    "DeviceUpdated(uint64,uint32,address,uint32,bytes)": "other keys for device 1 of ada",
    "DeviceRevoked(uint64,uint32)": "other keys for device 2 of ada",
    "VerifierSet(uint64,bytes32,bytes)": "verifier of ada",
}


@pytest.mark.parametrize("hidden", HIDDEN)
def test_a_hidden_key_or_verifier_is_found_by_comparison(anvil: DevChain, hidden: str) -> None:
    """Events that an endpoint keeps back leave a fold that differs from what the registry stores."""
    world = World(anvil)
    ada = world.register("ada")
    uid = world.uid(ada)
    world.add_device(ada)
    world.update_device(ada, 1, 2)
    world.send(ada, world.calls.revoke_device(2))
    with proxy(anvil.port, hiding(hidden)) as liar:
        view = world.view(None, liar.url)
        view.sync()
        assert view.user(uid) is not None
        with pytest.raises(FoldMismatch, match=HIDDEN[hidden]) as caught:
            view.confirm(uid)
    assert "--rpc" in caught.value.hint


def test_a_signer_that_was_only_named_gives_way_to_an_account(anvil: DevChain) -> None:
    """By registration and by transfer; nothing that becomes of the device takes the account away again."""
    world = World(anvil)
    ada, bob, late, heir = (
        world.register("namesada"),
        world.register("namesbob"),
        Person("late"),
        Person("heir"),
    )
    for device, squatted in enumerate((late, heir), 2):
        world.add_device(ada, squatted.key)
        assert_resolves(world, squatted.account, ada, device)
    world.fund(late.account)
    signer, kdf, record = address_of(late.signer), secrets.token_bytes(23), secrets.token_bytes(227)
    register = world.calls.register("late", secrets.token_bytes(32), kdf, NOBODY, signer, record)
    world.send(late, register)
    assert_resolves(world, late.account, late, 0)
    bobs, deadline = world.uid(bob), 2**40
    digest = transfer_digest(world.network, bobs, 0, bob.account, heir.account, 0, deadline)
    both = sign_digest(bob.key, digest), sign_digest(heir.key, digest)
    world.send(ada, world.calls.transfer_for(bobs, heir.account, deadline, *both))
    assert_resolves(world, heir.account, bob, 0)
    # A record more under the same signer is the newest that the events tell of the address.
    world.send(ada, world.calls.update_device(2, 2, late.account, secrets.token_bytes(227)))
    assert_resolves(world, late.account, late, 0)
    world.update_device(ada, 2, 3)
    world.send(ada, world.calls.revoke_device(3))
    assert_resolves(world, late.account, late, 0)
    assert_resolves(world, heir.account, bob, 0)
    with pytest.raises(AlreadyDone):
        world.add_device(ada, late.key)


def assert_resolves(world: World, address: Address, to: Person, device: int) -> None:
    """The contract and the fold agree on whom an address acts for."""
    view = world.view()
    view.sync()
    user = view.user_by_name(to.name)
    assert user is not None
    assert ask(world, calls.RESOLVE, address) == (user.uid, device, user.epoch)
    assert view.user_by_address(address) == user


def test_a_hidden_device_user_or_member_is_found_by_comparison(anvil: DevChain) -> None:
    """Whole devices, whole users and seats cannot be kept back either."""
    world = World(anvil)
    ada = world.register("ada")
    uid = world.uid(ada)
    world.seat(ada)
    world.add_device(ada)
    everything = [signature for source, signature in SIGNATURES if source == 1]
    cases = [
        (["DeviceAdded(uint64,uint32,address,bytes)"], "2 devices of ada, the events served 0"),
        (everything, "registration was not served"),
    ]
    for hidden, words in cases:
        with proxy(anvil.port, hiding(*hidden)) as liar, pytest.raises(FoldMismatch, match=words):
            world.view(None, liar.url).confirm(uid)
    seats = "MemberAdded(uint32,uint64,uint32,uint32,bytes32)"
    with proxy(anvil.port, hiding(seats)) as liar, pytest.raises(FoldMismatch, match="roster of group 0"):
        world.view(None, liar.url).confirm_group()


def test_a_store_that_a_liar_filled_heals_with_an_honest_endpoint(anvil: DevChain) -> None:
    """Once other endpoints are named, the comparison reads the history anew and the hidden key appears."""
    world = World(anvil)
    ada = world.register("ada")
    uid = world.uid(ada)
    world.update_device(ada, 1, 2)
    store = MemoryLogStore()
    with proxy(anvil.port, hiding("DeviceUpdated(uint64,uint32,address,uint32,bytes)")) as liar:
        world.view(store, liar.url).sync()
    world.update_device(ada, 1, 3)  # the fold cannot even go on from what it has
    view = world.view(store)
    view.sync()
    with pytest.raises(FoldMismatch, match="Version 3 of device 1 of ada"):
        view.user(uid)
    view.confirm(uid)
    user = view.user(uid)
    assert user is not None
    assert user.devices[0].current.version == 3
    assert state(store) == state(fresh(world))


def test_the_deployment_is_found_in_a_long_chain(new_anvil: Callable[..., DevChain]) -> None:
    """Without a hint, a chain of many blocks is searched for the contracts and read from there."""
    chain = new_anvil("--prune-history")
    Rpc(chain.url).call("anvil_mine", hex(60_000))
    world = World(chain)
    world.register("ada")
    store = MemoryLogStore()
    ChainView(world.endpoints, world.network.directory, store).sync()
    assert state(store) == state(fresh(world))


def test_reading_while_syncing_never_keeps_an_old_fold(anvil: DevChain) -> None:
    """Threads that read during a sync end up with what the sync brought."""
    world = World(anvil)
    ada = world.register("ada")
    view = world.view()
    view.sync()
    uid = world.uid(ada)
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            assert view.user(uid) is not None

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        for version in range(2, 12):
            world.update_device(ada, 1, version)
            view.sync()
            user = view.user(uid)
            assert user is not None
            assert user.devices[0].current.version == version
    finally:
        stop.set()
        for reader in readers:
            reader.join()


def test_policy_and_rules_are_read(anvil: DevChain) -> None:
    """What the deployer chose stands in the group."""
    world = World(anvil, Policy.VOTE, voting_period=99)
    view = world.view()
    view.sync()
    group = view.group()
    assert (group.policy, group.threshold, group.voting_period) == (Policy.VOTE, 5000, 99)


def test_a_fault_of_the_node_keeps_its_number(anvil: DevChain) -> None:
    """What the node refuses is told with its reason."""
    with pytest.raises(RpcFault, match="refused no_such_method"):
        Rpc(anvil.url).call("no_such_method")


def test_batches_beyond_the_limit_keep_their_order(anvil: DevChain) -> None:
    """Several hundred calls go in several round trips, and each answer finds its question."""
    rpc = Rpc(anvil.url)
    questions = [bytes([number % 256, number // 256]) for number in range(250)]
    results = rpc.batch([Request("web3_sha3", (hexed(question),)) for question in questions])
    assert [unhex(rpc.plain(result)) for result in results] == [keccak256(question) for question in questions]
