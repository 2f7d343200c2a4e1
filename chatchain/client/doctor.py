"""A look at all that must be right for messages to flow; each check says what is wrong and what helps."""

from __future__ import annotations

import os
import stat
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from chatchain.client.account import require_same
from chatchain.client.home import Home, OwnAccount
from chatchain.client.own import own_device
from chatchain.client.ports import Dialer, NetworkSettings
from chatchain.client.recovery import require_settled
from chatchain.client.views import Finding
from chatchain.client.watch import Watch
from chatchain.crypto.derive import require_post_quantum
from chatchain.errors import BadConfig, ChatchainError, UnknownUser
from chatchain.identity.keys import to_checksum
from chatchain.model import DeviceId, Policy, Uid, User

if TYPE_CHECKING:
    from chatchain.client.station import Station

CLOCK_SKEW_MS = 60_000


def home_is_private(home: Home) -> Finding:
    """Whether nobody else can read the home."""
    if not home.path.exists():
        return Finding("home", ok=True, detail=f"{home.path} does not exist yet.")
    loose = [
        path.name
        for path in (home.path, *home.path.iterdir())
        if stat.S_IMODE(path.stat().st_mode) & 0o077 or path.stat().st_uid != os.getuid()
    ]
    if loose:
        return Finding(
            "home",
            ok=False,
            detail=f"Others may read {', '.join(loose)} in {home.path}.",
            hint=f"chmod -R go-rwx '{home.path}'",
            exit_code=BadConfig.exit_code,
        )
    return Finding("home", ok=True, detail=f"{home.path} is yours alone.")


def post_quantum() -> Finding:
    """Whether this machine's cryptography has what messages are sealed with."""
    try:
        require_post_quantum()
    except ChatchainError as missing:
        return trouble("cryptography", missing)
    return Finding("cryptography", ok=True, detail="ML-KEM-768 and X25519 are there.")


def trouble(check: str, failed: ChatchainError) -> Finding:
    """An error as a finding."""
    return Finding(check, ok=False, detail=failed.message, hint=failed.hint, exit_code=failed.exit_code)


async def attempt(check: str, question: Callable[[], Awaitable[str]], hint: str = "") -> Finding:
    """Turns an answer or an error into a finding."""
    try:
        return Finding(check, ok=True, detail=await question(), hint=hint)
    except ChatchainError as failed:
        return trouble(check, failed)


async def chain(watch: Watch, settings: NetworkSettings) -> list[Finding]:
    """Whether the endpoints serve the network that is meant."""

    async def reachable() -> str:
        network = await watch.network()
        head = await watch.sync()
        return f"Chain {network.chain_id} at block {head}, by way of {', '.join(settings.endpoints)}."

    async def contracts() -> str:
        network = await watch.network()
        group = await watch.group()
        policy = "only members message" if group.policy is Policy.VOTE else "anyone registered messages"
        return f"Directory {to_checksum(network.directory)}; {len(group.members)} members; {policy}."

    trusted = (
        "One endpoint is trusted with what it says about keys; name a second with --rpc."
        if len(settings.endpoints) == 1
        else ""
    )
    return [await attempt("chain", reachable, trusted), await attempt("contracts", contracts)]


async def relay(watch: Watch, dial: Dialer, now_ms: Callable[[], int]) -> Finding:
    """Whether a relay answers with the right certificate, and whether the clocks agree."""
    skew = 0

    async def answers() -> str:
        nonlocal skew
        link = await dial(await watch.relays())
        skew = now_ms() - link.challenge.time_ms
        endpoint = link.relay.endpoint
        await link.close()
        return f"{endpoint} answers with the certificate that the chain names."

    found = await attempt("relay", answers)
    if found.ok and abs(skew) > CLOCK_SKEW_MS:
        return Finding(
            "relay",
            ok=False,
            detail=f"The relay's clock and this one differ by {abs(skew) // 1000} s.",
            hint="Set this machine's clock.",
            exit_code=BadConfig.exit_code,
        )
    return found


async def examine(station: Station) -> list[Finding]:
    """Looks at home, chain, contracts, relay and account, and says what is wrong and what to do."""
    findings = [home_is_private(station.home), post_quantum()]
    try:
        settings = station.settings()
        watch = Watch(station.edges.chain(settings, None))
    except ChatchainError as failed:
        return [*findings, trouble("network", failed)]
    findings += await chain(watch, settings)
    if all(finding.ok for finding in findings[2:]):
        findings.append(await relay(watch, station.edges.dial, station.now_ms))
    account = station.home.account()
    if account is None or not account.uid:
        findings.append(
            Finding(
                "account", ok=True, detail="There is no account here yet.", hint="chatchain register NAME"
            )
        )
    elif all(finding.ok for finding in findings[2:]):
        findings.append(await attempt("account", lambda: _account_holds(station, account)))
        findings.append(await attempt("recovery", lambda: _nobody_takes_over(station, account)))
    return findings


async def _nobody_takes_over(station: Station, account: OwnAccount) -> str:
    """Whether the account is still the one of this home, and no other is proposed in its place."""
    watch = await station.public_watch()
    user = await _registered(watch, account)
    await watch.confirm(user.uid)  # no endpoint is to hide it
    require_settled(user)
    require_same(user, account)
    return "Nobody else was proposed for this account."


async def _registered(watch: Watch, account: OwnAccount) -> User:
    user = await watch.user(Uid(account.uid))
    if user is None:
        raise UnknownUser(f"The chain does not know {account.username}.")
    return user


async def _account_holds(station: Station, account: OwnAccount) -> str:
    """Whether the chain lists this home's device, its events are whole, and (with a password) the login
    holds.
    """
    watch = await station.public_watch()
    user = await _registered(watch, account)
    own_device(user, DeviceId(account.device))
    await watch.confirm(user.uid)
    if station.password is None:
        return f"{user.username} is registered; without a password the login was not tried."
    session = await station.connect()
    return f"{user.username} logs in as device {account.device}; {session.waiting} deliveries wait."
