"""A key bundle counts only when the chain's hash and the device's signature vouch for it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from chatchain.crypto.bundle import CLOCK_SKEW, LIFETIME, check_bundle, make_bundle
from chatchain.errors import BadRecord
from chatchain.identity.record import device_record
from chatchain.model import KeyBundle
from tests.identity.people import BLOCK_TIME, NETWORK, OTHER_NETWORK, OTHER_REGISTRY, person

ADA = person("ada")
BOB = person("bob")
RECORD = device_record(NETWORK, ADA.user, ADA.user.devices[0])
NOW = BLOCK_TIME
BUNDLE = make_bundle(NETWORK, ADA.secrets(), uid=ADA.uid, device=1, version=1, now=NOW)


def check(bundle: KeyBundle = BUNDLE, now: int = NOW) -> bytes:
    """Checks a bundle against Ada's record."""
    return check_bundle(NETWORK, bundle, RECORD, ADA.uid, now)


def test_a_right_bundle_gives_the_kem_key() -> None:
    """From a day before its time until it expires."""
    for now in (NOW - CLOCK_SKEW, NOW, NOW + LIFETIME - 1):
        assert check(now=now) == ADA.secrets().kem_public


@pytest.mark.parametrize(("now", "why"), [(NOW + LIFETIME, "expired"), (NOW - CLOCK_SKEW - 1, "future")])
def test_a_bundle_outside_of_its_time_is_refused(now: int, why: str) -> None:
    """A relay cannot serve a withdrawn key for ever."""
    with pytest.raises(BadRecord, match=why):
        check(now=now)


@pytest.mark.parametrize(
    "changed",
    [
        {"uid": BOB.uid},
        {"device": 2},
        {"version": 2},
        {"kem_public": BOB.secrets().kem_public},
        {"kem_public": b""},
        {"kem_public": BUNDLE.kem_public[:-1] + bytes([BUNDLE.kem_public[-1] ^ 1])},
        {"issued": NOW - 1},
        {"expires": NOW + LIFETIME + 1},
        {"expires": -1},
        {"issued": 2**64},
        {"signature": b""},
        {"signature": bytes(64)},
        {"signature": BUNDLE.signature[:-1] + bytes([BUNDLE.signature[-1] ^ 1])},
    ],
)
def test_an_altered_bundle_is_refused(changed: dict[str, Any]) -> None:
    """Every field is bound by the chain or by the signature."""
    with pytest.raises(BadRecord):
        check(msgspec.structs.replace(BUNDLE, **changed))


def test_a_swapped_key_is_refused_though_its_owner_signed() -> None:
    """A relay that swaps in its own key, properly signed with its own device key."""
    mallory = make_bundle(NETWORK, BOB.secrets(), uid=ADA.uid, device=1, version=1, now=NOW)
    with pytest.raises(BadRecord, match="hash on the chain"):
        check(mallory)


@pytest.mark.parametrize("network", [OTHER_NETWORK, OTHER_REGISTRY])
def test_a_bundle_of_another_network_is_refused(network: Any) -> None:
    """The same device keys elsewhere."""
    other = make_bundle(network, ADA.secrets(), uid=ADA.uid, device=1, version=1, now=NOW)
    with pytest.raises(BadRecord, match="not signed"):
        check(other)


def test_a_bundle_of_the_version_before_is_refused() -> None:
    """After a rotation the old key is no longer sealed to."""
    record = device_record(NETWORK, ADA.rotated().user, ADA.rotated().user.devices[0])
    with pytest.raises(BadRecord, match="key version"):
        check_bundle(NETWORK, BUNDLE, record, ADA.uid, NOW)
