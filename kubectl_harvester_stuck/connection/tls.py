"""The TLS context for a cluster: whom to trust and which client certificate to show."""

from __future__ import annotations

import ssl
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from kubectl_harvester_stuck.connection.credentials import Credential
from kubectl_harvester_stuck.connection.kubeconfig_file import ClusterEntry
from kubectl_harvester_stuck.errors import KubeconfigError

SYSTEM_BUNDLES = (
    Path("/etc/ssl/certs/ca-certificates.crt"),
    Path("/etc/pki/tls/certs/ca-bundle.crt"),
    Path("/etc/ssl/ca-bundle.pem"),
    Path("/etc/pki/tls/cacert.pem"),
    Path("/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"),
    Path("/etc/ssl/cert.pem"),
)


_SERVER_AUTH = ssl.Purpose.SERVER_AUTH.oid


class _SharedContext(ssl.SSLContext):
    """A context for connections that are opened in parallel; it speaks HTTP/1.1 from the start.

    urllib3 sets the ALPN protocols of its context again for each connection. That frees the old
    ones while OpenSSL may be copying them for another connection: one ClientHello in some ten
    thousand then carried rubbish, and the server refused it (alert decode_error).
    """

    def __init__(self, _protocol: int) -> None:
        super().__init__()
        super().set_alpn_protocols(["http/1.1"])

    def set_alpn_protocols(self, alpn_protocols: Iterable[str]) -> None:
        """Nothing: they are set."""


def tls_context(cluster: ClusterEntry, credential: Credential) -> ssl.SSLContext:
    """The context for connections to `cluster` as `credential`, ready to use.

    Certificates that are not in files are written to a private directory that is gone when this
    returns. Raises KubeconfigError.
    """
    context = _SharedContext(ssl.PROTOCOL_TLS_CLIENT)
    context.hostname_checks_common_name = False
    # As kubectl: a trusted intermediate is enough, and the extensions that newer versions of
    # Python insist on are missing from the certificates of many clusters.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if cluster.insecure_skip_tls_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        _trust(context, cluster.authority)
    if credential.certificate is not None and credential.key is not None:
        _identify(context, credential.certificate, credential.key)
    return context


def _trust(context: ssl.SSLContext, authority: Path | bytes | None) -> None:
    if authority is None:
        _trust_system(context)
        return
    try:
        content = authority.read_bytes() if isinstance(authority, Path) else authority
        context.load_verify_locations(cadata=content.decode("ascii", "ignore"))
    except (OSError, ValueError) as error:
        raise KubeconfigError(
            f"unable to load root certificates: {_where(authority, 'certificate-authority-data')} "
            "is not a readable PEM file of certificates"
        ) from error


def _trust_system(context: ssl.SSLContext) -> None:
    """Trust what the system trusts.

    OpenSSL looks only where it was built to look, and the archive for Krew was built on another
    system; kubectl knows these places as well (Go: crypto/x509/root_linux.go). On Windows they
    would be paths of the current drive, where any user may put a file: the system's store alone.
    """
    if sys.platform == "win32":
        # Not the store CA: its intermediates are not trusted there, and would be here.
        try:
            store = ssl.enum_certificates("ROOT")
        except OSError as error:
            raise KubeconfigError(
                f"unable to load root certificates of the system ({error}): name a"
                " certificate-authority in the kubeconfig"
            ) from error
        for certificate in server_roots(store):
            with suppress(ssl.SSLError):  # one that OpenSSL cannot read
                context.load_verify_locations(cadata=certificate)
        return
    context.load_default_certs()
    paths = ssl.get_default_verify_paths()
    if paths.cafile is not None or (paths.capath is not None and any(Path(paths.capath).iterdir())):
        return
    for bundle in SYSTEM_BUNDLES:
        if bundle.is_file():
            context.load_verify_locations(cafile=bundle)
            return


def server_roots(store: Iterable[tuple[bytes, str, bool | Iterable[str]]]) -> Iterator[bytes]:
    """The certificates of a store of Windows that are trusted for servers, in DER.

    As `ssl.enum_certificates` has them: content, encoding, and what each is trusted for: True for
    everything, else the object identifiers of purposes.
    """
    for content, encoding, purposes in store:
        is_trusted = purposes if isinstance(purposes, bool) else _SERVER_AUTH in purposes
        if encoding == "x509_asn" and is_trusted:
            yield content


def _identify(context: ssl.SSLContext, certificate: Path | bytes, key: Path | bytes) -> None:
    try:
        # ssl reads certificates from files only. The directory is private to the user.
        with TemporaryDirectory(prefix="kubectl-harvester-stuck-") as directory:
            context.load_cert_chain(
                _as_file(certificate, Path(directory, "certificate")),
                _as_file(key, Path(directory, "key")),
                # Given, lest ssl asks for one on the terminal.
                password="",
            )
    except (OSError, ValueError) as error:
        what = f"{_where(certificate, 'the certificate data')} and {_where(key, 'the key data')}"
        raise KubeconfigError(
            f"the client certificate cannot be used: {what} are not a certificate and its key "
            "in PEM without a password"
        ) from error


def _as_file(content: Path | bytes, path: Path) -> Path:
    if isinstance(content, Path):
        return content
    path.touch(mode=0o600)
    path.write_bytes(content)
    return path


def _where(content: Path | bytes, otherwise: str) -> str:
    return str(content) if isinstance(content, Path) else otherwise
