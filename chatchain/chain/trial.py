"""Calls of one sender, tried out together before they are sent: what each would cost, or why it is refused.

A node finds a call's gas by running it many times over. So of calls to the same function only one is
measured; the others run once, with the gas that this one would be given. What does not pass so is measured
itself, and only that judges it. Nothing is ever run with more gas than the caller is ready to pay for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from chatchain.chain.calls import address_in
from chatchain.chain.reverts import explain, revert_data
from chatchain.chain.rpc import Header, Request, Rpc, RpcFault, hexed, quantity
from chatchain.errors import ChatchainError, NoEther, TooLarge
from chatchain.identity.keys import to_checksum
from chatchain.model import Address, Call, Cost, Network

GAS_MARGIN: Final = 150_000
"""Gas beyond the estimate: when a vote is mined it may be the deciding one, which executes the proposal."""

TIP: Final = 1_000_000_000
"""Wei that a block's maker is offered for each gas when a node has no opinion."""

TIP_MOST: Final = 100 * TIP
"""More is offered on no node's word: its opinion is the one part of a price that the chain does not check. A
transaction that waits for more than this is raised step by step.
"""


class Candidate(NamedTuple):
    """A call, and the most gas that its sender would pay for (0: as much as it takes)."""

    call: Call
    most: int = 0


class Trial:
    """Tries candidates out against the state as it is, or as it will be when the next block is begun."""

    def __init__(
        self, network: Network, candidates: Sequence[Candidate], sender: Address, *, next_block: bool = False
    ) -> None:
        self._sender = sender
        self._block = "pending" if next_block else "latest"
        self._most = [candidate.most for candidate in candidates]
        self._transactions: list[dict[str, str]] = []
        self._alike: dict[tuple[str, bytes, int], list[int]] = {}
        for place, (call, most) in enumerate(candidates):
            to = address_in(network, call.contract)
            self._transactions.append({"from": hexed(sender), "to": hexed(to), "data": hexed(call.data)})
            self._alike.setdefault((call.contract, call.data[:4], most), []).append(place)

    def run(self, endpoint: Rpc) -> list[Cost | ChatchainError]:
        """Asks one endpoint; raises what keeps all of them from being tried out."""
        first = {kind: places[0] for kind, places in self._alike.items()}
        prices, found = self._begin(endpoint, list(first.values()))
        with_measure: list[tuple[int, int]] = []
        without: list[int] = []
        for kind, (_, *others) in self._alike.items():
            gas = found[first[kind]]
            if isinstance(gas, int):
                with_measure += [(place, gas) for place in others]
            else:
                without += others
        without += self._pass_with(endpoint, with_measure, found)
        found |= self._measure(endpoint, without)
        return self._priced(prices, found)

    def _begin(self, endpoint: Rpc, places: list[int]) -> tuple[_Prices, dict[int, int | ChatchainError]]:
        """What gas costs and the sender has, in the same round trip as the first measures."""
        questions = [
            Request("eth_getBalance", (hexed(self._sender), "latest")),
            Request("eth_getBlockByNumber", ("latest", False)),
            Request("eth_maxPriorityFeePerGas"),
        ]
        balance, latest, tip, *gas = endpoint.try_batch(
            questions + [self._estimate(place) for place in places]
        )
        for answer in (balance, latest):
            if isinstance(answer, RpcFault):
                raise answer
        assert not isinstance(balance, RpcFault)
        assert not isinstance(latest, RpcFault)
        prices = _Prices(
            quantity(endpoint.plain(balance)),
            quantity(endpoint.read(latest, Header).base_fee_per_gas or "0x0"),
            TIP if isinstance(tip, RpcFault) else min(quantity(endpoint.plain(tip)), TIP_MOST),
        )
        return prices, self._read(endpoint, places, gas)

    def _estimate(self, place: int) -> Request:
        return Request("eth_estimateGas", (self._with_gas(place, self._most[place]), self._block))

    def _with_gas(self, place: int, gas: int) -> dict[str, str]:
        return self._transactions[place] | ({"gas": hex(gas)} if gas else {})

    def _measure(self, endpoint: Rpc, places: list[int]) -> dict[int, int | ChatchainError]:
        return self._read(endpoint, places, endpoint.try_batch([self._estimate(place) for place in places]))

    def _read(
        self, endpoint: Rpc, places: list[int], answers: Sequence[msgspec.Raw | RpcFault]
    ) -> dict[int, int | ChatchainError]:
        return {
            place: (_too_much(answer, self._most[place]) or refusal(answer))
            if isinstance(answer, RpcFault)
            else quantity(endpoint.plain(answer))
            for place, answer in zip(places, answers, strict=True)
        }

    def _pass_with(
        self, endpoint: Rpc, measured: list[tuple[int, int]], found: dict[int, int | ChatchainError]
    ) -> list[int]:
        """Runs calls once with the gas that they would be given; gives those that did not pass."""
        requests = [
            Request("eth_call", (self._with_gas(place, self._limit(place, gas)), self._block))
            for place, gas in measured
        ]
        unclear = []
        for (place, gas), answer in zip(measured, endpoint.try_batch(requests), strict=True):
            if isinstance(answer, RpcFault):
                unclear.append(place)
            else:
                found[place] = gas
        return unclear

    def _limit(self, place: int, gas: int) -> int:
        """The gas that a transaction is given when so much was measured."""
        limit = gas * 5 // 4 + GAS_MARGIN
        most = self._most[place]
        return min(limit, max(most, gas)) if most else limit

    def _priced(self, prices: _Prices, found: dict[int, int | ChatchainError]) -> list[Cost | ChatchainError]:
        """Costs in the order of the candidates, as far as the sender's balance reaches."""
        costs: list[Cost | ChatchainError] = []
        left = prices.balance
        for place in range(len(self._transactions)):
            gas = found[place]
            if isinstance(gas, ChatchainError):
                costs.append(gas)
                continue
            limit, fee = self._limit(place, gas), 2 * prices.base + prices.tip
            if left < limit * fee:
                # A poorer account may still do with what the estimate asks for, at today's price.
                limit, fee = min(limit, gas * 9 // 8), prices.base * 9 // 8 + prices.tip
            if left < limit * fee:
                costs.append(
                    NoEther(
                        f"The account {to_checksum(self._sender)} holds {_ether(left)} ether, and this "
                        f"transaction may cost {_ether(limit * fee)}."
                    )
                )
                continue
            left -= limit * fee
            costs.append(Cost(gas, limit, fee, prices.tip))
        return costs


class _Prices(NamedTuple):
    """What the sender has, and what gas costs now, in wei."""

    balance: int
    base: int
    tip: int


def refusal(fault: RpcFault) -> ChatchainError:
    """What a node's error means: a revert's sentence, an empty purse, or the error itself."""
    data = revert_data(fault.data)
    if data is not None:
        return explain(data)
    if "insufficient funds" in fault.reason.lower():
        return NoEther("The account cannot pay for this transaction.")
    if "revert" in fault.reason.lower():
        return explain(b"")
    return fault


def _too_much(fault: RpcFault, most: int) -> TooLarge | None:
    """What a node's error means when the call was tried out with so much gas and no more."""
    if not most or revert_data(fault.data) is not None or "gas" not in fault.reason.lower():
        return None
    return TooLarge(f"The call would take more than {most} gas, and that is all that is paid for.")


def _ether(wei: int) -> str:
    return f"{wei / 10**18:.6f}".rstrip("0").rstrip(".")
