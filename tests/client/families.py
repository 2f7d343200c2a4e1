"""People with several homes, and what a test does at each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from chatchain.client.core import Client
from chatchain.client.ports import Store
from chatchain.client.views import Shown
from chatchain.crypto.session import initial_handshake
from chatchain.model import Delivery, Envelope, KeptSession
from tests.world import World


@dataclass(frozen=True)
class Home:
    """One device of somebody."""

    world: World
    owner: str
    home: str
    phrase: str = ""

    def client(self) -> Client:
        """A client core there."""
        return self.world.client(self.owner, home=self.home)

    async def send(self, to: str, *said: str) -> None:
        """Sends in a run of its own and sees every tick."""
        async with self.client() as client:
            assert {sent.state async for sent in client.send(to, said)} == {"sent"}

    async def hear(self, wait_s: float = 0.0) -> list[Shown]:
        """What comes to its screen."""
        async with self.client() as client:
            return [shown async for shown in client.receive(wait_s=wait_s)]

    async def texts(self, wait_s: float = 0.0) -> list[str | None]:
        """The texts of it; a notice has none."""
        return [shown.text for shown in await self.hear(wait_s)]

    async def rotate(self) -> None:
        """Gives it new keys."""
        async with self.client() as client:
            await client.rotate_keys()

    async def kept(self, other: str, device: int = 1) -> list[KeptSession]:
        """Its sessions with a device, the one heard last first."""
        async with self.client() as client:
            found = (await store_of(client)).sessions(self.world.chain.user(other).uid, device)
        return sorted(found, key=lambda one: one.rank, reverse=True)


async def store_of(client: Client) -> Store:
    """The database of a client at work."""
    return (await client._station.desk()).unlocked.store


async def family(world: World, name: str, count: int = 1) -> list[Home]:
    """Registers somebody with so many devices."""
    phrases: list[str] = []
    async with world.client(name) as client:
        await client.register(name, on_phrase=phrases.append)
    first = Home(world, name, name, phrases[0])
    return [first, *[await another(first, f"{name}-{number}") for number in range(2, count + 1)]]


async def another(first: Home, folder: str) -> Home:
    """A further device of somebody, in a home of its own."""
    made = Home(first.world, first.owner, folder, first.phrase)
    async with made.client() as client:
        await client.register(first.owner, mnemonic=first.phrase)
    return made


def initial(world: World) -> list[bool]:
    """Of each envelope so far, whether its first copy begins a session."""
    return [
        initial_handshake(submit.envelope.copies[0].header) is not None for submit in world.relay.submitted
    ]


def deliver(world: World, rows: Sequence[tuple[tuple[int, int], Delivery]]) -> None:
    """Has the relay hold exactly these deliveries, in this order, behind all that it delivered before."""
    numbers = [next(world.relay._sequence) for _ in rows]
    world.relay.rows = {
        number: (key, replace(delivery, sequence=number))
        for number, (key, delivery) in zip(numbers, rows, strict=True)
    }
    world.relay.reopen()


def delivered(world: World, envelope: Envelope) -> Delivery:
    """What a relay makes of the first copy of an envelope of ada's."""
    return Delivery(
        1,
        envelope.id,
        envelope.suite,
        world.chain.user("ada").uid,
        1,
        envelope.recipient,
        int(world.now * 1000),
        envelope.copies[0].header,
        envelope.body,
    )
