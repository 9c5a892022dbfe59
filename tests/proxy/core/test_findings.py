"""What an answer says is taken over as it comes, whatever its type."""

import msgspec
import pytest

from proxy.core.findings import Findings, Members, read_members, text_of


def found(*texts: bytes) -> Findings:
    """Return what some answers say together."""
    findings = Findings()
    for text in texts:
        findings.note(read_members(text))
    return findings


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b'"gpt-4o"', "gpt-4o"),
        (b'"\\u00e4"', "ä"),
        (b'""', None),
        (b"null", None),
        (b"7", None),
        (b'"a\\u0000"', None),
        (b'"\\ud83d"', None),
        (b'"' + b"x" * 3000 + b'"', None),
    ],
)
def test_a_name_is_a_printable_string(value: bytes, text: str | None) -> None:
    """Names go into logs and tables; what could not stand there is none."""
    assert text_of(msgspec.Raw(value)) == text


def test_later_words_win_and_silence_does_not() -> None:
    """The served tier is known at the end; a model that is empty says nothing."""
    findings = found(
        b'{"id":"","model":"","service_tier":"auto","status":"in_progress","usage":null}',
        b'{"id":"r1","model":"m","service_tier":"default","status":"completed","usage":{"a":1}}',
        b'{"id":null,"service_tier":null,"usage":null}',
    )
    assert (findings.response_id, findings.model) == ("r1", "m")
    assert (findings.service_tier, findings.status) == ("default", "completed")
    assert findings.usage == b'{"a":1}'
    assert not findings.failed


@pytest.mark.parametrize(
    ("answer", "error_type"),
    [
        (b'{"error":{"code":"model_not_found","type":"invalid_request_error"}}', "model_not_found"),
        (b'{"error":{"code":null,"type":"invalid_request_error"}}', "invalid_request_error"),
        (b'{"error":{"code":"404","message":"x"}}', "404"),
        (b'{"error":{"code":429}}', "429"),
        (b'{"error":"so sorry","code":"odd"}', "odd"),
        (b'{"error":"so sorry"}', None),
        (b'{"status":"failed","error":null}', None),
    ],
)
def test_an_error_is_named_by_its_code_or_else_its_type(
    answer: bytes, error_type: str | None
) -> None:
    """Both are words that can be counted; messages are not."""
    findings = found(answer)
    assert findings.failed
    assert findings.error_type == error_type


def test_half_a_character_hides_nothing() -> None:
    """A prompt that was cut in an emoji is echoed by the answer."""
    assert found(b'{"x":"\\ud83d","usage":{"a":1},"model":"m"}').usage == b'{"a":1}'


def test_members_that_are_missing_are_empty() -> None:
    """No default can be mistaken for something that was said."""
    defaults = [getattr(Members(), name) for name in Members.__struct_fields__]
    assert all(default is None or bytes(default) == b"" for default in defaults)


def test_a_member_of_an_odd_type_does_not_hide_the_others() -> None:
    """A model that is a number is no name, and the usage beside it still counts."""
    findings = found(b'{"id":7,"model":"m","status":[],"usage":{"a":1}}')
    assert (findings.response_id, findings.model, findings.usage) == (None, "m", b'{"a":1}')
