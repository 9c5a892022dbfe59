import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from proxy.core.mounts import Mount
from proxy.errors import ConfigurationError
from proxy.settings import Settings, read_settings
from proxy.tls import listening_context, mount_context, upstream_context

PASSWORD = b"secret"


def _issued(directory: Path) -> dict[str, str]:
    """Write a certificate, its key and its authority; return their settings."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    issued.private_key_pem.write_to_path(directory / "key.pem")
    issued.cert_chain_pems[0].write_to_path(directory / "certificate.pem")
    authority.cert_pem.write_to_path(directory / "ca.pem")
    return {
        "listen_tls_certificate": str(directory / "certificate.pem"),
        "listen_tls_key": str(directory / "key.pem"),
        "upstream_ca_file": str(directory / "ca.pem"),
    }


def test_contexts_are_made_of_what_is_set(tmp_path: Path) -> None:
    """Only the given authority is trusted, and names are checked."""
    settings = read_settings(_issued(tmp_path))
    assert isinstance(listening_context(settings), ssl.SSLContext)
    upstream = upstream_context(settings)
    assert len(upstream.get_ca_certs()) == 1
    assert upstream.check_hostname
    assert upstream.verify_mode is ssl.CERT_REQUIRED


def test_without_a_certificate_clients_speak_plainly() -> None:
    """It is an option."""
    assert listening_context(read_settings({})) is None


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (upstream_context, ("upstream_ca_file",)),
        (listening_context, ("listen_tls_certificate", "listen_tls_key")),
    ],
)
def test_files_that_are_no_certificates_are_named(
    tmp_path: Path, make: Callable[[Settings], object], names: tuple[str, ...]
) -> None:
    """With the setting that points at them."""
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("nothing of the kind")
    settings = read_settings(dict.fromkeys(names, str(wrong)))
    with pytest.raises(ConfigurationError, match=rf"METER_{names[0].upper()} is '.*wrong.pem'"):
        make(settings)


def test_an_encrypted_key_is_refused(tmp_path: Path) -> None:
    """Instead of asking a terminal for its password, for ever."""
    given = _issued(tmp_path)
    plain = serialization.load_pem_private_key((tmp_path / "key.pem").read_bytes(), None)
    (tmp_path / "key.pem").write_bytes(
        plain.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(PASSWORD),
        )
    )
    with pytest.raises(ConfigurationError, match="the unencrypted key"):
        listening_context(read_settings(given))


def test_a_mounted_upstream_may_have_authorities_of_its_own(tmp_path: Path) -> None:
    """Without, those of the upstream at `/`; a file that is none is named with its upstream."""
    given = _issued(tmp_path)
    settings, url = read_settings(given), "https://localhost"
    assert len(mount_context(settings, Mount(name="a", url=url)).get_ca_certs()) == 1
    own = Mount(name="a", url=url, ca_file=given["upstream_ca_file"])
    assert len(mount_context(read_settings({}), own).get_ca_certs()) == 1
    wrong = Mount(name="a", url=url, ca_file=given["listen_tls_key"])
    with pytest.raises(ConfigurationError, match=r"METER_UPSTREAMS: a: ca_file is '.*key.pem'"):
        mount_context(settings, wrong)
