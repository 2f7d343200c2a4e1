"""Whom the sponsor registers: a newcomer who did some work for it, or whom a member invited.

Without either, one script would take every good name at the relay's expense. Work counts for one request of
one connection. An invitation counts for one account, as the relay's database remembers, until it expires.
"""

from __future__ import annotations

from typing import Final, Protocol

import msgspec

from chatchain.errors import InvitationRefused, LimitReached, RefusedError, VerificationError
from chatchain.identity.admission import INVITED_ONLY, Invitation, decode_invitation, shows_work
from chatchain.identity.keys import recover
from chatchain.model import Address, Call, Network, User
from chatchain.relay.limits import Buckets, Rate, milliseconds

LONGEST_INVITATION: Final = 31 * 24 * 3600
"""Seconds that an invitation may last; the database remembers the used ones for so long."""

INVITATIONS: Final = Rate.hourly(50)
"""Invitations of one member that are used."""


class Spent(Protocol):
    """The invitations that were used. Blocks; raises StoreUnavailable."""

    def spend(self, id: bytes, expires: int, account: bytes, now: int) -> bytes | None:
        """Notes that this account uses an invitation; gives the account that has used it before, if any."""

    def restore(self, id: bytes, account: bytes) -> None:
        """Makes an invitation good again, as nothing came of its use."""


class Rules(msgspec.Struct, frozen=True):
    """What a relay asks of newcomers: so many bits of work, or an invitation in any case."""

    work: int
    invited_only: bool = False

    @property
    def announced(self) -> int:
        """As the challenge says it."""
        return INVITED_ONLY if self.invited_only else self.work


class Newcomers:
    """Judges what comes beside a registration."""

    def __init__(self, network: Network, rules: Rules, spent: Spent) -> None:
        self._network = network
        self.rules = rules
        self._spent = spent
        self._by_inviter = Buckets(INVITATIONS)

    def require_work(self, admission: bytes, nonce: bytes, ref: int, call: Call) -> None:
        """Raises RefusedError unless the work that was asked for was done."""
        if self.rules.invited_only:
            raise RefusedError(
                "This relay pays only for newcomers whom a member has invited.",
                "Ask a member for an invitation: `chatchain invite` makes one.",
            )
        if self.rules.work and not shows_work(admission, nonce, ref, call, self.rules.work):
            raise RefusedError(
                "The relay pays for a newcomer who did the work that it asks for.", "Update chatchain."
            )

    def judge(
        self, invitation: Invitation, inviter: User | None, *, is_member: bool, time: int, now: float
    ) -> None:
        """Raises InvitationRefused unless a member gave it and it is still good; `time` is in seconds since
        1970.
        """
        if invitation.expires <= time:
            raise InvitationRefused("The invitation has expired.")
        if invitation.expires > time + LONGEST_INVITATION:
            raise InvitationRefused("The invitation lasts longer than a month.")
        if inviter is None or not is_member:
            raise InvitationRefused("Whoever gave the invitation is not a member.")
        try:
            signer = recover(invitation.digest(self._network, inviter.epoch), invitation.signature)
        except VerificationError:
            signer = None
        if signer not in _keys_of(inviter):
            raise InvitationRefused("The invitation is not signed by whom it names.")
        # Only looked at: whoever shows one that was used, or comes to nothing, takes nothing from others.
        wait = self._by_inviter.wait(inviter.uid, now)
        if wait:
            raise LimitReached(
                "This member's invitations were used as often as the relay lets them be for now.",
                retry_after_ms=milliseconds(wait),
            )

    def used(self, invitation: Invitation, now: float) -> None:
        """Counts an invitation as used."""
        self._by_inviter.take(invitation.inviter, now)

    def spend(self, invitation: Invitation, call: Call, time: int) -> bool:
        """Uses an invitation for the account that a call registers; whether that is for the first time.

        Raises InvitationRefused if another account has used it. Blocks.
        """
        account = _account(call)
        before = self._spent.spend(invitation.id, invitation.expires, account, time)
        if before not in (None, account):
            raise InvitationRefused("The invitation was used before.")
        return before is None

    def restore(self, invitation: Invitation, call: Call) -> None:
        """Makes an invitation good again whose registration was refused. Blocks."""
        self._spent.restore(invitation.id, _account(call))

    @staticmethod
    def invitation(admission: bytes) -> Invitation | None:
        """The invitation beside a call, if it is one."""
        return decode_invitation(admission)


def _keys_of(user: User) -> set[Address]:
    return {user.account, *(device.current.signer for device in user.active_devices)}


def _account(registration: Call) -> bytes:
    return registration.data[16:36]
