"""The sponsor's purse: the chain's writer with the relay's own key, as the sponsor asks for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from chatchain.chain.calls import (
    HAS_VOTED,
    VERBS,
    Calls,
    View,
    arguments,
)
from chatchain.chain.rpc import Endpoints, unhex
from chatchain.chain.trial import Candidate
from chatchain.chain.writer import ChainWriter, Keep
from chatchain.errors import ChainError, ChatchainError, StoreUnavailable
from chatchain.identity.keys import address_of
from chatchain.model import Address, Call, Cost, Dispatch, Network, Outcome


class Purse:
    """Satisfies `relay.ports.Payer`."""

    def __init__(
        self,
        endpoints: Endpoints,
        network: Network,
        key: bytes,
        turn: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._endpoints = endpoints
        self._network = network
        self._writer = ChainWriter(endpoints, network)
        self._calls = Calls()
        self._key = key
        self._turn = turn  # of several processes that send from this account, one at a time picks nonces
        self.account = address_of(key)

    def canonical(self, call: Call) -> bool:
        """Whether our own encoder spells the call's arguments so."""
        try:
            values = arguments(call)
        except ChainError:
            return False
        return any(verb(*values) == call for verb in VERBS if call.data.startswith(verb.selector))

    def has_code(self, account: Address) -> bool:
        """Whether there is a contract."""
        return self._writer.has_code(account)

    def estimate_all(
        self, calls: Sequence[tuple[Call, int]], *, next_block: bool = False
    ) -> list[Cost | ChatchainError]:
        """Tries the calls out from the sponsor's account."""
        candidates = [Candidate(call, most) for call, most in calls]
        return self._writer.estimate_all(candidates, self.account, next_block=next_block)

    def submit_all(self, calls: Sequence[tuple[Call, Cost]], keep: Keep) -> list[bytes | ChatchainError]:
        """Signs and sends the calls."""
        told: list[bytes | ChatchainError] = []
        try:
            with self._turn():
                told = self._writer.submit_all(calls, self._key, keep)
        except StoreUnavailable as error:
            return told or [error] * len(calls)  # who cannot give the turn back has had it
        return told

    def together(self, votes: Sequence[Call]) -> Call:
        """The batch of the votes' arguments."""
        return self._calls.vote_batch([arguments(vote) for vote in votes])

    def commitment(self, registration: Call) -> Call:
        """What the registration's name, account and verifier commit to."""
        account, username, verifier, *_ = arguments(registration)
        return self._calls.commit_registration(username, account, verifier)

    def has_voted(self, vote: Call, uid: int) -> bool:
        """Asks the contract."""
        (counted,) = self._ask(HAS_VOTED, arguments(vote)[0], uid)
        return bool(counted)

    def follow(self, tx_hash: bytes) -> bytes:
        """Asks the writer, which replaces what is stuck."""
        return self._writer.follow(tx_hash)

    def tend(self, allow: Callable[[bytes, int], bool], keep: Keep) -> list[Outcome]:
        """Sees transactions through."""
        return self._writer.tend(allow, keep)

    def adopt(self, dispatches: Sequence[Dispatch]) -> list[bool | None]:
        """Sees through what another process has sent from the same account."""
        return self._writer.adopt(dispatches, self._key)

    def prepare(self) -> None:
        """Loads what the first payment needs."""
        self._writer.prepare()

    def _ask(self, view: View, *values: object) -> tuple[Any, ...]:
        request = view.request(self._network.membership, *values)
        return self._endpoints.first(
            lambda endpoint: view.answer(unhex(endpoint.call(request.method, *request.params)))
        )
