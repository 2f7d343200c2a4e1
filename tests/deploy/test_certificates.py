"""The relay's certificate: OpenSSL accepts what we make, and a bad pair is refused in words."""

import hashlib
import socket
import ssl
import stat
import subprocess
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from deploy import certificates
from deploy.certificates import BadCertificate

NOW = datetime.now(UTC)


def leaf_of(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificates(path.read_bytes())[0]


def openssl(*arguments: str | Path, data: bytes = b"") -> bytes:
    return subprocess.run(["openssl", *arguments], input=data, capture_output=True, check=True).stdout


def own_pair(folder: Path, *options: str, kind: str = "rsa:2048") -> tuple[Path, Path]:
    """A pair as an operator would make it."""
    certificate, key = folder / "own.pem", folder / "own.key"
    subject = ["-subj", "/CN=relay.example", "-keyout", str(key), "-out", str(certificate)]
    openssl("req", "-x509", "-newkey", kind, "-nodes", "-days", "30", *subject, *options)
    return certificate, key


def test_the_leaf_is_a_server_certificate_and_no_authority(tmp_path: Path) -> None:
    """CA:FALSE, serverAuth, and every name by which the relay is reached."""
    leaf = leaf_of(certificates.make(tmp_path, ["relay.example", "192.0.2.7"]).certificate)
    extension = leaf.extensions.get_extension_for_class
    assert extension(x509.BasicConstraints).value.ca is False
    assert list(extension(x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.SERVER_AUTH]
    names = extension(x509.SubjectAlternativeName).value
    assert set(names.get_values_for_type(x509.DNSName)) == {"localhost", "relay.example"}
    assert {str(ip) for ip in names.get_values_for_type(x509.IPAddress)} == {"127.0.0.1", "::1", "192.0.2.7"}


def test_openssl_accepts_the_chain_for_its_names_only(tmp_path: Path) -> None:
    """An independent verifier agrees, and rejects another host."""
    pair = certificates.make(tmp_path, ["relay.example"])
    check: list[str | Path] = [
        "verify",
        "-x509_strict",
        "-purpose",
        "sslserver",
        "-CAfile",
        tmp_path / "ca.pem",
    ]
    for names in (["-verify_hostname", "relay.example"], ["-verify_ip", "127.0.0.1"]):
        openssl(*check, *names, pair.certificate)
    with pytest.raises(subprocess.CalledProcessError):
        openssl(*check, "-verify_hostname", "other.example", pair.certificate)


def test_the_hash_is_that_of_openssl(tmp_path: Path) -> None:
    """SHA-256 over SubjectPublicKeyInfo in DER, as two other commands compute it."""
    pair = certificates.make(tmp_path)
    public = openssl("x509", "-in", pair.certificate, "-pubkey", "-noout")
    assert pair.spki == hashlib.sha256(openssl("pkey", "-pubin", "-outform", "DER", data=public)).digest()


def test_keys_are_for_the_owner_alone(tmp_path: Path) -> None:
    """Mode 0600 for every key, and no temporary file is left."""
    certificates.make(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ca.key", "ca.pem", "relay.key", "relay.pem"]
    for name in ("ca.key", "relay.key"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


def test_making_again_changes_nothing(tmp_path: Path) -> None:
    """Every file stays byte for byte, so the Directory's hash stays true."""
    certificates.make(tmp_path, ["relay.example"])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    certificates.make(tmp_path, ["relay.example"])
    certificates.make(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("reason", ["a new name", "nearly expired", "torn", "another CA"])
def test_a_certificate_is_renewed_around_the_same_key(tmp_path: Path, reason: str) -> None:
    """Whatever the reason, the hash that clients compare does not move."""
    past = NOW - timedelta(days=certificates.LEAF_DAYS - certificates.RENEW_DAYS + 1)
    first = certificates.make(tmp_path, now=past if reason == "nearly expired" else NOW)
    old = first.certificate.read_bytes()
    if reason == "torn":
        first.certificate.write_bytes(old[:300])
    if reason == "another CA":
        (tmp_path / "ca.key").unlink()
    again = certificates.make(tmp_path, ["relay.example"] if reason == "a new name" else [])
    assert again.spki == first.spki
    assert again.certificate.read_bytes() != old
    openssl("verify", "-CAfile", tmp_path / "ca.pem", again.certificate)


@pytest.mark.parametrize("kind", ["rsa:2048", "ed25519", "ec"])
def test_a_pair_of_ones_own_is_taken(tmp_path: Path, kind: str) -> None:
    """What `openssl req -x509` makes serves, whichever of the usual keys it has."""
    options = ["-pkeyopt", "ec_paramgen_curve:prime256v1"] if kind == "ec" else []
    certificate, key = own_pair(tmp_path, *options, kind=kind)
    assert certificates.load(certificate, key).spki == certificates.spki_sha256(leaf_of(certificate))


@pytest.mark.parametrize("own", [True, False])
def test_a_tls_1_3_server_shows_the_key_whose_hash_we_gave(tmp_path: Path, own: bool) -> None:
    """The hash a client computes from the handshake is the one for the Directory."""
    pair = certificates.load(*own_pair(tmp_path)) if own else certificates.make(tmp_path)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.minimum_version = ssl.TLSVersion.TLSv1_3
    server.load_cert_chain(pair.certificate, pair.key)
    client = ssl.create_default_context(cafile=str(pair.certificate if own else tmp_path / "ca.pem"))
    client.check_hostname = not own
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with server.wrap_socket(listener.accept()[0], server_side=True) as session:
                session.recv(1)

        thread = threading.Thread(target=serve)
        thread.start()
        with (
            socket.create_connection(listener.getsockname()) as plain,
            client.wrap_socket(plain, server_hostname="localhost") as session,
        ):
            shown = session.getpeercert(binary_form=True)
            session.send(b".")
        thread.join()
    assert shown is not None
    assert certificates.spki_sha256(x509.load_der_x509_certificate(shown)) == pair.spki


def test_a_bad_pair_is_refused_with_what_is_wrong(tmp_path: Path) -> None:
    """Each mistake has its own sentence, and none repeats the key's material."""
    certificate, key = own_pair(tmp_path)
    (tmp_path / "other").mkdir()
    other_certificate, other_key = own_pair(tmp_path / "other")
    der, garbage, torn, locked = (tmp_path / name for name in ("der", "garbage", "torn", "locked"))
    der.write_bytes(leaf_of(certificate).public_bytes(serialization.Encoding.DER))
    garbage.write_bytes(bytes(range(256)))
    torn.write_bytes(key.read_bytes()[:400] + b"\n-----END PRIVATE KEY-----\n")
    openssl("pkey", "-in", key, "-aes256", "-passout", "pass:secret", "-out", locked)
    small_certificate, small_key = own_pair(tmp_path / "other", kind="rsa:1024")
    for pair, sentence in (
        ((tmp_path / "none.pem", key), "cannot be read: No such file"),
        ((tmp_path, key), "cannot be read: Is a directory"),
        ((der, key), "is not a PEM file"),
        ((key, key), "holds no certificate; was the key meant for --key"),
        ((certificate, tmp_path / "none.key"), "The key .* cannot be read: No such file"),
        ((certificate, garbage), "is not a PEM file"),
        ((certificate, certificate), "holds no private key"),
        ((certificate, torn), "cannot be read"),
        ((certificate, locked), "protected by a passphrase"),
        ((certificate, other_key), "does not belong to the certificate"),
        ((small_certificate, small_key), "has 1024 bits"),
    ):
        with pytest.raises(BadCertificate, match=sentence) as refused:
            certificates.load(*pair)
        assert "PRIVATE KEY-----\nM" not in refused.value.message + refused.value.hint
    assert other_certificate.exists()


@pytest.mark.parametrize(("days", "sentence"), [(31, "expired on"), (-1, "is not valid before")])
def test_a_certificate_out_of_its_time_is_refused(tmp_path: Path, days: int, sentence: str) -> None:
    """Before and after its validity, with the date."""
    pair = own_pair(tmp_path)
    with pytest.raises(BadCertificate, match=rf"{sentence} \d{{4}}-\d\d-\d\d"):
        certificates.load(*pair, now=NOW + timedelta(days=days))


def test_the_command_makes_a_pair_and_examines_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both ways print the same hash; a bad pair ends with 2 and one sentence."""
    assert certificates.main(["--out", str(tmp_path / "tls"), "--host", "relay.example"]) == 0
    made = capsys.readouterr().out
    pair = ["--cert", str(tmp_path / "tls" / "relay.pem"), "--key", str(tmp_path / "tls" / "relay.key")]
    assert certificates.main(pair) == 0
    assert capsys.readouterr().out.splitlines()[-1] == made.splitlines()[-1]
    assert certificates.main(["--cert", str(tmp_path / "none.pem")]) == 2
    assert "cannot be read" in capsys.readouterr().err
