import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import trustme

from proxy import preflight
from proxy.errors import ConfigurationError, DirectoryInUseError, PriceFileError
from proxy.resources import resource
from proxy.settings import read_settings

HOLD = (
    "import sys, time; from pathlib import Path; from proxy import preflight;"
    "fd = preflight.claim(Path(sys.argv[1]), patience_seconds=0);"
)


def test_good_settings_pass(tmp_path: Path) -> None:
    """A certificate with its key, authorities, the prices that are shipped."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "certificate.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    settings = read_settings(
        {
            "listen_tls_certificate": str(tmp_path / "certificate.pem"),
            "listen_tls_key": str(tmp_path / "key.pem"),
            "upstream_ca_file": str(tmp_path / "ca.pem"),
        }
    )
    assert preflight.check(settings) == []


def test_prices_for_an_upstream_that_is_not_there_are_odd(tmp_path: Path) -> None:
    """Its name may be misspelt, and then it would be priced by OpenAI's list."""
    prices = tmp_path / "pricing.yaml"
    shipped = resource("pricing.yaml").read_text()
    prices.write_text(shipped.replace("upstreams: {}", "upstreams: {azur: {}, vllm: {}}"))
    upstreams = '{"azure": "https://a.example", "vllm": "http://10.0.0.7"}'
    settings = read_settings({"pricing_file": str(prices), "upstreams": upstreams})
    (remark,) = preflight.check(settings)
    assert "'azur', which METER_UPSTREAMS does not have" in remark


@pytest.mark.parametrize(
    "names", [("upstream_ca_file",), ("listen_tls_certificate", "listen_tls_key")]
)
def test_files_that_are_no_certificates_end_the_start(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    """Before anything is started."""
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("nothing of the kind")
    with pytest.raises(ConfigurationError):
        preflight.check(read_settings(dict.fromkeys(names, str(wrong))))


def test_authorities_of_a_mounted_upstream_are_looked_at(tmp_path: Path) -> None:
    """As those of the upstream at `/` are."""
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("nothing of the kind")
    upstreams = f'{{"mine": {{"url": "https://a.example", "ca_file": "{wrong}"}}}}'
    with pytest.raises(ConfigurationError, match="METER_UPSTREAMS: mine: ca_file"):
        preflight.check(read_settings({"upstreams": upstreams}))


def test_an_unreadable_pricing_file_ends_the_start(tmp_path: Path) -> None:
    """The message is the loader's."""
    wrong = tmp_path / "pricing.yaml"
    wrong.write_text("models: [")
    with pytest.raises(PriceFileError, match=r"pricing\.yaml"):
        preflight.check(read_settings({"pricing_file": str(wrong)}))


def test_a_directory_is_made_and_claimed(tmp_path: Path) -> None:
    """The lock file names us, for others to read."""
    descriptor = preflight.claim(tmp_path / "a" / "b", patience_seconds=0)
    assert (tmp_path / "a" / "b" / "lock").read_text() == f"{os.getpid()}\n"
    os.close(descriptor)


def test_a_directory_in_use_names_the_process(tmp_path: Path) -> None:
    """Whoever lives is not waited for."""
    program = HOLD + "print('mine', flush=True); time.sleep(60)"
    with subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE
    ) as owner:
        assert owner.stdout is not None
        owner.stdout.readline()
        with pytest.raises(DirectoryInUseError, match=f"process {owner.pid} uses it"):
            preflight.claim(tmp_path, patience_seconds=60)
        owner.kill()


def test_children_of_a_dead_owner_are_waited_for(tmp_path: Path) -> None:
    """After `kill -9` the old workers still finish; the new start waits and then succeeds."""
    program = HOLD + (
        "import subprocess;"
        "child = subprocess.Popen(['sleep', '0.5'], pass_fds=[fd], stdout=subprocess.DEVNULL)"
    )
    subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-W", "ignore", "-c", program, str(tmp_path)], check=True, timeout=30
    )
    began = time.monotonic()
    with pytest.raises(DirectoryInUseError):
        preflight.claim(tmp_path, patience_seconds=0)
    os.close(preflight.claim(tmp_path, patience_seconds=30))
    assert time.monotonic() - began > 0.1


def test_a_place_where_no_directory_can_be_made_is_named(tmp_path: Path) -> None:
    """Below a file there is none, not even for root."""
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=r"METER_DATA_DIR is '.*file/data'"):
        preflight.claim(tmp_path / "file" / "data", patience_seconds=0)
