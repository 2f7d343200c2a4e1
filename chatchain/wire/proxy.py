"""The PROXY protocol, version 2: how a proxy in front of a relay says whom it speaks for.

Source: haproxy.org, proxy-protocol.txt, section 2.2. Only the address is taken from it; what else may follow
(TLVs) is read over. Who may say it is the transport's business, because anybody could.
"""

from __future__ import annotations

import ipaddress
from typing import Final

from chatchain.errors import ProtocolViolation

SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
FIXED: Final = 16
"""Bytes that come first and say how many follow."""

MOST: Final = 1024
"""Bytes that may follow; addresses take 36, and what proxies add is short."""

_LOCAL, _PROXY = 0x20, 0x21
_IPV4, _IPV6 = 0x1, 0x2


def following(fixed: bytes) -> int:
    """How many bytes follow the first 16; raises ProtocolViolation."""
    if len(fixed) != FIXED or not fixed.startswith(SIGNATURE) or fixed[12] not in (_LOCAL, _PROXY):
        raise ProtocolViolation("The proxy does not introduce its client.")
    length = int.from_bytes(fixed[14:16], "big")
    if length > MOST:
        raise ProtocolViolation("The proxy's introduction is too long.")
    return length


def client_of(fixed: bytes, rest: bytes) -> str | None:
    """The address of the client, or None when the proxy speaks for itself; raises ProtocolViolation."""
    if fixed[12] == _LOCAL:
        return None
    family = fixed[13] >> 4
    size = {_IPV4: 4, _IPV6: 16}.get(family)
    if size is None or len(rest) < 2 * size + 4:
        raise ProtocolViolation("The proxy does not say its client's address.")
    return str(ipaddress.ip_address(rest[:size]))
