"""The Double Ratchet with header encryption, and a sparse KEM ratchet mixed into its root.

The words and the steps are those of Signal's "The Double Ratchet Algorithm", section 4 (header encryption):
DHs, DHr, RK, CKs, CKr, HKs, HKr, NHKs, NHKr, Ns, Nr, PN, MKSKIPPED. As its section on the recovery from
compromise advises, a new ratchet key pair is drawn only when something is sent, not when its turn comes.

The KEM ratchet: about every fifty messages the initiator offers a fresh ML-KEM-768 key inside of a message;
the responder answers with an encapsulation inside of one of its own; with its next new sending chain the
initiator mixes the shared secret into the root and says so in the header's epoch. Every message of that
chain carries the epoch, and the responder made the secret itself, so whichever message comes first suffices.
Loss costs a repetition, never the session.

A state is a frozen value. `encrypt` and `decrypt` give a new one; what fails raises and leaves the old one as
it was. Whoever calls must keep the new state before he sends or shows what came out with it.

This module knows neither people nor prekeys (`pqxdh`) nor messages' meaning (`content`).
"""

from __future__ import annotations

import hmac
import os
import struct
from collections.abc import Mapping
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from chatchain.crypto import derive, x25519
from chatchain.errors import BadRecord, LimitReached, Undecryptable

MAX_SKIP: Final = 1000
"""Message keys that one message may make us derive in one chain (the specification's constant)."""

MAX_LOSSY: Final = 100
"""Messages of one sending chain after which none is sent on it that may get lost: far below MAX_SKIP, so that
the reader always finds the way to the next one.
"""

MAX_KEPT: Final = 2000
"""Skipped message keys kept in all; the oldest go first."""

MAX_STALE: Final = 8
"""Receiving chains, besides the current one, whose skipped keys are kept: each costs a trial decryption."""

SKIPPED_LIFETIME: Final = 30 * 24 * 3600
"""Seconds until a skipped message key is deleted, so that what was lost for good does not stay readable."""

KEM_INTERVAL: Final = 50
"""Messages, in both directions, between two KEM steps."""

REPEAT_AFTER: Final = 10
"""Messages sent since a KEM field until it may be repeated; only a new sending chain repeats it."""

_ROOT_LABEL: Final = b"chatchain/2 ratchet root"
_ZERO_NONCE: Final = bytes(12)
_HEADER: Final = struct.Struct(">32sIIHB")
"""DHs public, PN, N, KEM epoch, KEM field."""
_HEADER_NONCE: Final = 16
_TAG: Final = 16
SEALED_HEADER_BYTES: Final = _HEADER_NONCE + _HEADER.size + _TAG
OVERHEAD_BYTES: Final = SEALED_HEADER_BYTES + _TAG
"""What a message without a KEM field is longer than its plaintext."""

_MAX_INDEX: Final = 2**32 - 2
_EPOCHS: Final = 2**16

_NO_FIELD, _KEY_OFFERED, _KEY_ANSWERED = 0, 1, 2
KEM_PUBLIC_BYTES: Final = 1184
KEM_CIPHERTEXT_BYTES: Final = 1088
_KEM_SEED_BYTES: Final = 64
_FIELD_BYTES: Final = {_NO_FIELD: 0, _KEY_OFFERED: KEM_PUBLIC_BYTES, _KEY_ANSWERED: KEM_CIPHERTEXT_BYTES}

_AT_ONCE: Final = 255
"""`quiet` of a KEM field that has not been sent yet."""


class Profile(msgspec.Struct, frozen=True):
    """Which parts of the ratchet are in use; every session has SUITE_2."""

    name: str
    header_encryption: bool
    kem_interval: int


SUITE_2: Final = Profile("suite 2", header_encryption=True, kem_interval=KEM_INTERVAL)
BARE: Final = Profile("bare", header_encryption=False, kem_interval=0)
"""The plain Double Ratchet, to be compared with other implementations; it can neither be saved nor loaded."""


class Skipped(msgspec.Struct, frozen=True):
    """MKSKIPPED of one receiving chain: message key and time of storing (s) by index, the oldest first."""

    header_key: bytes
    keys: Mapping[int, tuple[bytes, int]]


class Ratchet(msgspec.Struct, frozen=True):
    """One side's state. Empty bytes stand for the specification's None."""

    initiator: bool
    ad: bytes
    """32 bytes that bind every message to the session (`pqxdh`)."""
    rk: bytes
    dhs: bytes
    dhs_public: bytes
    dhr: bytes
    cks: bytes
    ckr: bytes
    hks: bytes
    hkr: bytes
    nhks: bytes
    nhkr: bytes
    ns: int = 0
    nr: int = 0
    pn: int = 0
    skipped: tuple[Skipped, ...] = ()
    epoch: int = 0
    """KEM secrets that are mixed into the root, modulo 2^16."""
    since: int = 0
    """Messages since the last KEM step."""
    quiet: int = _AT_ONCE
    """Messages sent since the KEM field was, for deciding on a repetition."""
    kem_seed: bytes = b""
    """The initiator's offered key, until it is answered."""
    kem_answer: bytes = b""
    """The responder's encapsulation, until it shows in a header's epoch."""
    kem_secret: bytes = b""
    """The shared secret that waits to be mixed in."""
    profile: Profile = SUITE_2

    def __repr__(self) -> str:
        return "Ratchet(…)"


class SharedKeys(msgspec.Struct, frozen=True):
    """What a key agreement hands to both sides: SK and the two shared header keys, and the AD's 32 bytes."""

    sk: bytes
    hka: bytes
    nhkb: bytes
    ad: bytes

    def __repr__(self) -> str:
        return "SharedKeys(…)"


def initiate(keys: SharedKeys, dhr: bytes, profile: Profile = SUITE_2) -> Ratchet:
    """RatchetInitAliceHE: `dhr` is the responder's ratchet public key (its signed prekey)."""
    dhs = os.urandom(32)
    rk, cks, nhks = _kdf_rk(keys.sk, x25519.agree(dhs, dhr))
    plain = not profile.header_encryption
    return Ratchet(
        initiator=True,
        ad=keys.ad,
        rk=rk,
        dhs=dhs,
        dhs_public=x25519.public_of(dhs),
        dhr=dhr,
        cks=cks,
        ckr=b"",
        hks=b"" if plain else keys.hka,
        hkr=b"",
        nhks=b"" if plain else nhks,
        nhkr=b"" if plain else keys.nhkb,
        profile=profile,
    )


def respond(keys: SharedKeys, dhs: bytes, profile: Profile = SUITE_2) -> Ratchet:
    """RatchetInitBobHE: `dhs` is the secret of the ratchet key that the initiator used."""
    plain = not profile.header_encryption
    return Ratchet(
        initiator=False,
        ad=keys.ad,
        rk=keys.sk,
        dhs=dhs,
        dhs_public=b"",
        dhr=b"",
        cks=b"",
        ckr=b"",
        hks=b"",
        hkr=b"",
        nhks=b"" if plain else keys.nhkb,
        nhkr=b"" if plain else keys.hka,
        profile=profile,
    )


def encrypt(state: Ratchet, plaintext: bytes, ad: bytes) -> tuple[Ratchet, bytes]:
    """RatchetEncryptHE: gives the next state and the message; `ad` is bound and not sent."""
    new = state if state.cks else _begin_sending(state)
    if new.ns > _MAX_INDEX:
        raise LimitReached("This session has sent all the messages that it can.", "A new session begins one.")
    kind, field, quiet, seed = _kem_to_send(new)
    header = _HEADER.pack(new.dhs_public, new.pn, new.ns, new.epoch, kind)
    sealed = _seal_header(new, header)
    cks, mk = _kdf_ck(new.cks)
    # A message key seals one message only, so a fixed nonce is never used twice with it.
    body = AESGCM(mk).encrypt(_ZERO_NONCE, field + plaintext, new.ad + sealed + ad)
    after = msgspec.structs.replace(
        new, cks=cks, ns=new.ns + 1, since=min(new.since + 1, _EPOCHS - 1), quiet=quiet, kem_seed=seed
    )
    return after, sealed + body


def decrypt(state: Ratchet, message: bytes, ad: bytes, now: int) -> tuple[Ratchet, bytes]:
    """RatchetDecryptHE: gives the next state and the plaintext; raises Undecryptable.

    `now`, in seconds, stamps the keys of messages that were jumped over and expires old ones.
    """
    size = SEALED_HEADER_BYTES if state.profile.header_encryption else _HEADER.size
    if len(message) < size + _TAG:
        raise Undecryptable("The message is too short for one of this session.")
    sealed, body = message[:size], message[size:]
    chain, header = _open_header(state, sealed)
    dh, pn, n, epoch, kind = _HEADER.unpack(header)
    if kind not in _FIELD_BYTES:
        raise Undecryptable("The message's header holds a field that this program does not know.")

    if chain is not None and (chain != _receiving_chain(state) or n < state.nr):
        new, mk = _take_skipped(state, chain, n, now)
    else:
        new = state if chain is not None else _begin_receiving(_skip(state, pn, now), dh, epoch)
        new = _skip(new, n, now)
        ckr, mk = _kdf_ck(new.ckr)
        new = msgspec.structs.replace(new, ckr=ckr, nr=new.nr + 1)
    try:
        inside = AESGCM(mk).decrypt(_ZERO_NONCE, body, state.ad + sealed + ad)
    except InvalidTag:
        raise Undecryptable("The message was altered on its way.") from None
    length = _FIELD_BYTES[kind]
    if len(inside) < length:
        raise Undecryptable("The message's KEM field is truncated.")
    new = _kem_received(new, kind, inside[:length], epoch)
    new = msgspec.structs.replace(
        new, since=min(new.since + 1, _EPOCHS - 1), skipped=_expired(new.skipped, now) if new.skipped else ()
    )
    return new, inside[length:]


def may_be_lost(state: Ratchet) -> bool:
    """Whether the next message may get lost without harm to those that follow."""
    return not state.cks or state.ns < MAX_LOSSY


# --- KDFs -----------------------------------------------------------------------------------------------


def _kdf_rk(rk: bytes, dh_out: bytes) -> tuple[bytes, bytes, bytes]:
    """KDF_RK_HE: root key, chain key, next header key."""
    out = derive.hkdf(dh_out, _ROOT_LABEL, 96, salt=rk)
    return out[:32], out[32:64], out[64:]


def _kdf_ck(ck: bytes) -> tuple[bytes, bytes]:
    """KDF_CK: next chain key, message key."""
    return hmac.digest(ck, b"\x02", "sha256"), hmac.digest(ck, b"\x01", "sha256")


# --- the DH ratchet: DHRatchetHE in its two halves ------------------------------------------------------


def _begin_sending(state: Ratchet) -> Ratchet:
    if not state.dhr:
        raise ValueError("the responder sends only after it has received")
    dhs = os.urandom(32)
    # The initiator's KEM secret enters here: the responder made it, so it can follow from any message.
    mixes = state.initiator and bool(state.kem_secret)
    secret = state.kem_secret if mixes else b""
    rk, cks, nhks = _kdf_rk(state.rk, x25519.agree(dhs, state.dhr) + secret)
    plain = not state.profile.header_encryption
    return msgspec.structs.replace(
        state,
        rk=rk,
        dhs=dhs,
        dhs_public=x25519.public_of(dhs),
        cks=cks,
        hks=state.nhks,
        nhks=b"" if plain else nhks,
        pn=state.ns,
        ns=0,
        epoch=(state.epoch + mixes) % _EPOCHS,
        since=0 if mixes else state.since,
        kem_secret=b"" if mixes else state.kem_secret,
    )


def _begin_receiving(state: Ratchet, dh: bytes, epoch: int) -> Ratchet:
    if not state.dhs:
        # Our last key was answered already; a new chain can only answer a key that we have not sent yet.
        raise Undecryptable("The message begins a chain out of turn.")
    mixes = not state.initiator and bool(state.kem_secret) and epoch == (state.epoch + 1) % _EPOCHS
    if not mixes and epoch != state.epoch:
        raise Undecryptable("The message is of another KEM epoch than this session.")
    secret = state.kem_secret if mixes else b""
    try:
        rk, ckr, nhkr = _kdf_rk(state.rk, x25519.agree(state.dhs, dh) + secret)
    except BadRecord:
        raise Undecryptable("The message's ratchet key is of small order.") from None
    plain = not state.profile.header_encryption
    return msgspec.structs.replace(
        state,
        rk=rk,
        # This half of the old pair is not needed again; the next is drawn when something is sent.
        dhs=b"",
        dhs_public=b"",
        dhr=dh,
        cks=b"",
        ckr=ckr,
        hkr=state.nhkr,
        nhkr=b"" if plain else nhkr,
        nr=0,
        epoch=epoch,
        since=0 if mixes else state.since,
        kem_secret=b"" if mixes else state.kem_secret,
        kem_answer=b"" if mixes else state.kem_answer,
    )


# --- headers: HENCRYPT, DecryptHeader -------------------------------------------------------------------


def _seal_header(state: Ratchet, header: bytes) -> bytes:
    if not state.profile.header_encryption:
        return header
    # One header key seals a whole chain: the specification asks for a random nonce of 128 bits.
    nonce = os.urandom(_HEADER_NONCE)
    return nonce + AESGCM(state.hks).encrypt(nonce, header, None)


def _open_header(state: Ratchet, sealed: bytes) -> tuple[bytes | None, bytes]:
    """Gives the chain that the header belongs to (None: the next) and the header; raises Undecryptable."""
    current = _receiving_chain(state)
    known = (current, *(chain.header_key for chain in state.skipped if chain.header_key != current))
    if not state.profile.header_encryption:
        dh = sealed[:32]
        return (dh if dh in known else None), sealed
    if current and (header := _try_header(current, sealed)):
        return current, header
    if state.nhkr and (header := _try_header(state.nhkr, sealed)):
        return None, header
    for key in known[1:]:
        if header := _try_header(key, sealed):
            return key, header
    raise Undecryptable("The message belongs to no chain of this session, or was altered on its way.")


def _try_header(key: bytes, sealed: bytes) -> bytes:
    try:
        return AESGCM(key).decrypt(sealed[:_HEADER_NONCE], sealed[_HEADER_NONCE:], None)
    except InvalidTag:
        return b""


def _receiving_chain(state: Ratchet) -> bytes:
    """What names the current receiving chain; empty while there is none."""
    if not state.ckr:
        return b""
    return state.hkr if state.profile.header_encryption else state.dhr


# --- MKSKIPPED ------------------------------------------------------------------------------------------


def _skip(state: Ratchet, until: int, now: int) -> Ratchet:
    """SkipMessageKeysHE."""
    if until <= state.nr or not state.ckr:
        return state
    if until - state.nr > MAX_SKIP:
        raise Undecryptable(f"The message jumps over more than {MAX_SKIP} others.")
    ckr, fresh = state.ckr, {}
    for n in range(state.nr, until):
        ckr, mk = _kdf_ck(ckr)
        fresh[n] = (mk, now)
    chain = _receiving_chain(state)
    others = [each for each in state.skipped if each.header_key != chain]
    mine = next((each.keys for each in state.skipped if each.header_key == chain), {})
    # The current chain stands last, so the order of chains is the order of their age.
    skipped = _bounded((*others, Skipped(chain, {**mine, **fresh})))
    return msgspec.structs.replace(state, ckr=ckr, nr=until, skipped=skipped)


def _bounded(chains: tuple[Skipped, ...]) -> tuple[Skipped, ...]:
    """Drops the oldest keys beyond the limits."""
    chains = chains[-(MAX_STALE + 1) :]
    surplus = sum(len(chain.keys) for chain in chains) - MAX_KEPT
    if surplus <= 0:
        return chains
    kept = []
    for chain in chains:
        drop = min(max(surplus, 0), len(chain.keys))
        surplus -= drop
        if drop < len(chain.keys):
            kept.append(Skipped(chain.header_key, dict(list(chain.keys.items())[drop:])))
    return tuple(kept)


def _take_skipped(state: Ratchet, header_key: bytes, n: int, now: int) -> tuple[Ratchet, bytes]:
    """TrySkippedMessageKeysHE, once the header key is known."""
    keys = next((dict(chain.keys) for chain in state.skipped if chain.header_key == header_key), {})
    mk, stored = keys.pop(n, (b"", 0))
    if not mk or stored < now - SKIPPED_LIFETIME:
        raise Undecryptable("The message was decrypted before, or its key has expired.")
    return msgspec.structs.replace(state, skipped=_with_keys(state.skipped, header_key, keys)), mk


def _expired(chains: tuple[Skipped, ...], now: int) -> tuple[Skipped, ...]:
    oldest = now - SKIPPED_LIFETIME
    for chain in chains:
        if next(iter(chain.keys.values()))[1] < oldest:
            kept = {n: (mk, stored) for n, (mk, stored) in chain.keys.items() if stored >= oldest}
            chains = _with_keys(chains, chain.header_key, kept)
    return chains


def _with_keys(
    chains: tuple[Skipped, ...], header_key: bytes, keys: Mapping[int, tuple[bytes, int]]
) -> tuple[Skipped, ...]:
    """Replaces one chain's keys; a chain without keys goes."""
    changed = (Skipped(header_key, keys) if chain.header_key == header_key else chain for chain in chains)
    return tuple(chain for chain in changed if chain.keys)


# --- the KEM ratchet ------------------------------------------------------------------------------------


def _kem_to_send(state: Ratchet) -> tuple[int, bytes, int, bytes]:
    """Gives the field's kind and bytes, the new `quiet`, and the initiator's seed."""
    quiet, seed = state.quiet, state.kem_seed
    if state.initiator and not seed and not state.kem_secret:
        if not 0 < state.profile.kem_interval <= state.since:
            return _NO_FIELD, b"", quiet, b""
        seed, quiet = os.urandom(_KEM_SEED_BYTES), _AT_ONCE
    if not seed and not state.kem_answer:
        return _NO_FIELD, b"", quiet, seed
    # A new sending chain shows that the other side has been heard since, and yet the field is still open.
    if quiet != _AT_ONCE and (state.ns > 0 or quiet < REPEAT_AFTER):
        return _NO_FIELD, b"", min(quiet + 1, _AT_ONCE - 1), seed
    if seed:
        public = MLKEM768PrivateKey.from_seed_bytes(seed).public_key().public_bytes_raw()
        return _KEY_OFFERED, public, 0, seed
    return _KEY_ANSWERED, state.kem_answer, 0, seed


def _kem_received(state: Ratchet, kind: int, field: bytes, epoch: int) -> Ratchet:
    """Takes an offer or an answer of the present epoch; a repeated or late one changes nothing."""
    if kind == _NO_FIELD or epoch != state.epoch or state.kem_secret:
        return state
    if kind == _KEY_OFFERED and not state.initiator:
        try:
            secret, answer = MLKEM768PublicKey.from_public_bytes(field).encapsulate()
        except ValueError:
            raise Undecryptable("The message offers a malformed KEM key.") from None
        return msgspec.structs.replace(state, kem_secret=secret, kem_answer=answer, quiet=_AT_ONCE)
    if kind == _KEY_ANSWERED and state.initiator and state.kem_seed:
        secret = MLKEM768PrivateKey.from_seed_bytes(state.kem_seed).decapsulate(field)
        return msgspec.structs.replace(state, kem_secret=secret, kem_seed=b"")
    return state


# --- the saved state: docs/protocol.md ------------------------------------------------------------------

STATE_VERSION: Final = 1

_FIXED: Final = struct.Struct(">BBHIIIHHB32s32sB")
"""Version, initiator, which of _OPTIONAL follow, Ns, Nr, PN, epoch, since, quiet, AD, RK, skipped chains."""
_OPTIONAL: Final = (
    ("dhs", 32),
    ("dhs_public", 32),
    ("dhr", 32),
    ("cks", 32),
    ("ckr", 32),
    ("hks", 32),
    ("hkr", 32),
    ("nhks", 32),
    ("nhkr", 32),
    ("kem_secret", 32),
    ("kem_seed", _KEM_SEED_BYTES),
    ("kem_answer", KEM_CIPHERTEXT_BYTES),
)
_CHAIN: Final = struct.Struct(">32sH")
_KEY: Final = struct.Struct(">IQ32s")


def encode_ratchet(state: Ratchet) -> bytes:
    """Gives the state's bytes, for the encrypted database."""
    if state.profile != SUITE_2:
        raise ValueError("only a session of suite 2 is ever saved")
    values = [getattr(state, name) for name, _ in _OPTIONAL]
    present = sum(1 << position for position, value in enumerate(values) if value)
    fixed = _FIXED.pack(
        STATE_VERSION,
        state.initiator,
        present,
        state.ns,
        state.nr,
        state.pn,
        state.epoch,
        state.since,
        state.quiet,
        state.ad,
        state.rk,
        len(state.skipped),
    )
    parts = [fixed, *values]
    for chain in state.skipped:
        parts.append(_CHAIN.pack(chain.header_key, len(chain.keys)))
        parts += [_KEY.pack(n, stored, mk) for n, (mk, stored) in chain.keys.items()]
    return b"".join(parts)


def decode_ratchet(data: bytes) -> Ratchet:
    """Reads what `encode_ratchet` wrote, now or in an older version; raises BadRecord."""
    read = READERS.get(data[0]) if data else None
    if read is None:
        raise BadRecord("The saved session is empty, or of a newer program than this one.")
    try:
        return read(data)
    except (struct.error, ValueError) as exc:
        raise BadRecord("The saved session is damaged.") from exc


def _read_1(data: bytes) -> Ratchet:
    _, initiator, present, ns, nr, pn, epoch, since, quiet, ad, rk, chains = _FIXED.unpack_from(data)
    if initiator > 1 or present >> len(_OPTIONAL) or chains > MAX_STALE + 1:
        raise ValueError("impossible field")
    position = _FIXED.size
    values: dict[str, bytes] = {}
    for bit, (name, length) in enumerate(_OPTIONAL):
        if present >> bit & 1:
            values[name] = data[position : position + length]
            position += length
        else:
            values[name] = b""
    if position > len(data):
        raise ValueError("truncated")
    skipped, kept = [], 0
    for _ in range(chains):
        header_key, count = _CHAIN.unpack_from(data, position)
        position += _CHAIN.size
        kept += count
        if not count or kept > MAX_KEPT:
            raise ValueError("impossible count")
        end = position + count * _KEY.size
        keys = {n: (mk, stored) for n, stored, mk in _KEY.iter_unpack(data[position:end])}
        if len(keys) != count:
            raise ValueError("truncated or repeated")
        skipped.append(Skipped(header_key, keys))
        position = end
    if position != len(data):
        raise ValueError("tail")
    return Ratchet(
        initiator=bool(initiator),
        ad=ad,
        rk=rk,
        dhs=values["dhs"],
        dhs_public=values["dhs_public"],
        dhr=values["dhr"],
        cks=values["cks"],
        ckr=values["ckr"],
        hks=values["hks"],
        hkr=values["hkr"],
        nhks=values["nhks"],
        nhkr=values["nhkr"],
        ns=ns,
        nr=nr,
        pn=pn,
        skipped=tuple(skipped),
        epoch=epoch,
        since=since,
        quiet=quiet,
        kem_seed=values["kem_seed"],
        kem_answer=values["kem_answer"],
        kem_secret=values["kem_secret"],
    )


READERS: Final = {1: _read_1}
"""A reader for each version that was ever written; each gives today's state."""
