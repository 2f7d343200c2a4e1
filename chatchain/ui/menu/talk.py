"""The menu about messages: writing, reading, files, and what can be done with what was said."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from chatchain.errors import (
    BadFile,
    BadText,
    ChainError,
    NetworkError,
    NoSuchFile,
    TooLarge,
    UnknownMessage,
    UsageError,
)
from chatchain.ui import pictures, render
from chatchain.ui.changing import change_settings
from chatchain.ui.clean import clean_line
from chatchain.ui.menu.dialog import Choice, Dialog
from chatchain.ui.paths import typed_path
from chatchain.ui.timers import timer_seconds

if TYPE_CHECKING:
    from chatchain.client.core import Client
    from chatchain.client.views import Shown

WAIT_READ: Final = 2.0
"""Seconds that `read` waits for a first message."""
PAGE: Final = 20
PICKED: Final = 9
"""Messages that can be chosen from."""


class Talk:
    """What can be done with messages."""

    def __init__(self, dialog: Dialog) -> None:
        self._dialog = dialog
        self.choices = (
            Choice("send", "write to somebody", self._send),
            Choice("file", "send a file or a picture", self._file),
            Choice("read", "read what came in", self._read),
            Choice("get", "put a file that came where you want it", self._get),
            Choice("history", "read earlier messages with somebody", self._history),
            Choice("search", "find messages, and files by their names", self._search),
            Choice("chat", "talk with somebody, back and forth", self._chat),
            Choice("reply", "answer one of the last messages", self._reply),
            Choice("react", "put an emoji at one of them", self._react),
            Choice("edit", "give one of your messages another text", self._edit),
            Choice("delete", "take one of your messages back", self._delete),
            Choice("settings", "disappearing messages, off the record", self._settings),
        )

    async def _send(self, client: Client) -> None:
        to = await self._to(client)
        await self._dialog.told(client.send(to, await self._dialog.need("What do you want to say? ")))

    async def _file(self, client: Client) -> None:
        from chatchain.client.packing import check_sendable

        to = await self._to(client)
        while True:
            path = typed_path(await self._dialog.need("Which file? (its path; up to 25 MB) "))
            try:
                if not path.exists():
                    raise NoSuchFile(f"There is no file {path}.", "Check the spelling, or drag it in here.")
                check_sendable(path)
                caption = await self._dialog.ask("What is to be said of it? (empty: nothing) ")
                return await self._dialog.told(client.send_file(to, path, caption))
            except (NoSuchFile, BadFile, TooLarge) as flaw:
                self._dialog.error(flaw)

    async def _to(self, client: Client) -> str:
        to = await self._dialog.need("To whom? ")
        with suppress(NetworkError, ChainError):  # offline the message is queued, if it can be
            await client.require_reachable(to)
        return to

    async def _read(self, client: Client) -> None:
        nothing = True
        async for view in client.receive(wait_s=WAIT_READ):
            nothing = False
            self._dialog.say(*await pictures.message(client, view, self._dialog.output))
        if nothing:
            self._dialog.say("Nothing new.")

    async def _get(self, client: Client) -> None:
        view = await self._choose(client, files=True)
        place = await self._dialog.ask("Where to? (a folder or a new file; empty: it stays in your home) ")
        fetched = await client.fetch_file(view.id, typed_path(place) if place else None)
        self._dialog.say(*render.fetched(fetched))

    async def _history(self, client: Client) -> None:
        peer = await self._dialog.need("With whom? ")
        await self._list(client, await client.history(peer, limit=PAGE))

    async def _search(self, client: Client) -> None:
        words = await self._dialog.need("Which words? (all of them, of the text or the file's name) ")
        await self._list(client, (await client.search(words, limit=PAGE))[::-1])

    async def _list(self, client: Client, views: Sequence[Shown]) -> None:
        self._dialog.say(*await pictures.messages(client, views, self._dialog.output))

    async def _chat(self, client: Client) -> None:
        from chatchain.ui.chat import talk

        peer = await self._dialog.need("With whom? ")
        await talk(client, peer, self._dialog.here)

    async def _choose(self, client: Client, *, mine: bool = False, files: bool = False) -> Shown:
        """One of the last messages with somebody, chosen by its number."""
        peer = await self._dialog.need("With whom? ")
        kinds = ("file",) if files else ("text", "file")
        views = [
            view
            for view in await client.history(peer, limit=PAGE)
            if view.kind in kinds and not view.deleted and (view.direction == "out" or not mine)
        ][-PICKED:]
        if not views:
            raise UnknownMessage(
                f"Among the last {PAGE} messages there is none that this could be done with."
            )
        for number, view in enumerate(views, start=1):
            first, *more = render.message(view)
            self._dialog.say(f" {number:2}  {first}", *(f"     {line}" for line in more))
        numbers = [str(number) for number in range(1, len(views) + 1)]
        prompt = "Which one? (its number; empty: none) "
        return views[int(await self._dialog.pick(prompt, numbers, "Type a number from the list.")) - 1]

    async def _reply(self, client: Client) -> None:
        target = await self._choose(client)
        text = await self._dialog.need("What do you want to answer? ")
        await self._dialog.told(client.reply(target.id, text))

    async def _react(self, client: Client) -> None:
        target = await self._choose(client)
        while True:
            emoji = await self._dialog.need("Which emoji? (`none` takes yours away) ")
            taken = emoji.lower() == "none"
            done = "reaction taken away" if taken else f"reaction {clean_line(emoji)}"
            try:
                return await self._dialog.told(client.react(target.id, "" if taken else emoji), done)
            except BadText as flaw:
                self._dialog.error(flaw)

    async def _edit(self, client: Client) -> None:
        target = await self._choose(client, mine=True)
        text = await self._dialog.need("What should it say? ")
        await self._dialog.told(client.edit(target.id, text), "edited")

    async def _delete(self, client: Client) -> None:
        target = await self._choose(client, mine=True)
        if await self._dialog.agrees("Take it back for everybody?"):
            await self._dialog.told(client.delete(target.id), "deleted")

    async def _settings(self, client: Client) -> None:
        peer = await self._dialog.need("With whom? ")
        self._dialog.say(*render.chat_settings(await client.chat_settings(peer)))
        seconds = await self._timer()
        record = (await self._dialog.ask("Off the record? (yes, no; empty: as it is) ")).lower()
        switch = {"yes": True, "y": True, "no": False, "n": False}.get(record)
        if seconds is None and switch is None:
            return
        view, obstacle = await change_settings(client, peer, seconds, switch)
        self._dialog.say(*render.chat_settings(view))
        if obstacle is not None:
            raise obstacle

    async def _timer(self) -> int | None:
        prompt = "Messages disappear after (30s, 5m, 1h, 1d, 4w, off; empty: as it is): "
        while True:
            typed = await self._dialog.ask(prompt)
            try:
                return timer_seconds(typed) if typed else None
            except UsageError as flaw:
                self._dialog.error(flaw)
