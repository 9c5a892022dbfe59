"""The vocabularies are OpenAI's own, no network is needed, and whatever is asked gets an answer."""

import base64
import hashlib
import io
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from tiktoken.load import load_tiktoken_bpe
from tiktoken_ext import openai_public

from proxy import estimating
from proxy.core.estimates import Question
from proxy.core.model import Estimate

HASHES = {  # as tiktoken expects them of what it downloads
    "o200k_base": "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
    "cl100k_base": "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
}
CHAT = b'{"model":"gpt-4o","messages":[{"role":"user","content":"Say this is a test!"}]}'
ANSWER = b'{"choices":[{"index":0,"message":{"content":"This is a test."}}]}'
WITHOUT_NETWORK = """
import socket, sys
def refuse(*_): raise SystemExit("the network was asked for")
socket.socket.connect = socket.getaddrinfo = refuse
from proxy.estimating import count
print(count("o200k_base", sys.argv[1]), count("cl100k_base", sys.argv[1]))
"""


@pytest.mark.parametrize("vocabulary", HASHES)
def test_the_vocabularies_are_those_that_tiktoken_would_download(vocabulary: str) -> None:
    """Unpacked to the last byte: a token and its rank on each line."""
    lines = (
        base64.b64encode(token) + b" %d\n" % rank
        for token, rank in estimating.ranks_of(vocabulary).items()
    )
    assert hashlib.sha256(b"".join(lines)).hexdigest() == HASHES[vocabulary]


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("Say this is a test!", (6, 6)),
        ("<|endoftext|>", (7, 7)),
        ("Übergrößenträger 東京都 👩‍🚀", (12, 19)),
        ("", (0, 0)),
    ],
)
def test_texts_are_cut_into_tokens(text: str, counts: tuple[int, int]) -> None:
    """What looks like a special token is text."""
    found = (estimating.count("o200k_base", text), estimating.count("cl100k_base", text))
    assert found == counts


def test_no_network_is_asked() -> None:
    """In a process that cannot reach one."""
    done = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-c", WITHOUT_NETWORK, "Say this is a test!"],
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    assert (done.stdout.split(), done.stderr) == (["6", "6"], "")


def test_tiktoken_keeps_its_own_way_of_fetching() -> None:
    """Ours is in its place only for as long as an encoding is made."""
    estimating.count("o200k_base", "x")
    assert openai_public.load_tiktoken_bpe is load_tiktoken_bpe


def test_a_question_gets_an_estimate() -> None:
    """Of a real conversation: the API reported 13 and 5."""
    question = Question(
        operation_name="chat",
        model="gpt-4o-2024-08-06",
        request=CHAT,
        answer=ANSWER,
        answer_bytes=len(ANSWER),
    )
    found = estimating.answer(msgspec.msgpack.encode(question))
    assert found == Estimate(input_tokens=13, output_tokens=5)


@pytest.mark.parametrize(
    "asked",
    [
        b"",
        b"\xc1",
        msgspec.msgpack.encode(
            Question(operation_name="embeddings", request=b'{"input":' + b"[" * 9000 + b"]" * 9000)
        ),
    ],
    ids=["nothing", "noise", "deep"],
)
def test_whatever_is_asked_gets_an_answer(asked: bytes) -> None:
    """The next question may be a good one."""
    assert estimating.answer(asked).input_tokens is None


def test_questions_and_estimates_come_in_frames() -> None:
    """Until there are no more."""
    packed = msgspec.msgpack.encode(Question(operation_name="embeddings", request=b'{"input":"a"}'))
    frame = estimating.FRAME.pack(len(packed)) + packed
    estimates = io.BytesIO()
    estimating.serve(io.BytesIO(frame + frame + b"\0"), estimates)
    answer = msgspec.msgpack.encode(Estimate(input_tokens=1))
    assert estimates.getvalue() == 2 * (estimating.FRAME.pack(len(answer)) + answer)


def test_the_process_ends_with_its_questions() -> None:
    """Its parent may be killed: the pipe ends then."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "proxy.estimating"],
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            cwd=Path(__file__).parents[2],
        )
        theirs.close()
        ours.close()
        assert process.wait(timeout=60) == 0
