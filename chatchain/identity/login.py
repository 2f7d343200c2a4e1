"""The login proof: two signatures over one EIP-712 `Login` that binds the relay's certificate and its nonce.

The login key comes from the password (and the account secret); the chain holds only `verifier`, a hash of its
public key and of the KDF parameters. The device's signer shows the second factor: this device. Nothing
password-equivalent travels.
"""

from __future__ import annotations

import hmac

import msgspec

from chatchain.errors import LoginRefused, VerificationError
from chatchain.identity.keys import address_of_public, keccak256, public_key, recover_public, sign_digest
from chatchain.identity.typed_data import login_digest
from chatchain.model import Address, Device, DeviceState, Network, User

MAX_KDF_BYTES = 64
"""The registry's limit for the public KDF parameters."""


class LoginProof(msgspec.Struct, frozen=True):
    """Both signatures, 65 bytes each, as the Login message carries them."""

    login_signature: bytes
    device_signature: bytes


def verifier_of(login_public: bytes, kdf: bytes) -> bytes:
    """Gives what the chain holds instead of a password: keccak256(login public key, 64 bytes ‖ KDF bytes)."""
    if len(login_public) != 64:
        raise ValueError("the login public key has 64 bytes")
    return keccak256(login_public + kdf)


def verifier_for(login_key: bytes, kdf: bytes) -> bytes:
    """Gives the verifier of a login key (its secret, 32 bytes)."""
    return verifier_of(public_key(login_key), kdf)


def login_proof(
    network: Network,
    *,
    spki: bytes,
    nonce: bytes,
    uid: int,
    device: int,
    epoch: int,
    login_key: bytes,
    signer: bytes,
) -> LoginProof:
    """Signs the relay's challenge with the login key and the device's signer (both secrets, 32 bytes)."""
    digest = login_digest(network, spki, nonce, uid, device, epoch)
    return LoginProof(sign_digest(login_key, digest), sign_digest(signer, digest))


def check_login(
    network: Network,
    user: User,
    *,
    spki: bytes,
    nonce: bytes,
    device: int,
    epoch: int,
    kdf: bytes,
    login_signature: bytes,
    device_signature: bytes,
) -> Device:
    """Gives the device that this proof logs in; raises LoginRefused with the reason.

    `spki` and `nonce` are the relay's own, never what the client sent, so a proof made for another server or
    connection fails. `user` is the relay's view of the chain.
    """
    if len(kdf) > MAX_KDF_BYTES:
        raise LoginRefused("The login proof is malformed.")
    found = next((d for d in user.devices if d.device == device), None)
    if found is None or found.state is DeviceState.NONE:
        raise LoginRefused(f"The chain lists no device {device} of {user.username}.")
    if found.state is DeviceState.REVOKED:
        raise LoginRefused(f"Device {device} of {user.username} has been revoked.")
    if epoch != user.epoch:
        raise LoginRefused("The login proof was made for another epoch of the account.")
    digest = login_digest(network, spki, nonce, user.uid, device, epoch)
    try:
        login_public = recover_public(digest, login_signature)
        device_public = recover_public(digest, device_signature)
    except VerificationError as exc:
        raise LoginRefused(f"The login proof is malformed. {exc.message}") from exc
    # Both are compared before either is judged: the answer's time says nothing about which of them failed.
    password_holds = hmac.compare_digest(verifier_of(login_public, kdf), user.verifier)
    device_holds = hmac.compare_digest(address_of_public(device_public), found.current.signer)
    if not device_holds:
        raise LoginRefused(
            f"The proof is not signed by device {device} of {user.username} for this connection."
        )
    if not password_holds:
        raise LoginRefused("The password's key does not match the verifier on the chain.")
    return found


def bears_device(
    network: Network,
    user: User,
    *,
    spki: bytes,
    nonce: bytes,
    device: int,
    epoch: int,
    device_signature: bytes,
) -> bool:
    """Whether the device that a proof names has signed it: whoever it is has that, if not the password."""
    digest = login_digest(network, spki, nonce, user.uid, device, epoch)
    try:
        signer = address_of_public(recover_public(digest, device_signature))
    except VerificationError:
        return False
    named = (found.current.signer for found in user.active_devices if found.device == device)
    return hmac.compare_digest(signer, next(named, Address(bytes(20))))
