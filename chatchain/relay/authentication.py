"""Who a connection is: judges login proofs with `login`, and limits how often that is done for whom."""

from __future__ import annotations

import contextlib
import time

from structlog.typing import FilteringBoundLogger

from chatchain.errors import LoginRefused, StoreUnavailable
from chatchain.model import Network, User
from chatchain.relay import login
from chatchain.relay.allowance import Allowance
from chatchain.relay.follower import Follower
from chatchain.relay.limits import Buckets, milliseconds
from chatchain.relay.metrics import Metrics
from chatchain.relay.ports import Peer
from chatchain.relay.sessions import Guest
from chatchain.relay.users import Users
from chatchain.wire.connection import State
from chatchain.wire.messages import EnterFiles, Login

Subject = tuple[str, int, bool]
"""Who logs in: from which address, as whom, and whether it has the device that it names."""


class Authentication:
    """Tells the owner of a proof, or says goodbye."""

    def __init__(
        self,
        network: Network,
        spki: bytes,
        *,
        allowance: Allowance,
        users: Users,
        follower: Follower,
        log: FilteringBoundLogger,
        metrics: Metrics,
    ) -> None:
        self._network = network
        self._keys: tuple[bytes, ...] = (spki,)
        self._users = users
        self._follower = follower
        self._log = log
        self._metrics = metrics
        self._logins = Buckets(allowance.logins)
        self._logins_of_address = Buckets(allowance.address_logins)
        self._failures = Buckets(allowance.failed_logins)
        self._failures_of_address = Buckets(allowance.address_failed_logins)

    def renewed(self, spki: bytes) -> None:
        """New connections show another key; those that opened before may still log in with the last one."""
        self._keys = (self._keys[-1], spki) if spki != self._keys[-1] else self._keys

    async def admit(self, peer: Peer, guest: Guest, proof: Login | EnterFiles) -> User | None:
        """Gives the user whom the proof shows; None if the connection is closed, or being closed."""
        # Counted before it is judged, and forgiven if it fits: else as many as come at once would be judged.
        wait = self._logins_of_address.take(peer.address, time.monotonic())
        if wait:
            self._turn_away(peer, "Too many logins from this address.", wait)
            return None
        subject = None
        try:
            # Whoever has not even the device keeps nobody out who has it, and guesses only the password.
            subject = peer.address, proof.uid, await self._bears_device(guest, proof)
            wait = self._failing(subject)
            if wait:
                self._turn_away(peer, "Too many failed logins from this address.", wait)
                return None
            user = await self._prove(guest, proof)
        except LoginRefused as refusal:
            self._metrics.logins.labels("refused").inc()
            self._log.info("login refused", uid=proof.uid, device=proof.device, reason=refusal.message)
            peer.say_goodbye("login_refused", login.REFUSAL)
            return None
        except StoreUnavailable:
            if subject is not None:
                self._forgive(subject)
            peer.say_goodbye("store_unavailable", "The relay cannot look anybody up at the moment.", 2_000)
            return None
        self._forgive(subject)
        if peer.state is State.CLOSED:
            return None
        wait = self._logins.take(user.uid, time.monotonic())  # not before: nobody uses up another's
        if wait:
            self._turn_away(peer, "Too many logins of this account.", wait)
            return None
        return user

    def _turn_away(self, peer: Peer, sentence: str, wait: float) -> None:
        self._metrics.logins.labels("limited").inc()
        peer.say_goodbye("limit_reached", sentence, milliseconds(wait))

    async def _bears_device(self, guest: Guest, proof: Login | EnterFiles) -> bool:
        user = await self._users.user(proof.uid)
        return any(
            login.bears_device(self._network, user, proof, spki=spki, nonce=guest.nonce)
            for spki in self._keys
        )

    def _failing(self, subject: Subject) -> float:
        """Counts one more login of this address as failed, until it is forgiven; or says how long it has to
        wait.
        """
        now = time.monotonic()
        wait = self._failures.take(subject, now)
        if wait:
            return wait
        wait = self._failures_of_address.take(subject[0], now)
        if wait:
            self._failures.give_back(subject)
        return wait

    def _forgive(self, subject: Subject) -> None:
        self._failures.give_back(subject)
        self._failures_of_address.give_back(subject[0])

    async def _prove(self, guest: Guest, proof: Login | EnterFiles) -> User:
        """Gives the user whom the proof shows, after a look at the chain if the first answer is no."""
        try:
            return await self._check(guest, proof)
        except LoginRefused:
            if not await self._follower.look_again():
                raise
        return await self._check(guest, proof)

    async def _check(self, guest: Guest, proof: Login | EnterFiles) -> User:
        user = await self._users.user(proof.uid)
        *older, newest = self._keys
        for spki in older:  # a proof is bound to the key that its connection showed
            with contextlib.suppress(LoginRefused):
                login.check(self._network, user, proof, spki=spki, nonce=guest.nonce)
                break
        else:
            login.check(self._network, user, proof, spki=newest, nonce=guest.nonce)
        assert user is not None, "a proof fits nobody unknown"
        return user
