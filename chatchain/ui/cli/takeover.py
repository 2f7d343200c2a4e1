"""Commands below `recover`: the recovery address, and the account that takes over by it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from chatchain.errors import AmbiguousName, MissingInput, NoAccount, RefusedError, UsageError
from chatchain.ui import homes, passwords, takeovers
from chatchain.ui.clean import clean_line
from chatchain.ui.cli.accounts import KEPT_PHRASE, phrase_shower, read_keystore, read_phrase
from chatchain.ui.cli.desk import Desk, desk

if TYPE_CHECKING:
    from chatchain.client.core import Client
    from chatchain.client.views import ProposalPrompt, Proposed, RecoveryView, TakeoverView

UNASKED = "Nobody is there to confirm it: there is no terminal, or --no-input."

Yes = Annotated[bool, typer.Option("--yes", help="Ask nothing; needed without a terminal.")]
Mnemonic = Annotated[
    Path | None, typer.Option("--mnemonic-file", metavar="F", help="Take the key from this recovery phrase.")
]
Keystore = Annotated[
    Path | None, typer.Option("--keystore", metavar="F", help="Take the key from this keystore V3 file.")
]
KeystorePassword = Annotated[
    Path | None,
    typer.Option(
        "--keystore-password-file", metavar="F", help="The keystore's password, if it is another one."
    ),
]


def address(
    context: typer.Context,
    who: Annotated[
        str | None, typer.Argument(metavar="[WHO]", help="An address, or a user whose account it is.")
    ] = None,
    nobody: Annotated[bool, typer.Option("--none", help="Have no recovery address any more.")] = False,
    yes: Yes = False,
) -> None:
    """Show, name or change your recovery address."""
    if who is not None and nobody:
        raise UsageError("WHO and --none contradict each other.")
    here = desk(context)

    async def show(client: Client) -> RecoveryView:
        return await client.recovery_address()

    async def name(client: Client) -> RecoveryView:
        offer = await client.offer_recovery_address(who)
        await confirm(here, takeovers.naming(offer), "Name it?", yes=yes)
        if yes:
            for line in takeovers.unverified(offer):
                here.output.note(line)
        return await client.set_recovery_address(offer.to)

    view = here.run(name if who is not None or nobody else show, warns=False)
    here.output.result(view, takeovers.recovery)


async def confirm(here: Desk, lines: Sequence[str], question: str, *, yes: bool) -> None:
    """Has a person agree to what the lines say; raises RefusedError for no, MissingInput for nobody."""
    if yes:
        return
    here.output.person(lines)
    if not here.console.terminal:
        raise MissingInput(UNASKED, "Nothing was changed. Add --yes if this is meant.")
    try:
        said = (await here.console.line_soon(f"{question} (yes/no) ")).strip().lower()
    except EOFError:
        said = ""
    if said not in ("yes", "y"):
        raise RefusedError("Nothing was changed.", "Type yes if it is meant.")


def propose(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The user whose account is lost.")],
    account: Annotated[
        str, typer.Argument(metavar="ACCOUNT", help="The address that `recover begin NAME` showed.")
    ],
    mnemonic_file: Mnemonic = None,
    keystore: Keystore = None,
    keystore_password_file: KeystorePassword = None,
    wallet: Annotated[
        bool, typer.Option("--wallet", help="Show what a wallet with the recovery address signs.")
    ] = False,
    signature: Annotated[
        str | None, typer.Option("--signature", metavar="HEX", help="What the wallet gave.")
    ] = None,
    yes: Yes = False,
) -> None:
    """Propose another account for a user, by the recovery address."""
    ways = (mnemonic_file is not None, keystore is not None, wallet, signature is not None)
    if sum(ways) > 1:
        raise UsageError(
            "The word is given by one key: --mnemonic-file, --keystore, --wallet and --signature contradict "
            "each other."
        )
    here = desk(context)
    if wallet:

        async def ask(client: Client) -> ProposalPrompt:
            return await client.ask_wallet_to_propose(name, account)

        here.output.result(here.run(ask), takeovers.prompt)
        return
    mnemonic = read_phrase(mnemonic_file, here.output) if mnemonic_file is not None else None
    stored = read_keystore(here, keystore, keystore_password_file)
    brought = mnemonic is not None or stored is not None

    async def work(client: Client) -> Proposed:
        if signature is not None:  # whoever signed has agreed
            return await client.propose_recovery(name, account, signature=signature)
        key = await client.key_of(mnemonic=mnemonic, keystore=stored) if brought else None
        offer = await client.offer_proposal(name, account, key)
        await confirm(here, takeovers.proposal(offer), "Propose it?", yes=yes)
        return await client.propose_recovery(name, account, key)

    view = here.run(*anywhere(here, work)) if brought else here.run(work)
    here.output.result(view, takeovers.proposed)


def anywhere(
    here: Desk, work: Callable[[Client], Awaitable[Proposed]]
) -> tuple[Callable[[Client], Awaitable[Proposed]], Path]:
    """What needs a network and no account of its own: in the home that is meant, or beside all homes."""
    try:
        home = homes.find(here.settings)
    except (NoAccount, AmbiguousName):
        home = homes.waiting(here.settings)
    link = homes.remembered_link(here.settings, home)

    async def joined(client: Client) -> Proposed:
        if link is not None:
            await client.join(link)
        return await work(client)

    return joined, home


def begin(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The user whose account is lost.")],
    mnemonic_file: Annotated[
        Path | None,
        typer.Option(
            "--mnemonic-file",
            metavar="F",
            help="Write the new account's phrase to this new file (0600); an existing one is read.",
        ),
    ] = None,
    keystore: Keystore = None,
    keystore_password_file: KeystorePassword = None,
) -> None:
    """Make a new account that is to take a user over, in a new home."""
    if mnemonic_file is not None and keystore is not None:
        raise UsageError(
            "A keystore has no recovery phrase.", "Give --mnemonic-file or --keystore, not both."
        )
    here = desk(context)
    username = name.removeprefix("@")
    home = homes.for_new(here.settings, username)
    restores = mnemonic_file is not None and mnemonic_file.exists()
    mnemonic = read_phrase(mnemonic_file, here.output) if mnemonic_file is not None and restores else None
    stored = read_keystore(here, keystore, keystore_password_file)
    show = phrase_shower(here, mnemonic_file)
    link = homes.remembered_link(here.settings, home)
    begun = homes.unfinished(home)

    def ask() -> str:
        if begun is not None:
            return chosen_before(here, begun)
        return passwords.ask_new(here.console, here.output, "password for this account", [username])

    async def work(client: Client) -> TakeoverView:
        if link is not None:
            await client.join(link)
        return await client.begin_takeover(username, mnemonic=mnemonic, keystore=stored, on_phrase=show)

    here.output.result(here.run(work, home, here.kept_password, ask), takeovers.takeover)
    if show is None and begun is None and not restores and stored is None:
        here.output.note(KEPT_PHRASE)


def chosen_before(here: Desk, name: str) -> str:
    """The password of a home in which something was begun."""
    return passwords.asker(here.console, f"Password for {clean_line(name)} (chosen before): ")()


def add_to(app: typer.Typer) -> None:
    """Enters these commands into the group `recover`."""
    for command in (address, begin, propose):
        app.command()(command)
