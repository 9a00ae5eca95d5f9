"""The server's certificate as an institution sees it, with the same trust: one authority alone."""

import contextlib
import datetime
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from common.errors import FederationError
from common.identity.authority import check_server, expiry_notice, hosts_of
from common.io.certificate_files import read_authorities, read_certificate
from scripts.doctor.checks import Finding, ok, warning
from scripts.doctor.network import Route, connect

RENEW: Final = "the coordinator runs `fedner provision --renew`, then restarts the server"


@contextmanager
def opened(route: Route, authority: Path, limit_s: float) -> Iterator[ssl.SSLSocket]:
    """A TLS connection, the server's name and chain verified as Flower does.

    Raises:
        FederationError: no connection, or no TLS that can be trusted.
    """
    context = ssl.create_default_context(cafile=str(authority))
    raw = connect(route, limit_s)
    try:
        link = context.wrap_socket(raw, server_hostname=route.host)
    except ssl.SSLCertVerificationError as error:
        raise _refused(route, error.verify_message) from None
    except OSError as error:
        raise _refused(route, error.strerror or type(error).__name__) from None
    finally:
        raw.close()
    with link:
        yield link


def server_chain(
    route: Route, authority: Path, limit_s: float, clock: Callable[[], datetime.datetime]
) -> Finding:
    """Whether the server's certificate is the authority's, for this name, and holds; days left.

    Raises:
        IdentityError: in words, what is wrong with the certificate.
        FederationError: no connection, or TLS fails for another reason.
    """
    try:
        with opened(route, authority, limit_s) as link:
            certificate = x509.load_der_x509_certificate(link.getpeercert(binary_form=True) or b"")
            version = link.version()
    except FederationError:
        shown = presented(route, limit_s)
        if shown is not None:  # it is known what it shows: say what is wrong with it
            _check_by_any(shown, read_authorities(authority), route.host, clock())
        raise
    return _lasting(certificate, f"{version}, of this authority", clock())


def _check_by_any(
    shown: x509.Certificate,
    authorities: tuple[x509.Certificate, ...],
    host: str,
    now: datetime.datetime,
) -> None:
    """What is wrong with a certificate, by the authority that made it, or by the last of them."""
    for authority in authorities[:-1]:
        with contextlib.suppress(ValueError, TypeError, InvalidSignature):
            shown.verify_directly_issued_by(authority)
            check_server(shown, authority, host, now)
            return
    check_server(shown, authorities[-1], host, now)


def presented(route: Route, limit_s: float) -> x509.Certificate | None:
    """The certificate that a server shows, trusted for nothing; `None` if there is none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            connect(route, limit_s) as raw,
            context.wrap_socket(raw, server_hostname=route.host) as link,
        ):
            der = link.getpeercert(binary_form=True)
    except (OSError, FederationError):
        return None
    return None if der is None else x509.load_der_x509_certificate(der)


def certificate_life(path: Path, clock: Callable[[], datetime.datetime], remedy: str) -> Finding:
    """Days that a certificate file has left."""
    return _lasting(read_certificate(path), "", clock(), remedy)


def _lasting(
    certificate: x509.Certificate, said: str, now: datetime.datetime, remedy: str = RENEW
) -> Finding:
    names = ", ".join(hosts_of(certificate))
    days = (certificate.not_valid_after_utc - now).days
    parts = (said, f"for {names}" if names else "", f"{days} days left")
    told = ", ".join(part for part in parts if part)
    notice = expiry_notice("the certificate", certificate, now)
    return ok(told) if notice is None else warning(f"{told}: {notice}", remedy)


def _refused(route: Route, why: str) -> FederationError:
    return FederationError(
        f"no TLS that can be trusted: {why}",
        place=str(route),
        remedy="is it fedner's server that answers there, and no proxy that opens TLS? `fedner "
        "enrol show ca.crt` shows the authority, to be compared by telephone",
    )
