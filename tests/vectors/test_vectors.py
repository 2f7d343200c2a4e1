"""The checked-in vectors hold: each case ends as it says."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from chatchain.client.handover import open_history
from chatchain.crypto import bundle, card, content, linking, padding, phrase, rsa, safety, sealed, vault
from chatchain.crypto.attachments import Sealer
from chatchain.crypto.content import Text, Unsupported
from chatchain.crypto.device import KemSecret
from chatchain.crypto.keystore import account_secret_in
from chatchain.crypto.password import decode_kdf, login_key, vault_key
from chatchain.errors import ChatchainError, RefusedError
from chatchain.identity import admission, ed25519, keys, names, typed_data
from chatchain.identity.login import check_login
from chatchain.identity.record import decode_record, encode_record, verify_record
from chatchain.model import Address, Call, Delivery, KeyBundle, Kind, Network, Reason, Uid
from tests.crypto.rsa_people import SECRETS, rsa_user
from tests.identity.people import person

HERE = Path(__file__).parent
PROTOCOL = HERE.parent.parent / "docs" / "protocol.md"
Case = dict[str, Any]
ADA = person("ada")


def unhexed(case: Case, *fields: str) -> list[bytes]:
    """The fields that stand in the file as hex."""
    return [bytes.fromhex(case[field]) for field in fields]


def network_of(file: Case) -> Network:
    """The deployment that a file's signatures are bound to."""
    fields = file["network"]
    directory, registry, membership = unhexed(fields, "directory", "registry", "membership")
    return Network(fields["chain_id"], Address(directory), Address(registry), Address(membership))


def check_name(_: Network, case: Case) -> None:
    if case["kind"] == "name":
        assert names.normalise_username(case["typed"]) == case["name"]
    else:
        assert names.uid_from_text(case["typed"]) == case["uid"]


def check_digest(network: Network, case: Case) -> None:
    if case["name"] == "propose":
        group, kind, subject, reason, *rest = case["values"]
        values = [group, Kind(kind), subject, Reason(reason), *rest]
    else:
        kinds = getattr(typed_data, case["name"].upper())
        fields = [field.split(" ")[0] for field in kinds[kinds.index("(") + 1 : -1].split(",")]
        binary = ("address", "bytes", "bytes32")
        values = [
            bytes.fromhex(v) if kind in binary else v for kind, v in zip(fields, case["values"], strict=True)
        ]
    digest, secret, signature, address = unhexed(case, "digest", "secret", "signature", "address")
    assert getattr(typed_data, case["name"] + "_digest")(network, *values) == digest
    assert keys.sign_digest(secret, digest) == signature
    assert keys.recover(digest, signature) == address


def check_record(network: Network, case: Case) -> None:
    data, account, signer = unhexed(case, "record", "account", "signer")
    found = verify_record(
        data, network, Address(account), case["uid"], case["device"], case["version"], Address(signer)
    )
    assert encode_record(found) == data


def check_login_proof(network: Network, case: Case) -> None:
    spki, nonce, kdf, verifier, signer = unhexed(case, "spki", "nonce", "kdf", "verifier", "signer")
    login_signature, device_signature = unhexed(case, "login_signature", "device_signature")
    entry = msgspec.structs.replace(ADA.user.devices[0].current, signer=Address(signer))
    device = msgspec.structs.replace(ADA.user.devices[0], history=(entry,))
    user = msgspec.structs.replace(ADA.user, uid=Uid(case["uid"]), verifier=verifier, devices=(device,))
    found = check_login(
        network,
        user,
        spki=spki,
        nonce=nonce,
        device=case["device"],
        epoch=case["epoch"],
        kdf=kdf,
        login_signature=login_signature,
        device_signature=device_signature,
    )
    assert found == device


def check_password(_: Network, case: Case) -> None:
    kdf, secret, login, vault_ = unhexed(case, "kdf", "account_secret", "login_key", "vault_key")
    assert login_key(case["password"], secret, kdf) == login
    assert vault_key(case["password"], decode_kdf(kdf)) == vault_


def check_vault(_: Network, case: Case) -> None:
    if "vault" in case:
        found = vault.open_vault(bytes.fromhex(case["vault"]), case["password"])
        assert {field: getattr(found, field).hex() for field in case["secrets"]} == case["secrets"]
    else:
        data, key = unhexed(case, "account_file", "keystore_key")
        assert vault.open_account_key(key, data).hex() == case["account_key"]


def check_keystore(_: Network, case: Case) -> None:
    ours = {"crypto": {"kdfparams": {}}, "chatchain": {"account_secret": case["sealed"]}}
    found = account_secret_in(json.dumps(ours), bytes.fromhex(case["account_key"]))
    if found is None:
        raise RefusedError("It carries none for this key.")
    assert found.hex() == case["account_secret"]


def check_phrase(_: Network, case: Case) -> None:
    found = phrase.keys_of(case["phrase"])
    assert keys.to_checksum(keys.address_of(found.account_key)) == case["account"]
    assert found.account_secret.hex() == case["account_secret"]


def check_padding(_: Network, case: Case) -> None:
    if "padded" in case:
        padding.unpad(bytes.fromhex(case["padded"]))
    else:
        padded = padding.pad(bytes.fromhex(case["data"]))
        assert len(padded) == case["padded_length"]
        assert padding.unpad(padded).hex() == case["data"]


def check_content(_: Network, case: Case) -> None:
    data = bytes.fromhex(case["content"])
    found = content.decode(data)
    fields = msgspec.to_builtins(msgspec.structs.asdict(found), builtin_types=(bytes,))
    assert (type(found).__name__, json.loads(json.dumps(fields, default=bytes.hex))) == (
        case["kind"],
        case["fields"],
    )
    if not isinstance(found, Unsupported):
        assert content.encode(found) == data


def check_sealed(network: Network, case: Case) -> None:
    id_, header, body, seed, sender_key = unhexed(case, "id", "header", "body", "kem_seed", "sender_key")
    delivery = Delivery(
        1, id_, case["suite"], case["sender"], case["sender_device"], case["recipient"], 0, header, body
    )
    found = sealed.open_(
        network,
        delivery,
        uid=case["reader"],
        device=case["reader_device"],
        keys=[KemSecret(seed)],
        resolve=lambda *_: sender_key,
    )
    assert found == sealed.Opened(Text(case["text"]), case["time_ms"], case["version"])
    info, inside, signed = unhexed(case, "info", "inside", "signed")
    suite = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
    assert suite.decrypt(header, KemSecret(seed).private, info) == inside
    assert ed25519.verify(sender_key, inside[44:], signed)


def check_bundle(network: Network, case: Case) -> None:
    data, account, signer, public, signature = unhexed(
        case, "record", "account", "signer", "kem_public", "signature"
    )
    record = verify_record(data, network, Address(account), case["record_uid"], 1, 1, Address(signer))
    shown = KeyBundle(
        case["uid"], case["device"], case["version"], public, case["issued"], case["expires"], signature
    )
    assert bundle.check_bundle(network, shown, record, case["record_uid"], case["now"]) == public


def check_card(network: Network, case: Case) -> None:
    found = card.decode_card(case["card"])
    card.verify_card(found, network, ADA.user)
    key = decode_record(ADA.user.devices[0].current.record).ed25519
    assert ed25519.verify(key, found.signature, *unhexed(case, "signed"))


def check_admission(network: Network, case: Case) -> None:
    (shown,) = unhexed(case, "admission")
    if case["kind"] == "work":
        nonce, data = unhexed(case, "nonce", "data")
        held = admission.shows_work(shown, nonce, case["ref"], Call(case["contract"], data), case["bits"])
    else:
        found = admission.parse_invitation(case["text"])
        assert found == admission.decode_invitation(shown)
        digest, account = unhexed(case, "digest", "account")
        held = found.digest(network, case["epoch"]) == digest
        assert keys.recover(digest, found.signature) == account
    if not held:
        raise RefusedError("It does not let this in.")


def check_history(_: Network, case: Case) -> None:
    (data,) = unhexed(case, "history")
    sealer = Sealer(len(data))
    blob = sealer.update(data)
    end, file = sealer.finish()
    told = open_history(file, blob + end)
    assert json.loads(json.dumps(msgspec.to_builtins(told))) == case["fields"]


def check_safety(_: Network, case: Case) -> None:
    sides = [
        msgspec.structs.replace(
            ADA.user, uid=Uid(case[side]["uid"]), account=Address(bytes.fromhex(case[side]["account"]))
        )
        for side in ("mine", "theirs")
    ]
    assert safety.safety_number(sides[0], sides[1]) == case["number"]
    assert safety.qr_payload(sides[0], sides[1]).hex() == case["qr"]


def check_link(network: Network, case: Case) -> None:
    request = linking.decode_request(case["request"])
    record, ephemeral = unhexed(case, "record", "ephemeral")
    assert request.record == record
    linking.verify_request(request, network, ADA.user)
    answer = linking.decode_answer(case["answer"])
    handed = linking.open_answer(answer, request, ephemeral, network, ADA.with_second_device().user)
    assert linking.code(request) == case["code"]
    assert handed.account_secret.hex() == case["account_secret"]
    assert (handed.history.encode().hex() if handed.history else "") == case["history"]
    assert handed.blob.hex() == case["blob"]


def check_rsa(network: Network, case: Case) -> None:
    (envelope,) = unhexed(case, "envelope")
    opened = rsa.open_(
        network,
        envelope,
        secret=SECRETS["bob"],
        recipient=rsa_user("bob", suites=case["recipient_suites"]),
        sender=rsa_user("ada", suites=case["sender_suites"]),
    )
    assert opened.content == Text(case["text"])
    assert (opened.id.hex(), opened.time_ms, opened.label) == (case["id"], case["time_ms"], case["label"])


CHECKS: dict[str, Callable[[Network, Case], None]] = {
    "names": check_name,
    "digests": check_digest,
    "record": check_record,
    "login": check_login_proof,
    "password": check_password,
    "vault": check_vault,
    "keystore": check_keystore,
    "phrase": check_phrase,
    "padding": check_padding,
    "content": check_content,
    "sealed": check_sealed,
    "bundle": check_bundle,
    "card": check_card,
    "safety": check_safety,
    "link": check_link,
    "rsa": check_rsa,
    "admission": check_admission,
    "history": check_history,
}


def cases() -> Iterator[Any]:
    """Every case of every file of ours."""
    for name in CHECKS:
        file = json.loads((HERE / f"{name}.json").read_text())
        for number, case in enumerate(file["cases"]):
            label = case.get("name", number)
            yield pytest.param(name, network_of(file), case, id=f"{name}-{label}")


@pytest.mark.parametrize(("name", "network", "case"), list(cases()))
def test_the_case_ends_as_it_says(name: str, network: Network, case: Case) -> None:
    """It holds, or fails with exactly the error it names."""
    assert outcome(lambda: CHECKS[name](network, case)) == case["outcome"]


def outcome(check: Callable[[], None]) -> str:
    """Runs a check and gives "ok" or the code of our error; any other failure is a failure."""
    try:
        check()
    except ChatchainError as failure:
        return failure.code
    return "ok"


def test_every_hex_example_of_the_protocol_is_a_vector() -> None:
    """docs/protocol.md quotes the files, so it cannot drift from the code."""
    known = "\n".join(path.read_text() for path in sorted(HERE.glob("*.json")))
    blocks = PROTOCOL.read_text().split("```hex\n")[1:]
    assert len(blocks) >= 5
    for block in blocks:
        lines = block.split("\n```")[0].split("\n")
        quoted = "".join(line.split("#")[0].replace(" ", "") for line in lines)
        assert quoted in known, quoted
