"""Endpoints that lie, lag, refuse or babble, in front of a real chain."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest

from chatchain.chain.rpc import AnswerTooLarge, Endpoints, Request, Rpc
from chatchain.chain.sync import MemoryLogStore
from chatchain.errors import ChainUnreachable, EndpointsDisagree, FoldMismatch, WrongChain
from chatchain.model import RelayAddress
from tests.chain.proxy import Bend, proxy
from tests.chain.world import World, fresh, state
from tests.fixtures.chains import DevChain
from tests.fixtures.processes import free_port


@pytest.fixture(scope="module")
def world(anvil: DevChain) -> World:
    """A network with a little history."""
    world = World(anvil)
    ada, bob = world.register("ada"), world.register("bob")
    world.seat(ada, bob)
    world.update_device(ada, 1, 2)
    world.deployer.set_relays(world.network, [RelayAddress("localhost:5555", b"s" * 32, bytes(32))])
    return world


def hide_last_log(method: str, params: list[Any], response: dict[str, Any]) -> dict[str, Any] | None:
    if method == "eth_getLogs" and response.get("result"):
        return response | {"result": response["result"][:-1]}
    return None


def swap_key(method: str, params: list[Any], response: dict[str, Any]) -> dict[str, Any] | None:
    """Another record in each log."""
    if method != "eth_getLogs":
        return None
    logs = [log | {"data": log["data"].replace("a", "b")} for log in response["result"]]
    return response | {"result": logs}


def other_relay(method: str, params: list[Any], response: dict[str, Any]) -> dict[str, Any] | None:
    """Names the attacker's certificate."""
    if method == "eth_call":
        return response | {"result": response["result"].replace("73" * 32, "66" * 32)}
    return None


def other_chain(method: str, params: list[Any], response: dict[str, Any]) -> dict[str, Any] | None:
    return response | {"result": "0x5"} if method == "eth_chainId" else None


def behind(method: str, params: list[Any], response: dict[str, Any]) -> dict[str, Any] | None:
    """Knows only the first three blocks."""
    if method == "eth_getBlockByNumber" and params[0] == "latest":
        return (
            None
            if response["result"] is None
            else response | {"result": dict(response["result"], number="0x3")}
        )
    return None


LIES: dict[str, Bend] = {"a hidden event": hide_last_log, "a swapped key": swap_key}


@pytest.mark.parametrize("lie", LIES)
def test_of_two_endpoints_one_that_lies_stops_everything(world: World, lie: str) -> None:
    """Nobody knows which of the two lies, so nothing is taken in, and both stories are told."""
    with proxy(world.chain.port, LIES[lie]) as liar:
        store = MemoryLogStore()
        view = world.view(store, world.chain.url, liar.url)
        with pytest.raises(EndpointsDisagree, match=rf"{liar.url}: \d+ events up to block"):
            view.sync()
        taken = store.rows()
        assert taken == fresh(world).rows()[: len(taken)]
        assert not any(row.label == "bob" for row in taken) or lie == "a hidden event"


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_of_three_endpoints_one_that_lies_is_outvoted(world: World, lie: str, place: int) -> None:
    """Wherever it stands in the list."""
    with proxy(world.chain.port, LIES[lie]) as liar, proxy(world.chain.port) as honest:
        urls = [world.chain.url, honest.url]
        urls.insert(place, liar.url)
        store = MemoryLogStore()
        view = world.view(store, *urls)
        view.sync()
        assert state(store) == state(fresh(world))
        ada = view.user_by_name("ada")
        assert ada is not None
        view.confirm(ada.uid)


def test_a_majority_of_liars_is_found_out_by_comparison(anvil: DevChain) -> None:
    """Two of three can hide the latest key from the fold, and not from a look at the contract."""
    world = World(anvil)
    ada = world.register("ada")
    uid = world.uid(ada)
    world.update_device(ada, 1, 2)
    with proxy(anvil.port, hide_last_log) as first, proxy(anvil.port, hide_last_log) as second:
        view = world.view(None, first.url, anvil.url, second.url)
        view.sync()
        user = view.user(uid)
        assert user is not None
        assert user.devices[0].current.version == 1
        with pytest.raises(FoldMismatch, match="device 1 of ada"):
            view.confirm(uid)


def test_a_relay_that_only_one_of_two_endpoints_names_is_not_dialled(world: World) -> None:
    """The certificate hash that a client will trust needs the same agreement as keys."""
    with proxy(world.chain.port, other_relay) as liar, proxy(world.chain.port) as honest:
        with pytest.raises(EndpointsDisagree):
            world.view(None, world.chain.url, liar.url).relays()
        assert world.view(None, liar.url, honest.url, world.chain.url).relays()[0].spki == b"s" * 32


def test_an_endpoint_that_is_down_is_done_without(world: World) -> None:
    """Two of three suffice; one of two does not, and the message says which is away."""
    dead = f"http://127.0.0.1:{free_port()}"
    store = MemoryLogStore()
    with proxy(world.chain.port) as second:
        world.view(store, dead, world.chain.url, second.url).sync()
    assert state(store) == state(fresh(world))
    with pytest.raises(EndpointsDisagree, match=f"{dead} does not answer") as raised:
        world.view(None, world.chain.url, dead).sync()
    assert f"{world.chain.url}: chain {world.chain.chain_id} with registry 0x" in str(raised.value)
    with pytest.raises(ChainUnreachable):
        world.view(None, dead, f"http://127.0.0.1:{free_port()}").sync()


def test_an_endpoint_that_lags_does_not_hold_the_others_back(world: World) -> None:
    """The tip is the highest block that a quorum has reached."""
    with proxy(world.chain.port, behind) as laggard, proxy(world.chain.port) as second:
        store = MemoryLogStore()
        world.view(store, laggard.url, world.chain.url, second.url).sync()
        assert state(store) == state(fresh(world))


def test_an_endpoint_of_another_chain_is_outvoted_or_named(world: World) -> None:
    """One of three is ignored; alone it is refused."""
    with proxy(world.chain.port, other_chain) as other, proxy(world.chain.port) as second:
        store = MemoryLogStore()
        world.view(store, other.url, world.chain.url, second.url).sync()
        assert state(store) == state(fresh(world))
        view = world.view(MemoryLogStore())
        view.network()
        view.endpoints = Endpoints([other.url])
        with pytest.raises(WrongChain):
            view.sync()


def test_ranges_shrink_when_too_much_is_asked_and_grow_again(world: World) -> None:
    """An endpoint that serves few blocks at once is read to the end."""
    spans: list[int] = []

    def few(method: str, params: list[Any], response: dict[str, Any]) -> dict[str, Any] | None:
        if method != "eth_getLogs" or params[0]["toBlock"] == "latest":
            return None
        span = int(params[0]["toBlock"], 16) - int(params[0]["fromBlock"], 16) + 1
        spans.append(span)
        if span > 5:
            return {
                "jsonrpc": "2.0",
                "id": response["id"],
                "error": {"code": -32005, "message": "limit exceeded"},
            }
        return None

    world.mine(60)
    with proxy(world.chain.port, few) as endpoint:
        store = MemoryLogStore()
        world.view(store, endpoint.url).sync()
        assert state(store) == state(fresh(world))
    assert max(spans) > 5
    assert spans[-1] <= 5
    first_refused = next(at for at, span in enumerate(spans) if span > 5)
    assert any(span > 5 for span in spans[first_refused + 5 :]), "it never tried a longer range again"


def test_an_endpoint_without_batches_is_read_call_by_call(world: World) -> None:
    """Some answer a batch with one error; then each call goes alone."""

    def refuse(answer: bytes) -> bytes:
        if answer.startswith(b"["):
            error = {"code": -32600, "message": "batch not supported"}
            return json.dumps({"jsonrpc": "2.0", "id": None, "error": error}).encode()
        return answer

    with proxy(world.chain.port, raw=refuse) as endpoint:
        store = MemoryLogStore()
        world.view(store, endpoint.url).sync()
        assert state(store) == state(fresh(world))


def test_answers_in_another_order_find_their_questions(world: World) -> None:
    """JSON-RPC lets a batch come back in any order."""

    def reverse(answer: bytes) -> bytes:
        decoded = json.loads(answer)
        return json.dumps(decoded[::-1] if isinstance(decoded, list) else decoded).encode()

    with proxy(world.chain.port, raw=reverse) as endpoint:
        store = MemoryLogStore()
        world.view(store, endpoint.url).sync()
        assert state(store) == state(fresh(world))


BABBLE = {
    "nothing": b"",
    "no JSON": b"<html>busy</html>",
    "half of an answer": b'{"jsonrpc":"2.0","id":0,"resu',
    "another shape": b'{"jsonrpc":"2.0","id":0,"result":{"what":1}}',
    "a list for one": b"[]",
    "not UTF-8": b'{"jsonrpc":"2.0","id":0,"result":"\xff"}',
    "a null": b"null",
    "deep": b'{"jsonrpc":"2.0","id":0,"result":' + b"[" * 100_000,
}


@pytest.mark.parametrize("what", BABBLE)
def test_babble_counts_as_no_answer(world: World, what: str) -> None:
    """Whatever bytes an endpoint sends, the failure has a sentence and the store does not move."""
    with proxy(world.chain.port, raw=lambda answer: BABBLE[what]) as endpoint:
        store = MemoryLogStore()
        view = world.view(store)
        view.network()
        view.endpoints = Endpoints([endpoint.url])
        with pytest.raises(ChainUnreachable, match=r"The endpoint|An endpoint"):
            view.sync()
        assert store.head() is None


def test_an_answer_without_end_is_cut_off(world: World) -> None:
    """More bytes than are read: refused without holding them."""
    with proxy(world.chain.port, raw=lambda answer: b"[" + b" " * 3_000_000) as endpoint:
        rpc = Rpc(endpoint.url, max_response=1 << 20)
        with pytest.raises(AnswerTooLarge):
            rpc.batch([Request("eth_chainId")])


def test_an_endpoint_that_stays_silent_is_given_up() -> None:
    """A socket that accepts and never answers ends in a sentence, not in waiting."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        rpc = Rpc(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=0.3)
        with pytest.raises(ChainUnreachable, match="it stays silent"):
            rpc.call("eth_chainId")


def test_a_slow_endpoint_is_not_waited_for_once_the_others_agree(world: World) -> None:
    """Two answers of three are enough; the third may take its time."""
    release = threading.Event()

    def slow(method: str, params: list[Any], response: dict[str, Any]) -> None:
        release.wait(20)

    with ExitStack() as stack:
        stalled = stack.enter_context(proxy(world.chain.port, slow))
        stack.callback(release.set)
        second = stack.enter_context(proxy(world.chain.port))
        view = world.view(None, stalled.url, world.chain.url, second.url)
        assert view.network() == world.network
        assert not release.is_set()


def test_a_reorg_that_one_endpoint_invents_is_outvoted(world: World) -> None:
    """An endpoint that denies our head cannot make us forget a revocation."""
    store = MemoryLogStore()
    world.view(store).sync()
    before = state(store)

    def denies(method: str, params: list[Any], response: dict[str, Any]) -> dict[str, Any] | None:
        if method == "eth_getBlockByNumber" and params[0] != "latest" and response["result"]:
            return response | {"result": dict(response["result"], hash="0x" + "77" * 32)}
        return None

    with proxy(world.chain.port, denies) as liar, proxy(world.chain.port) as second:
        step = world.view(store, liar.url, world.chain.url, second.url).advance()
        assert step.dropped == ()
        assert state(store) == before


def test_several_endpoints_walk_back_together(new_anvil: Callable[..., DevChain]) -> None:
    """A reorg that a quorum tells of is followed, also while a third endpoint shows other logs."""
    world = World(new_anvil())
    ada = world.register("ada")
    store = MemoryLogStore()
    with proxy(world.chain.port) as second, proxy(world.chain.port, swap_key) as third:
        view = world.view(store, world.chain.url, second.url, third.url)
        view.sync()
        for depth in (1, 3, 5):
            for _ in range(depth):
                world.add_device(ada)
            view.sync()
            world.rpc.call("anvil_reorg", depth, [])
            world.register(f"after-{depth}")
            assert len(view.advance().dropped) == depth
            assert state(store) == state(fresh(world))


def test_logs_that_were_not_asked_for_are_refused(world: World) -> None:
    """A log of another address, of a later block, or the same one twice."""

    def bend(change: Any) -> Bend:
        def bent(method: str, params: list[Any], response: dict[str, Any]) -> dict[str, Any] | None:
            if method == "eth_getLogs" and response["result"]:
                return response | {"result": change(response["result"])}
            return None

        return bent

    changes = {
        "address": lambda logs: [*logs, logs[-1] | {"address": "0x" + "11" * 20}],
        "block": lambda logs: [*logs, logs[-1] | {"blockNumber": "0xffffff"}],
        "twice": lambda logs: [*logs, logs[-1]],
        "no event": lambda logs: [*logs, logs[-1] | {"topics": ["0x" + "11" * 32], "logIndex": "0xffff"}],
        "garbage": lambda logs: [*logs, logs[-1] | {"data": "0xzz", "logIndex": "0xffff"}],
    }
    for change in changes.values():
        with proxy(world.chain.port, bend(change)) as liar:
            store = MemoryLogStore()
            with pytest.raises((ChainUnreachable, FoldMismatch)):
                world.view(store, liar.url).sync()
            assert len(store.rows()) < len(fresh(world).rows())


@pytest.mark.parametrize("taken", [True, False], ids=["first block", "another"])
def test_only_the_first_block_may_have_been_made_anew(
    new_anvil: Callable[..., DevChain], taken: bool
) -> None:
    """Anvil makes it again when it starts from a saved state; any other must be the next one's parent."""
    world = World(new_anvil())
    world.register("ada")
    number = 0 if taken else 1

    def anew(method: str, params: list[Any], response: dict[str, Any]) -> dict[str, Any] | None:
        if method != "eth_getBlockByNumber" or params[0] != hex(number):
            return None
        return response | {"result": dict(response["result"], hash="0x" + "ab" * 32)}

    with proxy(world.chain.port, anew) as endpoint:
        store = MemoryLogStore()
        view = world.view(store, endpoint.url)
        if taken:
            view.sync()
            assert state(store) == state(fresh(world))
        else:
            with pytest.raises(ChainUnreachable, match="do not follow each other"):
                view.sync()


def test_looking_for_news_takes_one_round_trip(world: World) -> None:
    """Chain id, tip, our head and the logs since then are one HTTP request; so `send` waits once."""
    with proxy(world.chain.port) as endpoint:
        view = world.view(None, endpoint.url)
        view.sync()
        endpoint.posts = 0
        view.sync()
        assert endpoint.posts == 1
        world.register("newcomer")
        endpoint.posts = 0
        view.sync()
        assert endpoint.posts == 1
        assert view.user_by_name("newcomer") is not None


def test_no_endpoint_at_all_is_said() -> None:
    """And so is a quorum that cannot be reached."""
    with pytest.raises(ChainUnreachable, match="No RPC endpoint"):
        Endpoints([])
    with pytest.raises(ChainUnreachable, match="3 of 2"):
        Endpoints(["http://a", "http://b"], quorum=3)
    assert Endpoints(["http://a", "http://a"]).quorum == 1
