"""The relay's TLS certificate: a development CA and server certificate, or a pair of one's own.

Clients take the SHA-256 of the certificate's public key (SubjectPublicKeyInfo, DER) from the Directory
contract and compare it with what the relay shows, so it is the *key* that must stay the same: a certificate
may be renewed, by `make` too, around the same key. Names and issuer matter to other tools only.

`python deploy/certificates.py --out DIR [--host NAME]…` makes ca.pem, ca.key, relay.pem and relay.key, or
leaves them as they are when they still serve; `--cert F [--key F]` examines a pair. Both print the hash.
"""

import argparse
import hashlib
import ipaddress
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar, Final

if __package__ in {None, ""}:  # started as a file: the project's folder is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from chatchain.programs.installed import Installed

with Installed():
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    from chatchain.errors import ChatchainError, UsageError
    from deploy import files

CA_DAYS: Final = 3650
LEAF_DAYS: Final = 730
RENEW_DAYS: Final = 30
"""A certificate of ours with less than this left is made anew, around the same key."""

BACKDATE: Final = timedelta(hours=1)
"""Clocks of other machines may be behind ours."""

SMALLEST_RSA: Final = 2048
"""OpenSSL's usual security level refuses to serve with less."""

LOCAL_HOSTS: Final = ("localhost", "127.0.0.1", "::1")

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


class BadCertificate(UsageError):
    """A certificate or its key cannot serve."""

    code: ClassVar[str] = "bad_certificate"
    default_hint = (
        "A pair that serves: openssl req -x509 -newkey rsa:2048 -nodes -days 365 -subj /CN=relay "
        "-keyout relay.key -out relay.pem"
    )


@dataclass(frozen=True)
class Pair:
    """A certificate that the relay can show, its key, and what the Directory holds of it."""

    certificate: Path
    key: Path
    spki: bytes


def spki_sha256(certificate: x509.Certificate) -> bytes:
    """SHA-256 of the certificate's SubjectPublicKeyInfo in DER: 32 bytes."""
    spki = certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(spki).digest()


# --- one's own --------------------------------------------------------------------------------------------


def load(certificate: Path, key: Path, *, now: datetime | None = None) -> Pair:
    """Check a pair; raises BadCertificate with what is wrong about it."""
    leaf = read_certificate(certificate, now=now)
    private = _read_key(key)
    if _public_bytes(private) != leaf.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    ):
        raise BadCertificate(f"The key {key} does not belong to the certificate {certificate}.")
    return Pair(certificate, key, spki_sha256(leaf))


def read_certificate(path: Path, *, now: datetime | None = None) -> x509.Certificate:
    """The first certificate of a PEM file, which must be in force now and have a key that TLS 1.3 can use."""
    data = _read(path, "certificate")
    if b"-----BEGIN" not in data:
        raise BadCertificate(f"{path} is not a PEM file: it has no line '-----BEGIN CERTIFICATE-----'.")
    if b"-----BEGIN CERTIFICATE-----" not in data:
        raise BadCertificate(f"{path} holds no certificate; was the key meant for --key given as --cert?")
    try:
        leaf = x509.load_pem_x509_certificates(data)[0]
        public = leaf.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadCertificate(f"The certificate in {path} cannot be read: {error}.") from error
    if isinstance(public, rsa.RSAPublicKey) and public.key_size < SMALLEST_RSA:
        raise BadCertificate(f"The RSA key of {path} has {public.key_size} bits; TLS wants {SMALLEST_RSA}.")
    if not isinstance(public, rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey):
        raise BadCertificate(f"The key of {path} is neither RSA, ECDSA nor Ed25519.")
    _require_in_force(leaf, path, now or datetime.now(UTC))
    return leaf


def _require_in_force(leaf: x509.Certificate, path: Path, now: datetime) -> None:
    if now < leaf.not_valid_before_utc:
        raise BadCertificate(
            f"The certificate {path} is not valid before {leaf.not_valid_before_utc:%Y-%m-%d}."
        )
    if now > leaf.not_valid_after_utc:
        raise BadCertificate(
            f"The certificate {path} expired on {leaf.not_valid_after_utc:%Y-%m-%d}.",
            "Renew it around the same key (openssl req -x509 -key relay.key …): its hash stays as it is.",
        )


def _read_key(path: Path) -> PrivateKey:
    data = _read(path, "key")
    if b"-----BEGIN" not in data:
        raise BadCertificate(f"{path} is not a PEM file: it has no line '-----BEGIN PRIVATE KEY-----'.")
    if b"PRIVATE KEY-----" not in data:
        raise BadCertificate(f"{path} holds no private key; was the certificate given as --key?")
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except TypeError:
        raise BadCertificate(
            f"The key {path} is protected by a passphrase, which the relay cannot type.",
            f"Write it without: openssl pkey -in {path} -out relay.key, readable by the relay alone.",
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        # The library's reason may quote the material; the fact is enough.
        raise BadCertificate(f"The private key in {path} cannot be read.") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey):
        raise BadCertificate(f"The key {path} is neither RSA, ECDSA nor Ed25519.")
    return key


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadCertificate(f"The {what} {path} cannot be read: {error.strerror}.") from error


def _public_bytes(key: PrivateKey) -> bytes:
    return key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


# --- development ------------------------------------------------------------------------------------------


def make(folder: Path, hosts: Sequence[str] = (), *, now: datetime | None = None) -> Pair:
    """The development pair in a folder, made, renewed or left as it is.

    The certificate names localhost, the loopback addresses and `hosts`. A key that is there stays, because
    the Directory holds its hash.
    """
    now = now or datetime.now(UTC)
    names = tuple(dict.fromkeys((*LOCAL_HOSTS, *hosts)))
    certificate, key_path = folder / "relay.pem", folder / "relay.key"
    authority_key = _keep_or_make_key(folder / "ca.key")
    authority = _keep_or_make_authority(folder / "ca.pem", authority_key, now)
    key = _keep_or_make_key(key_path)
    if not _serves(certificate, key, authority, names, now):
        leaf = _leaf(key, names, authority, authority_key, now)
        files.write(certificate, _pem(leaf) + _pem(authority))
    return load(certificate, key_path, now=now)


def _keep_or_make_key(path: Path) -> ec.EllipticCurvePrivateKey:
    if path.exists():
        key = _read_key(path)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise BadCertificate(f"{path} is not a key that this program made; name another folder.")
        return key
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    files.write(path, pem.decode(), mode=files.SECRET)
    return key


def _keep_or_make_authority(path: Path, key: ec.EllipticCurvePrivateKey, now: datetime) -> x509.Certificate:
    if path.exists():
        kept = _reusable(path, key, now)
        if kept is not None:
            return kept
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "chatchain development CA")])
    authority = (
        _builder(name, name, key, now, CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(sign_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    files.write(path, _pem(authority))
    return authority


def _leaf(
    key: ec.EllipticCurvePrivateKey,
    names: Sequence[str],
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    now: datetime,
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "chatchain relay")])
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    return (
        _builder(subject, authority.subject, key, now, LEAF_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(sign_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(issuer, critical=False)
        .sign(authority_key, hashes.SHA256())
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass  # no address, so a name
    try:
        return x509.DNSName(host.encode("idna").decode())
    except (UnicodeError, ValueError) as error:
        raise BadCertificate(
            f"'{host}' is neither a host name nor an IP address.", "Check --host."
        ) from error


def _serves(
    path: Path, key: PrivateKey, authority: x509.Certificate, names: Sequence[str], now: datetime
) -> bool:
    """Whether the certificate that is there can stay."""
    leaf = _reusable(path, key, now) if path.exists() else None
    if leaf is None:
        return False
    try:
        leaf.verify_directly_issued_by(authority)
        listed = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False  # from another CA, or not ours: a new one takes its place
    return {_general_name(name) for name in names} <= set(listed)


def _reusable(path: Path, key: PrivateKey, now: datetime) -> x509.Certificate | None:
    """The certificate in a file, if it is this key's and stays in force for a while."""
    try:
        found = read_certificate(path, now=now)
    except BadCertificate:
        return None  # torn or expired: made anew
    long_enough = found.not_valid_after_utc - now > timedelta(days=RENEW_DAYS)
    return (
        found if long_enough and spki_sha256(found) == hashlib.sha256(_public_bytes(key)).digest() else None
    )


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def main(arguments: Sequence[str] | None = None) -> int:
    """Make or examine a pair, and print its paths and hash."""
    parser = argparse.ArgumentParser(
        description="Make the relay's development certificate, or check one's own."
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="make ca.pem, relay.pem and their keys here")
    parser.add_argument(
        "--host", action="append", default=[], metavar="NAME", help="a further name or address"
    )
    parser.add_argument("--cert", type=Path, metavar="FILE", help="check this certificate instead")
    parser.add_argument("--key", type=Path, metavar="FILE", help="… together with its key")
    options = parser.parse_args(arguments)
    if (options.out is None) == (options.cert is None):
        parser.error("give either --out or --cert")
    try:
        if options.out is not None:
            pair = make(options.out, options.host)
            print(f"certificate {pair.certificate}\nkey {pair.key}\nspki sha256 0x{pair.spki.hex()}")
        else:
            leaf = read_certificate(options.cert)
            if options.key is not None:
                load(options.cert, options.key)
            print(f"certificate {options.cert}\nspki sha256 0x{spki_sha256(leaf).hex()}")
    except ChatchainError as error:
        print(f"certificates: {error.message} {error.hint}".rstrip(), file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
