"""The join link: everything that a newcomer needs to find a network, as one line of text.

    chatchain://join?rpc=http://127.0.0.1:8545&chain=31337&directory=0x…

`rpc` may stand several times, and `invitation` may follow: a member's word for one newcomer. The link is a
pointer, not a proof: `join` compares it with the chain, and who gives it to you chooses the network that you
join.
"""

from __future__ import annotations

from urllib.parse import SplitResult, parse_qsl, quote, urlencode, urlsplit

from chatchain.client.ports import NetworkSettings
from chatchain.errors import UsageError
from chatchain.identity.admission import parse_invitation
from chatchain.identity.keys import parse_address, to_checksum

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
