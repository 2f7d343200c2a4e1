"""Joining a network by its link, and letting others in by invitation."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import msgspec

from chatchain.client.links import join_link, parse_join_link
from chatchain.client.times import second_text
from chatchain.client.views import Invited, Joined
from chatchain.client.watch import Watch
from chatchain.errors import AlreadyDone, NotAMember, UsageError
from chatchain.identity.admission import INVITATION_ID_BYTES, Invitation
from chatchain.identity.keys import parse_address, sign_digest, to_checksum
from chatchain.model import Uid

if TYPE_CHECKING:
    from chatchain.client.station import Station

INVITATION_DAYS: Final = 30
"""The longest that an invitation lasts; relays remember the used ones for so long."""


async def join(station: Station, link: str) -> Joined:
    """Checks a `chatchain://join?…` link against the chain that it names and stores it in the home."""
    settings = parse_join_link(link)
    account = station.home.account()
    if account is not None and parse_address(account.directory) != settings.directory:
        raise AlreadyDone(
            f"This home belongs to {account.username} of another network.",
            "Choose another --home or --user.",
        )
    with station.home.tentative():
        station.home.acquire()
        watch = Watch(station.edges.chain(settings, None))
        network = await watch.network()
        await watch.sync()
        group, relays = await watch.group(), await watch.relays()
        settings = msgspec.structs.replace(settings, chain_id=network.chain_id)
        station.home.put_network(settings)
    return Joined(
        rpc=settings.endpoints[0],
        directory=to_checksum(network.directory),
        endpoints=settings.endpoints,
        chain_id=network.chain_id,
        policy=group.policy.name.lower(),
        relay=relays[0].endpoint if relays else "",
    )


async def invite(station: Station, *, days: int = INVITATION_DAYS) -> Invited:
    """Signs an invitation that lets one newcomer register; see `Client.invite`."""
    account = station.home.require_account()
    if not 1 <= days <= INVITATION_DAYS:
        raise UsageError(f"An invitation lasts 1 to {INVITATION_DAYS} days.")
    own = (await station.desk()).own
    watch = station.require_watch()
    me = await watch.user(Uid(account.uid))
    if me is None or not await watch.is_member(me.uid):
        raise NotAMember("Only members invite.")
    expires = int(station.edges.clock()) + days * 24 * 3600
    plain = Invitation(me.uid, os.urandom(INVITATION_ID_BYTES), expires, b"")
    signature = sign_digest(own.secrets.signer, plain.digest(own.network, me.epoch))
    text = msgspec.structs.replace(plain, signature=signature).text()
    settings = station.settings()
    link = join_link(msgspec.structs.replace(settings, chain_id=own.network.chain_id, invitation=text))
    return Invited(invitation=text, expires=second_text(expires), join=link)
