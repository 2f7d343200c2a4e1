"""Judges login proofs against the relay's view of the chain.

What the client is told is the same sentence whoever it claims to be and whatever is wrong; the reason goes
to the log.
"""

from __future__ import annotations

import contextlib
import secrets
from typing import Final

from chatchain.errors import LoginRefused
from chatchain.identity import login as identity
from chatchain.identity.login import check_login
from chatchain.model import Address, Device, DeviceId, DeviceState, DeviceVersion, Network, Uid, User
from chatchain.wire.messages import EnterFiles, Login

REFUSAL: Final = "The relay does not accept this login: name, password or device is wrong."

NONCE_BYTES: Final = 32


def nobody() -> User:
    """A user whom no proof fits: checking against it takes as long as against a real one."""
    version = DeviceVersion(1, Address(secrets.token_bytes(20)), b"", 0, 0)
    device = Device(Uid(0), DeviceId(0), DeviceState.ACTIVE, bytes(32), (version,))
    return User(
        uid=Uid(0),
        username="",
        account=Address(bytes(20)),
        recovery=Address(bytes(20)),
        epoch=0,
        verifier=secrets.token_bytes(32),
        kdf=b"",
        devices=(device,),
        device_list_version=1,
        block=0,
        time=0,
    )


def check(
    network: Network, user: User | None, login: Login | EnterFiles, *, spki: bytes, nonce: bytes
) -> Device:
    """Gives the device that the proof logs in; raises LoginRefused with the reason, which is for the log
    only.
    """

    def judge(who: User, device: int, epoch: int) -> Device:
        return check_login(
            network,
            who,
            spki=spki,
            nonce=nonce,
            device=device,
            epoch=epoch,
            kdf=login.kdf,
            login_signature=login.login_signature,
            device_signature=login.device_signature,
        )

    known = user if user is not None and user.uid == login.uid else None
    decoy = nobody()
    if known is None or login.epoch != known.epoch or (known.uid, login.device) not in known.mailboxes:
        # There is nothing to compare with, which must not show in how long it takes.
        with contextlib.suppress(LoginRefused):
            judge(decoy, decoy.devices[0].device, decoy.epoch)
    if known is None:
        raise LoginRefused("Nobody has this id.")
    return judge(known, login.device, login.epoch)


def bears_device(
    network: Network, user: User | None, login: Login | EnterFiles, *, spki: bytes, nonce: bytes
) -> bool:
    """Whether a proof is signed by the device that it names; of nobody it takes as long to say no."""
    return identity.bears_device(
        network,
        user or nobody(),
        spki=spki,
        nonce=nonce,
        device=login.device,
        epoch=login.epoch,
        device_signature=login.device_signature,
    )
