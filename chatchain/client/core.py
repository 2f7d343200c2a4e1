"""The client core's one face: what every user interface calls, and all that it may call.

A `Client` belongs to one home (one user of one network). It opens the home when a method first needs it, asks for
the password at most once, keeps one session with the relay for as long as it lives, and takes every outside world
from `Edges`. Methods answer with the structs of `views` and fail with the errors of `chatchain.errors`.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from chatchain.client.ports import Edges
from chatchain.client.views import (
    CardView,
    ContactView,
    Exported,
    Finding,
    Joined,
    KeyView,
    LoggedIn,
    LoggedOut,
    MemberView,
    PasswordChanged,
    ProposalView,
    Registered,
    Sent,
    Shown,
    Status,
    WhoAmI,
)


class Client:
    """One user's messenger, without a face."""

    def __init__(
        self,
        home: Path,
        edges: Edges,
        *,
        endpoints: Sequence[str] = (),
        directory: str = "",
        password: str | None = None,
        ask_password: Callable[[], str] | None = None,
    ) -> None:
        """`endpoints` and `directory` (from flags or environment) go before what `join` stored.

        `password` is one that is already at hand; `ask_password` is called, once, when one is needed and none is.
        Nothing is opened or read here.
        """
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the session and gives the home back; never raises, and may be called twice."""
        raise NotImplementedError

    # --- network and account ------------------------------------------------------------------------------

    async def join(self, link: str) -> Joined:
        """Checks a `chatchain://join?…` link against the chain that it names and stores it in the home."""
        raise NotImplementedError

    async def register(
        self,
        name: str,
        *,
        mnemonic: str | None = None,
        keystore: tuple[str, str] | None = None,
        on_phrase: Callable[[str], None] | None = None,
    ) -> Registered:
        """Makes an account, or with `mnemonic` brings one back, or goes on where a crash broke off.

        `keystore` is a keystore V3 text and its password: the account key comes from there and there is no phrase.
        `on_phrase` is called once with the 12 words of a new account before anything is sent; when it raises,
        nothing was sent. Under policy `vote` the request to join is opened too.
        """
        raise NotImplementedError

    async def login(self, name: str | None = None) -> LoggedIn:
        """Proves password and device to the relay, publishes the key bundle and sends what was queued."""
        raise NotImplementedError

    async def logout(self) -> LoggedOut:
        """Ends the session with the relay; the keys stay."""
        raise NotImplementedError

    async def whoami(self) -> WhoAmI:
        """The account of this home; needs no password."""
        raise NotImplementedError

    async def status(self) -> Status:
        """The account and its network; what lies in the database is told only if a password is at hand."""
        raise NotImplementedError

    async def change_password(self, new: str) -> PasswordChanged:
        """Sets the verifier on chain and the vault of this home to a new password."""
        raise NotImplementedError

    # --- messages -----------------------------------------------------------------------------------------

    def send(
        self, to: str, texts: str | Iterable[str] | AsyncIterable[str], *, wait_s: float = 10.0
    ) -> AsyncIterator[Sent]:
        """Queues, encrypts and sends each text; yields each once it is ticked, or given up on after `wait_s`.

        A message without a tick is yielded as queued, a refused one as dropped, both with `error`; once everything is
        yielded, the first such error is raised (NoTick, RelayUnreachable, NotAMember …). What is wrong with the
        input (BadText, TooLarge, UnknownUser, KeyChanged) is raised before that text is stored, after the texts
        before it were settled.
        """
        raise NotImplementedError

    def receive(
        self, *, wait_s: float = 0.0, follow: bool = False, count: int | None = None
    ) -> AsyncIterator[Shown]:
        """Stores, acknowledges and yields what comes in.

        Ends once something was yielded and the mailbox is empty, after `wait_s` without anything, or after `count`
        messages; with `follow` only `count` or cancelling ends it, and a lost connection is made again.
        """
        raise NotImplementedError

    async def history(self, peer: str, *, limit: int = 50, before: str | None = None) -> list[Shown]:
        """The last `limit` messages with a peer, oldest first; `before` (an id) turns the page."""
        raise NotImplementedError

    async def search(self, text: str, *, limit: int = 50) -> list[Shown]:
        """Stored messages that contain every word of `text`, newest first."""
        raise NotImplementedError

    # --- people -------------------------------------------------------------------------------------------

    async def contacts(self) -> list[ContactView]:
        """Everybody that this home has written with, added or verified."""
        raise NotImplementedError

    async def add_contact(self, card: str) -> ContactView:
        """Checks a contact card against the chain and keeps the contact; it is not verified by that."""
        raise NotImplementedError

    async def own_card(self) -> CardView:
        """One's own contact card."""
        raise NotImplementedError

    async def safety_number(self, peer: str) -> ContactView:
        """The safety number with a peer, to compare over another channel."""
        raise NotImplementedError

    async def verify(self, peer: str) -> ContactView:
        """Marks a peer's present keys as compared; accepts them again after a change."""
        raise NotImplementedError

    # --- governance ---------------------------------------------------------------------------------------

    async def members(self, group: str | None = None) -> list[MemberView]:
        """The members, in the order in which they joined."""
        raise NotImplementedError

    async def request(self, group: str | None = None) -> ProposalView:
        """Opens the proposal to admit this user."""
        raise NotImplementedError

    async def propose(self, kind: str, who: str, group: str | None = None) -> ProposalView:
        """Opens a proposal (`admit`, `expel`)."""
        raise NotImplementedError

    async def proposals(self, group: str | None = None, *, open_only: bool = False) -> list[ProposalView]:
        """The proposals, oldest first."""
        raise NotImplementedError

    async def vote(self, proposal: int, support: bool) -> ProposalView:
        """Casts this user's vote; the deciding vote carries the proposal out."""
        raise NotImplementedError

    # --- keys ---------------------------------------------------------------------------------------------

    async def keys(self) -> list[KeyView]:
        """The devices of this account, as the chain lists them."""
        raise NotImplementedError

    async def rotate_keys(self) -> KeyView:
        """Gives this device new keys, on chain and at the relay."""
        raise NotImplementedError

    async def revoke_device(self, device: int) -> KeyView:
        """Ends a device of this account for ever."""
        raise NotImplementedError

    async def export_keystore(self, path: Path, password: str) -> Exported:
        """Writes the account key as a keystore V3 file (0600) under `password`; an existing file is not replaced."""
        raise NotImplementedError

    async def doctor(self) -> list[Finding]:
        """Looks at home, chain, contracts, relay and account, and says what is wrong and what to do."""
        raise NotImplementedError
