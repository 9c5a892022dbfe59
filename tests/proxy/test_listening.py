import asyncio
import contextlib
import socket
import subprocess
import sys

import pytest

from proxy.errors import ListenError
from proxy.listening import bound_port, open_sockets
from proxy.values import Address


def test_several_sockets_share_one_free_port() -> None:
    """Port 0 is any, but the same for all."""
    sockets = open_sockets(Address("127.0.0.1", 0), 3, setting="METER_LISTEN")
    with contextlib.ExitStack() as stack:
        for listener in sockets:
            stack.enter_context(listener)
        assert len({bound_port(listener) for listener in sockets}) == 1


@pytest.mark.parametrize("reuse", [False, True], ids=["plain", "sharing"])
def test_a_port_in_use_is_named(reuse: bool) -> None:  # noqa: FBT001 - a table
    """Also if whoever has it would share it: that is another openai-meter."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(reuse))
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = Address("127.0.0.1", bound_port(taken))
        with pytest.raises(
            ListenError, match=r"METER_LISTEN: cannot listen on 127\.0\.0\.1:"
        ) as caught:
            open_sockets(address, 2, setting="METER_LISTEN")
    assert "stop the process" in str(caught.value)


def test_an_address_of_another_machine_is_refused() -> None:
    """TEST-NET-1 is nobody's."""
    with pytest.raises(ListenError, match="no such address"):
        open_sockets(Address("192.0.2.1", 0), 1, setting="METER_LISTEN")


def test_a_name_that_nobody_knows_is_refused() -> None:
    """The message names it."""
    with pytest.raises(ListenError, match=r"no\.such\.host\.invalid:80"):
        open_sockets(Address("no.such.host.invalid", 80), 1, setting="METER_LISTEN")


@pytest.mark.parametrize("host", ["", "::"], ids=["every interface", "every IPv6 interface"])
async def test_every_interface_takes_ipv4(host: str) -> None:
    """`:8080` and `[::]:8080` are for both families."""
    if host and not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    try:
        listener = open_sockets(Address(host, 0), 1, setting="METER_LISTEN")[0]
    except ListenError:
        pytest.skip("no IPv6 here")
    with listener:
        _, writer = await asyncio.open_connection("127.0.0.1", bound_port(listener))
        writer.close()
        await writer.wait_closed()


ADVICE = "raise the hard limit (`ulimit -Hn`, LimitNOFILE)"
LIMITED = """
import resource, sys
from proxy.listening import raise_file_limit
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[2])))
limit, remark = raise_file_limit()
assert resource.getrlimit(resource.RLIMIT_NOFILE) == (limit, limit)
print(limit, remark)
"""


@pytest.mark.parametrize(
    ("soft", "hard", "said"),
    [
        (256, 4096, "4096 None"),
        (128, 1024, f"1024 1024 open files allow about 512 calls at once: {ADVICE}"),
    ],
    ids=["enough", "few"],
)
def test_a_worker_takes_all_descriptors_that_it_may(soft: int, hard: int, said: str) -> None:
    """Many systems begin with 1024, or 500 streams; where there is no more, it is said."""
    found = subprocess.run(  # noqa: S603 (our own text)
        [sys.executable, "-c", LIMITED, str(soft), str(hard)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert found.stdout.strip() == said
