from pathlib import Path

import trustme

from proxy.banner import banner
from proxy.settings import read_settings
from proxy.values import Address


def test_it_says_where_everything_is() -> None:
    """The base URL can be copied, the password is there once."""
    text = banner(
        read_settings(
            {
                "data_dir": "/srv/meter",
                "upstream_url": "http://10.0.0.7",
                "upstreams": '{"azure": {"url": "https://a.example", "headers": {"k": "s3cret"}}}',
            }
        ),
        listen=Address("127.0.0.1", 8080),
        dashboard=Address("::", 8081),
        database="db.internal/meter",
        password="made-just-now",  # noqa: S106 - no real one
    )
    assert "http://127.0.0.1:8080/v1" in text
    assert "http://localhost:8081/admin   user admin, password made-just-now" in text
    assert "  upstream   http://10.0.0.7\n" in text
    assert "  /azure     https://a.example\n" in text
    assert "s3cret" not in text
    assert "db.internal/meter" in text
    assert "/srv/meter" in text


def test_it_speaks_of_https_and_not_of_a_password_that_is_known(tmp_path: Path) -> None:
    """A chosen password is not printed; where a new one comes from is."""
    pem = tmp_path / "both.pem"
    trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(pem)
    text = banner(
        read_settings(
            {
                "data_dir": "/srv/meter",
                "listen_tls_certificate": str(pem),
                "listen_tls_key": str(pem),
                "admin_password": "correct horse",
            }
        ),
        listen=Address("::1", 8443),
        dashboard=Address("127.0.0.1", 8081),
        database="x",
        password=None,
    )
    assert "https://[::1]:8443/v1" in text
    assert "correct horse" not in text
    assert (
        "user admin, password as set or as shown at the first start; "
        "delete /srv/meter/admin-password for a new one\n"
    ) in text
