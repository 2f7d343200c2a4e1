"""A deployed network on a development chain, with people who act on it."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

from chatchain.chain.calls import Calls
from chatchain.chain.events import Directory
from chatchain.chain.rpc import Endpoints, Rpc, hexed
from chatchain.chain.sync import LogStore, MemoryLogStore
from chatchain.chain.view import ChainView
from chatchain.chain.writer import ChainWriter
from chatchain.identity.keys import NOBODY, address_of, new_secret
from chatchain.model import Address, Group, Mined, Network, Policy, Proposal, ProposalId, Uid, User
from deploy.deployer import Deployer, Rules
from tests.fixtures.chains import DevChain

ETHER = 10**18
FAR = 2**40
"""A time long after any test, and before the year that dates end with."""


@dataclass
class Person:
    """Somebody with an account and the signer of a first device."""

    name: str
    key: bytes = field(default_factory=new_secret, repr=False)
    signer: bytes = field(default_factory=new_secret, repr=False)

    @property
    def account(self) -> Address:
        return address_of(self.key)


class World:
    """One network of its own on a chain that others may share."""

    def __init__(self, chain: DevChain, policy: Policy = Policy.OPEN, voting_period: int = 3600) -> None:
        self.chain = chain
        self.rpc = Rpc(chain.url)
        self.deployer = Deployer(chain.url, bytes.fromhex(chain.keys[0][2:]))
        self.deployment = self.deployer.deploy(Rules(policy, voting_period=voting_period))
        self.network: Network = self.deployment.network
        self.endpoints = Endpoints([chain.url])
        self.writer = ChainWriter(self.endpoints, self.network)
        self.calls = Calls()

    def view(self, store: LogStore | None = None, *urls: str, confirmations: int | None = None) -> ChainView:
        """A view of the network, through this chain's endpoint unless others are given."""
        endpoints = Endpoints(urls) if urls else self.endpoints
        kept = store if store is not None else MemoryLogStore()
        return ChainView(
            endpoints,
            self.network.directory,
            kept,
            confirmations=confirmations,
            start=self.deployment.block - 4,  # five contracts, the Directory last
        )

    def fund(self, account: Address, wei: int = ETHER) -> None:
        method = "anvil_setBalance" if self.chain.chain_id == 31337 else "evm_setAccountBalance"
        self.rpc.call(method, hexed(account), hex(wei))

    def register(self, name: str) -> Person:
        """A funded person who registers."""
        person = Person(name)
        self.fund(person.account)
        self.send(
            person,
            self.calls.register(
                name,
                secrets.token_bytes(32),
                secrets.token_bytes(23),
                NOBODY,
                address_of(person.signer),
                secrets.token_bytes(227),
            ),
        )
        return person

    def send(self, person: Person, call: object) -> Mined:
        from chatchain.model import Call

        assert isinstance(call, Call)
        return self.writer.send(call, person.key)

    def uid(self, person: Person) -> Uid:
        view = self.view()
        view.sync()
        user = view.user_by_name(person.name)
        assert user is not None
        return user.uid

    def seat(self, *people: Person) -> None:
        """Makes founders of registered people."""
        self.deployer.seat(self.network, [person.name for person in people])

    def add_device(self, person: Person, signer: bytes | None = None) -> None:
        at = address_of(signer or new_secret())
        self.send(person, self.calls.add_device(at, secrets.token_bytes(227)))

    def update_device(self, person: Person, device: int, version: int) -> None:
        call = self.calls.update_device(device, version, address_of(new_secret()), secrets.token_bytes(227))
        self.send(person, call)

    def snapshot(self) -> object:
        return self.rpc.call("evm_snapshot")

    def wind_back(self, snapshot: object) -> None:
        """Takes the chain back to a snapshot, with a writer that does not bring the old transactions back."""
        assert self.rpc.call("evm_revert", snapshot) is True
        self.forget_sent()

    def forget_sent(self) -> None:
        """Sends from now on with a writer that does not bring back what a reorganisation took."""
        self.writer = ChainWriter(self.endpoints, self.network)

    def mine(self, blocks: int = 1) -> None:
        for _ in range(blocks):
            self.rpc.call("evm_mine")


def dump(fold: Directory) -> tuple[list[User | None], Group | None, tuple[Proposal, ...]]:
    """Everything that a fold knows, for comparison."""
    return [fold.user(uid) for uid in fold.uids()], fold.group(0), fold.proposals(0, now=0)


def state(store: LogStore) -> tuple[object, ...]:
    """What a store holds and what it folds to."""
    rows = store.rows()
    return rows, store.head(), dump(Directory(rows))


def fresh(world: World) -> MemoryLogStore:
    """A store that has just read the whole history."""
    store = MemoryLogStore()
    world.view(store).sync()
    return store


__all__ = ["FAR", "Person", "ProposalId", "World", "dump", "fresh", "state"]
