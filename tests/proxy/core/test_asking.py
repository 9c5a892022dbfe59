"""What a request asks for is read from JSON and from forms, in whatever spelling."""

import pytest

from proxy.core.asking import Form, RequestFacts, facts_of_json, facts_with_units
from proxy.core.model import RequestUnits
from proxy.core.operations import operation_of

TRANSLATIONS = operation_of("POST", "/v1/audio/translations")
IMAGES = operation_of("POST", "/v1/images/generations")
SPEECH = operation_of("POST", "/v1/audio/speech")
EXTENSION = operation_of("POST", "/v1/videos/extensions")


def form_of(**fields: str) -> Form:
    """Return a form with these fields."""
    form = Form(TRANSLATIONS, "multipart/form-data; boundary=b")
    for name, value in fields.items():
        part = f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        form.feed(part.encode())
    form.feed(b"--b--")
    return form


def test_an_ordinary_request_is_read() -> None:
    """Nothing of it is billed by the unit."""
    body = b'\xef\xbb\xbf{"model":"m","user":"u","n":2,"metadata":{"a":"b"}}'
    expected = RequestFacts(model="m", stream=False, user="u", metadata={"a": "b"})
    assert facts_of_json(body) == expected
    assert facts_of_json(b"") == RequestFacts()
    assert facts_of_json(None) == RequestFacts(problem="body_too_large")


def test_odd_members_say_nothing() -> None:
    """The others are read all the same."""
    body = b'{"model":7,"stream":"true","user":[1],"safety_identifier":"\xff","metadata":"x"}'
    assert facts_of_json(body) == RequestFacts()
    assert facts_of_json(b'{"model":7,"metadata":{"a":1}}').metadata == {"a": 1}


@pytest.mark.parametrize(
    ("body", "units"),
    [
        (
            b'{"n":2,"size":"512x512","quality":"hd"}',
            RequestUnits(images=2, size="512x512", quality="hd"),
        ),
        (b'{"n":null,"size":5,"quality":""}', RequestUnits()),
        (b'{"n":"2","size":"' + b"x" * 33 + b'"}', RequestUnits()),
        (b'{"n":99999,"size":"a\\u0000"}', RequestUnits()),
    ],
)
def test_an_image_is_asked_for_by_size_and_quality(body: bytes, units: RequestUnits) -> None:
    """What could not be a key of the price list is not kept."""
    assert facts_with_units(body, IMAGES).units == units


def test_a_text_to_be_spoken_is_counted_in_characters() -> None:
    """Not in bytes; and the text itself is not kept."""
    body = '{"model":"tts-1","input":"zwölf \\ud83d\\ude00","stream_format":"sse"}'.encode()
    facts = facts_with_units(body, SPEECH)
    assert (facts.units, facts.stream) == (RequestUnits(characters=7), True)
    assert facts_with_units(b'{"input":["x"]}', SPEECH).units == RequestUnits()
    assert facts_with_units(b"", SPEECH) == RequestFacts()
    assert facts_with_units(b'{"stream":true,"input":"x"}', SPEECH).stream is True


@pytest.mark.parametrize(
    ("body", "seconds"),
    [(b'{"seconds":"8"}', 8), (b'{"seconds":12}', 12), (b'{"seconds":[8]}', None), (b"{}", None)],
)
def test_a_video_is_extended_by_seconds(body: bytes, seconds: int | None) -> None:
    """As a text or as a number."""
    assert facts_with_units(body, EXTENSION).units == RequestUnits(video_seconds=seconds)
    assert form_of(seconds="8").finish().units == RequestUnits(video_seconds=8)


def test_a_form_is_read() -> None:
    """Its values are texts, whatever they stand for."""
    form = form_of(
        model="gpt-image-1", n="2", size="256x256", quality="low", user="u", stream="True"
    )
    assert form.finish() == RequestFacts(
        model="gpt-image-1",
        stream=True,
        user="u",
        units=RequestUnits(images=2, size="256x256", quality="low"),
    )


def test_a_form_may_say_nothing() -> None:
    """Or nonsense."""
    empty = RequestFacts(stream=False, units=RequestUnits())
    assert form_of().finish() == empty
    assert form_of(model="", n="-1", size="\0", user=" ").finish() == empty
    cut = Form(IMAGES, "multipart/form-data").finish()
    assert (cut.problem, cut.units) == ("form_without_boundary", None)


@pytest.mark.parametrize(
    ("options", "tier"),
    [
        ('{"completion_window":"8h"}', "background_8h"),
        ('{"completion_window":"soonest"}', "flex"),
        ("{}", "flex"),
        ("null", "flex"),
    ],
)
@pytest.mark.parametrize("user", ['"ada"', "7"])
def test_to_wait_for_hours_is_a_tier(options: str, tier: str, user: str) -> None:
    """It has a price of its own."""
    body = f'{{"service_tier":"flex","background_options":{options},"user":{user}}}'
    assert facts_of_json(body.encode()).service_tier == tier
