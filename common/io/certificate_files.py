"""Certificates and their keys in files: the authority, the server, the loopback link, a node.

    authority/  authority.key  ca.crt                                   the coordinator's, 0700
    server/     server.key server.crt  link.key link.crt  ca.crt        the coordinator's, 0700
    node/       node.key  node.pub                                      an institution's, 0700

`server.crt` has the names of FEDERATION.yaml and serves the public socket; `link.crt` is for
127.0.0.1 and serves Flower's private port.

Guarantees:
    - Private keys have mode 0600 in a folder of mode 0700, and are read from nothing laxer.
    - A folder of keys is there whole or not at all; no key is overwritten.
    - A renewal replaces certificates one file at a time, each whole, and leaves the keys.
"""

import datetime
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from common.errors import IdentityError
from common.identity.authority import (
    CURVE,
    NONCE_BYTES,
    SALT_BYTES,
    Key,
    authority_certificate,
    check_server,
    expiry_notice,
    open_key,
    seal_key,
    server_certificate,
)
from common.identity.enrolment import node_line
from common.identity.fingerprint import fingerprint
from common.io.disk import DISK, replace_file
from common.io.identity_files import MAX_BYTES, os_errors, read_guarded

AUTHORITY_KEY: Final = "authority.key"
AUTHORITY: Final = "ca.crt"
SERVER: Final = "server"
LINK: Final = "link"
LINK_HOSTS: Final = ("127.0.0.1",)
MOST_AUTHORITIES: Final = 2
NODE_KEY: Final = "node.key"
NODE_PUBLIC: Final = "node.pub"


def create_authority(
    folder: Path, name: str, passphrase: str | None, now: datetime.datetime, days: int
) -> x509.Certificate:
    """Make an authority in a folder that is not there yet.

    Raises:
        IdentityError: the folder exists or can't be made, or the passphrase is too short.
    """
    key = ec.generate_private_key(CURVE)
    sealed = seal_key(key, passphrase, os.urandom(SALT_BYTES + NONCE_BYTES))
    certificate = authority_certificate(name, key, x509.random_serial_number(), now, days)
    _make_folder(folder, {AUTHORITY_KEY: sealed, AUTHORITY: _pem(certificate)})
    return certificate


def open_authority(folder: Path, passphrase: str | None) -> tuple[x509.Certificate, Key]:
    """An authority's certificate and key.

    Raises:
        IdentityError: unreadable, open to others, damaged, or a wrong passphrase.
    """
    data = read_guarded(folder / AUTHORITY_KEY)
    try:
        key = open_key(data, passphrase)
    except IdentityError as error:
        place = str(folder / AUTHORITY_KEY)
        raise IdentityError(error.message, place=place, remedy=error.remedy) from None
    return read_certificate(folder / AUTHORITY), key


def create_server(
    folder: Path,
    authority: tuple[x509.Certificate, Key],
    hosts: tuple[str, ...],
    now: datetime.datetime,
    days: int,
) -> None:
    """Make the server's two keys and their certificates in a folder that is not there yet.

    Raises:
        IdentityError: the folder exists, or the authority holds no more.
    """
    files = {AUTHORITY: _pem(authority[0])}
    for name, its_hosts in ((SERVER, hosts), (LINK, LINK_HOSTS)):
        key = ec.generate_private_key(CURVE)
        files[f"{name}.key"] = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        files[f"{name}.crt"] = _issue(authority, key.public_key(), its_hosts, now, days)
    _make_folder(folder, files)


def renew_server(
    folder: Path,
    authority: tuple[x509.Certificate, Key],
    hosts: tuple[str, ...],
    now: datetime.datetime,
    days: int,
) -> None:
    """New certificates for the same keys, under the same authority.

    Raises:
        IdentityError: a key can't be read, the folder is another authority's, or the authority
            holds no more.
    """
    if read_certificate(folder / AUTHORITY) != authority[0]:
        raise IdentityError(
            "is of another authority",
            place=str(folder / AUTHORITY),
            remedy="institutions trust one authority: put its folder back",
        )
    renewed = {}
    for name, its_hosts in ((SERVER, hosts), (LINK, LINK_HOSTS)):
        key = _read_key(folder / f"{name}.key")
        renewed[f"{name}.crt"] = _issue(authority, key.public_key(), its_hosts, now, days)
    with os_errors(folder):
        for file, data in renewed.items():
            replace_file(DISK, folder / file, data)


def move_server(
    folder: Path,
    authority: tuple[x509.Certificate, Key],
    hosts: tuple[str, ...],
    now: datetime.datetime,
    days: int,
) -> None:
    """New certificates for the same keys, under another authority.

    Raises:
        IdentityError: a key can't be read, or the authority holds no more.
    """
    moved = {}
    for name, its_hosts in ((SERVER, hosts), (LINK, LINK_HOSTS)):
        key = _read_key(folder / f"{name}.key")
        moved[f"{name}.crt"] = _issue(authority, key.public_key(), its_hosts, now, days)
    with os_errors(folder):
        for file, data in {**moved, AUTHORITY: _pem(authority[0])}.items():
            replace_file(DISK, folder / file, data)


def require_server(folder: Path, hosts: tuple[str, ...], now: datetime.datetime) -> None:
    """What a server checks before it starts: both pairs, every host, validity.

    Raises:
        IdentityError: says which file is wrong, and why.
    """
    authority = read_certificate(folder / AUTHORITY)
    for name, its_hosts in ((SERVER, hosts), (LINK, LINK_HOSTS)):
        path = folder / f"{name}.crt"
        certificate = read_certificate(path)
        if certificate.public_key() != _read_key(folder / f"{name}.key").public_key():
            raise IdentityError(
                f"is not of {name}.key beside it",
                place=str(path),
                remedy="put the folder back as `fedner provision` made it, or give `--renew` there",
            )
        for host in its_hosts:
            try:
                check_server(certificate, authority, host, now)
            except IdentityError as error:
                raise IdentityError(error.message, place=str(path), remedy=error.remedy) from None


def require_authority(path: Path, now: datetime.datetime) -> None:
    """What an institution checks before it connects: a certificate authority that holds now.

    Raises:
        IdentityError: unreadable, not an authority's certificate or two, or none that is valid now.
    """
    found = read_authorities(path)
    if not all(map(_is_authority, found)):
        raise IdentityError(
            "is not the certificate of an authority",
            place=str(path),
            remedy="use the ca.crt that the coordinator sent, not a server's certificate",
        )
    if not any(c.not_valid_before_utc <= now <= c.not_valid_after_utc for c in found):
        start, end = found[0].not_valid_before_utc, found[0].not_valid_after_utc
        when = f"holds only from {start:%Y-%m-%d %H:%M} UTC to {end:%Y-%m-%d %H:%M} UTC"
        remedy = "if this machine's clock is right, the coordinator has to send another"
        raise IdentityError(when, place=str(path), remedy=remedy)


def create_node_key(folder: Path) -> str:
    """Make a node's key in a folder that is not there yet; its public line.

    Raises:
        IdentityError: the folder exists or can't be made.
    """
    key = ec.generate_private_key(CURVE)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )
    line = node_line(key.public_key())
    _make_folder(folder, {NODE_KEY: private, NODE_PUBLIC: line.encode() + b"\n"})
    return line


def read_node_key(folder: Path) -> Key:
    """A node's private key, in OpenSSH's form as Flower wants it.

    Raises:
        IdentityError: unreadable, open to others, or another kind of key.
    """
    path = folder / NODE_KEY
    try:
        key = serialization.load_ssh_private_key(read_guarded(path), None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise IdentityError(
            "is no ECDSA key in OpenSSH's form",
            place=str(path),
            remedy="put a copy back; without one, the coordinator revokes both keys, and the "
            "institution makes new ones with `fedner enrol request`",
        )
    return key


def read_certificate(path: Path) -> x509.Certificate:
    """One certificate in PEM.

    Raises:
        IdentityError: unreadable, or not exactly one certificate.
    """
    found = _certificates(path)
    if len(found) != 1:
        raise IdentityError(
            f"has {len(found)} certificates, expected one",
            place=str(path),
            remedy="put the file back that `fedner provision` made",
        )
    return found[0]


def read_authorities(path: Path) -> tuple[x509.Certificate, ...]:
    """The authority's certificate, or two while one takes the other's place; the longest first.

    Raises:
        IdentityError: unreadable, no certificate, or more than two.
    """
    found = _certificates(path)
    if len(found) > MOST_AUTHORITIES:
        raise IdentityError(
            f"has {len(found)} certificates, expected one, or two while one replaces the other",
            place=str(path),
            remedy="use the ca.crt that the coordinator sent, as it is",
        )
    return tuple(sorted(found, key=lambda c: c.not_valid_after_utc, reverse=True))


def _certificates(path: Path) -> list[x509.Certificate]:
    """All certificates of a file that has nothing else.

    Flower and gRPC read the file by themselves: what they would take for a certificate and this
    reader would not, behind many bytes or under another heading, is refused.
    """
    with os_errors(path), path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    try:
        found = x509.load_pem_x509_certificates(data)
    except ValueError:
        raise IdentityError(
            "is no certificate",
            place=str(path),
            remedy="use the file that was sent, as it is; at the coordinator, put the one back "
            "that `fedner provision` made",
        ) from None
    if len(data) > MAX_BYTES or data.count(b"-----BEGIN") != len(found):
        raise IdentityError(
            "has something beside certificates",
            place=str(path),
            remedy="use the file that was sent, as it is; if it is that one, ask its sender",
        )
    return found


def certificate_fingerprint(certificate: x509.Certificate) -> str:
    """40 digits to compare by telephone."""
    data = certificate.public_bytes(serialization.Encoding.DER)
    return fingerprint("fedner certificate fingerprint v1", data)


def expiry_notices(folder: Path, now: datetime.datetime) -> tuple[str, ...]:
    """A line for each certificate in a folder that is over or will be soon; of two in a file, for
    the one that holds longer.

    Soon is 30 days before, or in the last third of its life if that is shorter.
    """
    found = ((path, read_authorities(path)[0]) for path in sorted(folder.glob("*.crt")))
    notices = (expiry_notice(str(path), certificate, now) for path, certificate in found)
    return tuple(notice for notice in notices if notice is not None)


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        found = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    except (x509.ExtensionNotFound, ValueError):
        return False
    return found.value.ca


def _issue(
    authority: tuple[x509.Certificate, Key],
    public_key: ec.EllipticCurvePublicKey,
    hosts: tuple[str, ...],
    now: datetime.datetime,
    days: int,
) -> bytes:
    serial = x509.random_serial_number()
    return _pem(server_certificate(*authority, public_key, hosts, serial, now, days))


def _read_key(path: Path) -> Key:
    try:
        key = serialization.load_pem_private_key(read_guarded(path), None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise IdentityError("is no server's key", place=str(path), remedy="put a copy back")
    return key


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _make_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """A folder of mode 0700 with files of mode 0600, whole or not at all."""
    if os.path.lexists(folder):
        raise IdentityError(
            "is there already; a key is never overwritten",
            place=str(folder),
            remedy="name a folder that is not there yet, or use `--renew`",
        )
    with os_errors(folder):
        beside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        try:
            for name, data in files.items():
                replace_file(DISK, beside / name, data)
            beside.rename(folder)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise
        DISK.fsync_folder(folder.parent)
