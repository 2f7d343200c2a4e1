"""Changing how a conversation is set, for the commands, the chat and the menu alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chatchain.errors import ChainError, NetworkError

if TYPE_CHECKING:
    from chatchain.client.core import Client
    from chatchain.client.views import ChatSettings
    from chatchain.errors import ChatchainError


async def change_settings(
    client: Client, peer: str, expires: int | None = None, off_the_record: bool | None = None
) -> tuple[ChatSettings, ChatchainError | None]:
    """Changes what is given; with what is in the way of a change that counts here and waits to be sent."""
    from chatchain.client.showing import still_queued

    try:
        return await client.chat_settings(peer, expires=expires, off_the_record=off_the_record), None
    except (NetworkError, ChainError) as obstacle:
        now = await client.chat_settings(peer)
        if expires not in (None, now.expires) or off_the_record not in (None, now.off_the_record):
            raise
        # It counts here already, so whoever asked must not go away believing that nothing was changed.
        return still_queued(now, obstacle), obstacle
