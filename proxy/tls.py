"""TLS on both sides, and a word that names the setting where it cannot be had.

Certificates and host names of the upstream are always checked. Files are read here, so contexts are
made before an event loop runs.
"""

import ssl
from pathlib import Path

from proxy.core.mounts import Mount
from proxy.errors import ConfigurationError
from proxy.resuming import ResumingContext
from proxy.settings import Settings, variable

_PROTOCOLS = ("http/1.1",)


def upstream_context(settings: Settings) -> ResumingContext:
    """Return the context of connections to the upstream."""
    return _trusting(settings.upstream_ca_file, variable("upstream_ca_file"))


def mount_context(settings: Settings, mount: Mount) -> ResumingContext:
    """Return the context of connections to a mounted upstream, with its own authorities if any."""
    if mount.ca_file is None:
        return upstream_context(settings)
    return _trusting(Path(mount.ca_file), f"{variable('upstreams')}: {mount.name}: ca_file")


def _trusting(path: Path | None, setting: str) -> ResumingContext:
    context = ResumingContext()
    try:
        if path is None:
            context.load_default_certs()
        else:
            context.load_verify_locations(path)
    except OSError as exc:  # also what ssl.SSLError is
        raise ConfigurationError(
            f"{setting} is '{path}': expected certificates in PEM ({exc})"
        ) from exc
    context.set_alpn_protocols(_PROTOCOLS)
    return context


def listening_context(settings: Settings) -> ssl.SSLContext | None:
    """Return the context of connections from clients, None where they speak plain HTTP."""
    certificate, key = settings.listen_tls_certificate, settings.listen_tls_key
    if certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:  # a key that is encrypted is refused: nobody is there to be asked for its password
        context.load_cert_chain(certificate, key, password=lambda: b"")
    except OSError as exc:
        raise ConfigurationError(
            f"{variable('listen_tls_certificate')} is '{certificate}': expected a PEM "
            f"certificate that fits the unencrypted key '{key}' ({exc})"
        ) from exc
    context.set_alpn_protocols(_PROTOCOLS)
    return context
