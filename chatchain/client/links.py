"""The join link: everything that a newcomer needs to find a network, as one line of text.

    chatchain://join?rpc=http://127.0.0.1:8545&chain=31337&directory=0x…

`rpc` may stand several times, and `invitation` may follow: a member's word for one newcomer. The link is a
pointer, not a proof: `join` compares it with the chain, and who gives it to you chooses the network that you
join.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final
from urllib.parse import SplitResult, parse_qsl, quote, urlencode, urlsplit

import msgspec

from chatchain.client.ports import NetworkSettings
from chatchain.client.showing import second_text
from chatchain.client.views import Invited, Joined
from chatchain.client.watch import Watch
from chatchain.errors import AlreadyDone, NotAMember, UsageError
from chatchain.identity.admission import INVITATION_ID_BYTES, Invitation, parse_invitation
from chatchain.identity.keys import parse_address, sign_digest, to_checksum
from chatchain.model import Uid

if TYPE_CHECKING:
    from chatchain.client.station import Station

INVITATION_DAYS: Final = 30
"""The longest that an invitation lasts; relays remember the used ones for so long."""

MAX_LINK = 4096
MAX_ENDPOINTS = 8


def join_link(settings: NetworkSettings) -> str:
    """Writes the link to a network."""
    fields = [("rpc", endpoint) for endpoint in settings.endpoints]
    fields += [("chain", str(settings.chain_id)), ("directory", to_checksum(settings.directory))]
    if settings.invitation:
        fields.append(("invitation", settings.invitation))
    return "chatchain://join?" + urlencode(fields, quote_via=quote, safe=":/")


def parse_join_link(link: str) -> NetworkSettings:
    """Reads a link; raises UsageError that says what is wrong with it."""
    link = link.strip()
    parts = _split(link) if len(link) <= MAX_LINK else None
    if parts is None or parts.scheme != "chatchain" or (parts.netloc or parts.path.strip("/")) != "join":
        raise UsageError("This is not a join link.", "A join link starts with chatchain://join?")
    fields: dict[str, list[str]] = {}
    try:
        for key, value in parse_qsl(parts.query, strict_parsing=True, max_num_fields=32):
            fields.setdefault(key, []).append(value)
    except ValueError as broken:
        raise UsageError("The join link is damaged.", "Copy it again, whole.") from broken
    endpoints = tuple(fields.get("rpc", []))
    chain = (fields.get("chain") or fields.get("chain_id") or ["0"])[0]
    directory = fields.get("directory", [""])[0]
    if not 1 <= len(endpoints) <= MAX_ENDPOINTS or not directory or not chain.isdecimal():
        raise UsageError(
            "The join link is incomplete: it needs rpc, chain and directory.", "Copy it again, whole."
        )
    for endpoint in endpoints:
        check_endpoint(endpoint)
    invitation = fields.get("invitation", [""])[0]
    if invitation:
        parse_invitation(invitation)
    return NetworkSettings(endpoints, parse_address(directory), int(chain), invitation)


def check_endpoint(endpoint: str) -> None:
    """Raises UsageError unless this is an http(s) URL."""
    parts = _split(endpoint)
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"{endpoint!r} is not an RPC endpoint.", "It starts with http:// or https://.")


def _split(url: str) -> SplitResult | None:
    try:
        return urlsplit(url)
    except ValueError:  # brackets that do not close
        return None


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
