import pytest

from proxy.core.dialects import DIALECTS
from proxy.core.registry import SESSIONS

REALTIME, RESPONSES, LIVE = (
    DIALECTS[f"{name}.connect"] for name in ("realtime", "responses", "live")
)


def test_each_dialect_is_that_of_a_session() -> None:
    """A misspelled name would be a session that is never read."""
    assert DIALECTS.keys() <= {name for _, name in SESSIONS}


@pytest.mark.parametrize(
    ("start", "matters"),
    [
        (b'{"type":"response.done","event_id":"e"', True),
        (b'{"event_id":"e","type" : "response.done"', True),
        (
            b' {\n"event_id": "e", "sequence_number": -1.5, "ok": null, "type": "response.created"',
            True,
        ),
        (b'{"type":"error"', True),
        (b'{"type":"session.updated"', True),
        (b'{"type":"conversation.item.input_audio_transcription.completed"', True),
        (b'{"type":"conversation.item.input_audio_transcription.delta"', False),
        (b'{"type":"response.output_audio.delta","delta":"AAAA', False),
        (b'{"event_id":"e","type":"rate_limits.updated"', False),
        (b'{"response":{"type":"x"},"type":"response.done"', True),
        (b'{"event_id":"e\\"","type":"x"', True),
        (b"[]", True),
        (b"", True),
    ],
)
def test_what_does_not_matter_is_known_by_its_start(start: bytes, *, matters: bool) -> None:
    """Where it cannot be known, it may matter."""
    assert REALTIME.matters(start) is matters


def test_dialects_bill_different_events() -> None:
    """The end of a response has other names, and some hold what they have delegated."""
    assert RESPONSES.matters(b'{"type":"response.completed"')
    assert not RESPONSES.matters(b'{"type":"response.done"')
    assert not REALTIME.matters(b'{"type":"response.completed"')
    assert LIVE.matters(b'{"type":"response.event"')
    assert not LIVE.matters(b'{"type":"session.output_audio.delta"')
