import os
from pathlib import Path

from prove.stage import free_port, holder_of
from proxy.durability import lock_file


def test_who_holds_a_lock_is_told_while_it_is_held(tmp_path: Path) -> None:
    """A file that is not there, or that nobody has locked, is held by nobody."""
    lock = tmp_path / "recorder.lock"
    assert holder_of(lock) is None
    fd = lock_file(lock)
    assert holder_of(lock) == os.getpid()
    os.close(fd)
    assert holder_of(lock) is None


def test_a_port_to_listen_on_is_none_that_connections_are_given() -> None:
    """It is still free when `serve` comes back."""
    first, last = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    assert not int(first) <= free_port() <= int(last)
