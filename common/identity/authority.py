"""A federation's certificate authority, and what makes a server's certificate good.

Certificates follow RFC 5280; keys are ECDSA on P-384, and signatures are deterministic (RFC 6979),
so that nothing here draws randomness. Keys, serial numbers and the time are arguments.

Guarantees:
    - An authority signs servers only: no authority below it (path length 0).
    - A server's certificate holds exactly the names and addresses given, serves for TLS servers
      alone, and never outlives its authority.
    - `check_server` refuses a certificate that another authority made, that does not hold now, or
      that has another name, and says which.
    - The sealed key of an authority opens with its passphrase only; it is sealed as an identity is
      (scrypt 2^17 8 1, AES-256-GCM).
"""

import datetime
import ipaddress
import json
import unicodedata
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from common.errors import IdentityError
from common.identity.identity import MIN_PASSPHRASE

CURVE: Final = ec.SECP384R1()
BACKDATED: Final = datetime.timedelta(days=1)
"""A new certificate holds from a day ago: an institution's clock may be slow."""
WARN: Final = datetime.timedelta(days=30)
KEY_FORMAT: Final = "fedner authority key v1, scrypt 2^17 8 1, aes-256-gcm"
OPEN_KEY_FORMAT: Final = "fedner authority key v1, no passphrase"
SALT_BYTES: Final = 16
NONCE_BYTES: Final = 12

_RENEW: Final = "at the coordinator: `fedner provision --renew`"
_REPLACE: Final = (
    "at the coordinator: `fedner provision --rotate begin`, then `--rotate move`, send each "
    "institution its ca.crt, and `--rotate end`: docs/provisioning.md, Renewal"
)

Key = ec.EllipticCurvePrivateKey
_HASH: Final = hashes.SHA384()
_UTC: Final = datetime.UTC


def authority_certificate(
    name: str, key: Key, serial: int, now: datetime.datetime, days: int
) -> x509.Certificate:
    """The authority's certificate, signed by itself.

    Args:
        serial: 159 random bits.
        now: in UTC, with its zone.
    """
    subject = _subject(name)
    until = now + datetime.timedelta(days=days)
    builder = _builder(subject, subject, key.public_key(), serial, now, until)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = builder.add_extension(identifier, critical=False)
    return builder.sign(key, _HASH, ecdsa_deterministic=True)


def server_certificate(
    authority: x509.Certificate,
    authority_key: Key,
    public_key: ec.EllipticCurvePublicKey,
    hosts: tuple[str, ...],
    serial: int,
    now: datetime.datetime,
    days: int,
) -> x509.Certificate:
    """A server's certificate, for DNS names and IP addresses.

    Raises:
        IdentityError: the authority holds no more, or the key is not its own.
    """
    if now >= authority.not_valid_after_utc:
        raise _over("the authority's certificate", authority, _REPLACE)
    if authority_key.public_key() != authority.public_key():
        raise IdentityError(
            "the authority's key is not that of its certificate",
            remedy="put the two files back that `fedner provision` made together",
        )
    until = min(now + datetime.timedelta(days=days), authority.not_valid_after_utc)
    builder = _builder(_subject(hosts[0]), authority.subject, public_key, serial, now, until)
    extensions: tuple[tuple[x509.ExtensionType, bool], ...] = (
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_usage(signs_certificates=False), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
        (x509.SubjectAlternativeName([_general(host) for host in hosts]), False),
        (x509.SubjectKeyIdentifier.from_public_key(public_key), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), False),
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(authority_key, _HASH, ecdsa_deterministic=True)


def hosts_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """DNS names and IP addresses in a certificate, in order."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return ()
    return tuple(str(general.value) for general in found.value)


def check_server(
    certificate: x509.Certificate,
    authority: x509.Certificate,
    host: str,
    now: datetime.datetime,
) -> None:
    """Refuse what an institution's TLS would refuse, in words.

    Raises:
        IdentityError: another authority's, expired, not valid yet, or without this host.
    """
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        raise IdentityError(
            "the server's certificate is of another authority",
            remedy="use the ca.crt of the same `fedner provision`; if the coordinator made a new "
            "one, compare its fingerprint with them by telephone",
        ) from None
    whose = ("the authority's", authority, _REPLACE), ("the server's", certificate, _RENEW)
    for what, found, remedy in whose:
        if now > found.not_valid_after_utc:
            raise _over(f"{what} certificate", found, remedy)
        if now < found.not_valid_before_utc:
            raise IdentityError(
                f"{what} certificate holds only from {found.not_valid_before_utc:%Y-%m-%d %H:%M}",
                remedy="is this machine's clock right?",
            )
    if host not in hosts_of(certificate):
        raise IdentityError(
            f"the server's certificate is for {', '.join(hosts_of(certificate))}, not {host}",
            remedy="add the name to FEDERATION.yaml, then `fedner provision --renew`",
        )


def expiry_notice(what: str, certificate: x509.Certificate, now: datetime.datetime) -> str | None:
    """A line for people if a certificate is over or will be in 30 days, or a third of its life."""
    end = certificate.not_valid_after_utc
    life = end - certificate.not_valid_before_utc
    if now > end:
        return f"{what} expired on {end:%Y-%m-%d}: connections are refused"
    if end - now <= min(WARN, life / 3):
        return f"{what} expires on {end:%Y-%m-%d %H:%M} UTC, in {(end - now).days} days"
    return None


def seal_key(key: Key, passphrase: str | None, random: bytes) -> bytes:
    """The file of an authority's key.

    Args:
        random: `SALT_BYTES + NONCE_BYTES` of a cryptographic generator.

    Raises:
        IdentityError: a passphrase that is too short.
    """
    if len(random) != SALT_BYTES + NONCE_BYTES:
        raise ValueError("salt and nonce are needed")
    der = key.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    if passphrase is None:
        content = {"format": OPEN_KEY_FORMAT, "salt": "", "nonce": "", "key": der.hex()}
    else:
        if len(passphrase) < MIN_PASSPHRASE:
            raise IdentityError(
                f"a passphrase has at least {MIN_PASSPHRASE} characters",
                remedy="take five or more random words",
            )
        salt, nonce = random[:SALT_BYTES], random[SALT_BYTES:]
        sealed = _cipher(passphrase, salt).encrypt(nonce, der, KEY_FORMAT.encode())
        content = {"format": KEY_FORMAT, "salt": salt.hex(), "nonce": nonce.hex()}
        content["key"] = sealed.hex()
    return json.dumps(content, indent=2).encode("ascii") + b"\n"


def open_key(data: bytes, passphrase: str | None) -> Key:
    """An authority's key.

    Raises:
        IdentityError: damaged; a passphrase that is wrong, missing or not needed.
    """
    try:
        content = json.loads(data.decode("ascii"))
        sealed = content["format"] == KEY_FORMAT
        if not sealed and content["format"] != OPEN_KEY_FORMAT:
            raise ValueError
        salt, nonce, der = (bytes.fromhex(content[k]) for k in ("salt", "nonce", "key"))
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _no_key() from None
    if sealed != (passphrase is not None):
        needed = "needs its passphrase" if sealed else "has no passphrase, and one was given"
        raise IdentityError(f"the authority's key {needed}", remedy="--passphrase-file FILE")
    if passphrase is not None:
        try:
            der = _cipher(passphrase, salt).decrypt(nonce, der, KEY_FORMAT.encode())
        except (InvalidTag, ValueError):
            raise IdentityError(
                "the passphrase of the authority's key is wrong",
                remedy="type it again; nobody can recover a lost one: `fedner provision "
                "--rotate begin` makes another authority",
            ) from None
    return _loaded(der)


def _loaded(der: bytes) -> Key:
    try:
        key = serialization.load_der_private_key(der, None)
    except (ValueError, TypeError):
        raise _no_key() from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise _no_key()
    return key


def _no_key() -> IdentityError:
    return IdentityError("is damaged, or no authority's key", remedy="put a copy back")


def _cipher(passphrase: str, salt: bytes) -> AESGCM:
    text = unicodedata.normalize("NFC", passphrase).encode()
    return AESGCM(Scrypt(salt=salt, length=32, n=1 << 17, r=8, p=1).derive(text))


def _over(what: str, certificate: x509.Certificate, remedy: str) -> IdentityError:
    end = certificate.not_valid_after_utc
    return IdentityError(f"{what} expired on {end:%Y-%m-%d %H:%M} UTC", remedy=remedy)


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    serial: int,
    now: datetime.datetime,
    until: datetime.datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(serial)
        .not_valid_before(now.astimezone(_UTC) - BACKDATED)
        .not_valid_after(until.astimezone(_UTC))
    )
