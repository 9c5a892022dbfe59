"""A form is read however it is cut, and whatever is in it never raises."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.multipart import FormReader, boundary_of

NAMES = frozenset((b"model", b"n"))
AUDIO = b"RIFF\r\n--\r\n--b\0und\r\n"  # nearly a delimiter
FORM = (
    b"preamble\r\n--bound \t\r\n"
    b'Content-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n'
    b"--bound\r\n"
    b"content-disposition:form-data; name=n\r\nX: y\r\n\r\n2\r\n"
    b"--bound\r\n"
    b'Content-Type: audio/wav\r\nContent-Disposition: form-data; filename="; name=model"; '
    b'name="file"\r\n\r\n' + AUDIO + b"\r\n"
    b'--bound\r\nContent-Disposition: form-data; name="file"\r\n\r\na second file\r\n'
    b"--bound\r\nContent-Disposition: form-data; name=prompt\r\n\r\nsecret\r\n"
    b"--bound\r\n\r\nno header\r\n"
    b"--bound--\r\nepilogue --bound\r\n"
)


def read(form: bytes, cuts: list[int] | None = None) -> tuple[FormReader, bytes]:
    """Return the reader of a form that came in pieces, and the file that it showed."""
    shown: list[bytes] = []
    reader = FormReader(b"bound", names=NAMES, file_name=b"file", show=shown.append)
    edges = [0, *sorted(cut % (len(form) + 1) for cut in cuts or []), len(form)]
    for start, end in pairwise(edges):
        reader.feed(form[start:end])
    reader.finish()
    return reader, b"".join(shown)


@given(st.lists(st.integers(0, len(FORM)), max_size=12))
def test_fields_and_file_are_found_in_any_pieces(cuts: list[int]) -> None:
    """Names are quoted or not; a file name cannot pretend to be a field."""
    reader, shown = read(FORM, cuts)
    assert reader.fields == {b"model": b"whisper-1", b"n": b"2"}
    assert (shown, reader.problem) == (AUDIO, None)


def test_every_byte_alone_is_the_same_form() -> None:
    """A client may write as slowly as it likes."""
    reader, shown = read(FORM, list(range(len(FORM))))
    assert (reader.fields, shown) == ({b"model": b"whisper-1", b"n": b"2"}, AUDIO)


def part(name: bytes, value: bytes) -> bytes:
    """Return one part of a form."""
    return (
        b"--bound\r\nContent-Disposition: form-data; name=" + name + b"\r\n\r\n" + value + b"\r\n"
    )


@pytest.mark.parametrize(
    ("form", "fields"),
    [
        (part(b"model", b"") + b"--bound--", {b"model": b""}),
        (part(b"model", b"a") + part(b"model", b"b") + b"--bound--", {b"model": b"b"}),
        (part(b'"mo\\del"', b"a") + b"--bound--", {b"model": b"a"}),
        (part(b"model", b"x" * 2049) + b"--bound--", {}),
        (part(b"model", b"x" * 2048) + b"--bound--", {b"model": b"x" * 2048}),
        (part(b"other", b"x") + b"--bound--", {}),
        (b"--bound--", {}),
    ],
    ids=["empty", "twice", "escaped", "too long", "long", "not asked for", "nothing"],
)
def test_values_are_kept_up_to_a_size(form: bytes, fields: dict[bytes, bytes]) -> None:
    """The last one wins, as it does for those who read forms with a dictionary."""
    reader, _ = read(form)
    assert (reader.fields, reader.problem) == (fields, None)


def test_a_long_value_is_not_kept_however_it_comes() -> None:
    """Nor any part of it."""
    reader, _ = read(part(b"model", b"x" * 9000) + b"--bound--", [3000, 6000, 8000])
    assert (reader.fields, reader.problem) == ({}, None)


@pytest.mark.parametrize(
    ("form", "problem"),
    [
        (b"", "truncated"),
        (part(b"model", b"a"), "truncated"),
        (b"--bound\r\nContent-Dispos", "truncated"),
        (b"--boundX", "form_is_broken"),
        (b"--bound" + b" " * 9000, "form_is_broken"),
        (b"--bound\r\n" + b"x" * 9000, "form_is_broken"),
        (b"--bound\r\n" + b"x" * 9000 + b"\r\n\r\n", "form_is_broken"),
        (part(b"other", b"") * 1001, "form_is_broken"),
    ],
)
@pytest.mark.parametrize("cuts", [[], [10, 8000]])
def test_a_broken_form_is_said_so(form: bytes, problem: str, cuts: list[int]) -> None:
    """What was read before it stays."""
    reader, _ = read(form, cuts)
    reader.feed(b"more")
    assert reader.problem == problem


def test_a_form_needs_a_boundary() -> None:
    """Without one nothing can be found."""
    reader = FormReader(None, names=NAMES)
    reader.feed(FORM)
    reader.finish()
    assert (reader.fields, reader.problem) == ({}, "form_without_boundary")


def test_a_file_that_nobody_wants_is_skipped() -> None:
    """Images are not measured."""
    reader = FormReader(b"bound", names=NAMES)
    reader.feed(FORM)
    reader.finish()
    assert reader.fields == {b"model": b"whisper-1", b"n": b"2"}


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ("multipart/form-data; boundary=abc", b"abc"),
        ('multipart/form-data; charset=utf-8; Boundary="a b=c"', b"a b=c"),
        ("multipart/form-data", None),
        ("multipart/form-data; boundary=", None),
        ("multipart/form-data; boundary=" + "x" * 71, None),
        ('multipart/form-data; boundary="', None),
        ("multipart/form-data" + "; a=b" * 16 + "; boundary=abc", None),
    ],
)
def test_the_boundary_is_in_the_content_type(content_type: str, boundary: bytes | None) -> None:
    """Quoted where it holds what a token must not."""
    assert boundary_of(content_type) == boundary


@given(
    st.lists(
        st.binary(max_size=20)
        | st.sampled_from(
            [b"\r\n", b"--bound", b"--", b"Content-Disposition: form-data; ", b"name=", b'"', b";"]
        ),
        max_size=40,
    ),
    st.lists(st.integers(0, 400), max_size=5),
)
def test_no_bytes_make_a_reader_raise(parts: list[bytes], cuts: list[int]) -> None:
    """And the pieces they come in make no difference."""
    form = b"".join(parts)
    whole, shown = read(form)
    cut, shown_cut = read(form, cuts)
    assert (whole.fields, whole.problem, shown) == (cut.fields, cut.problem, shown_cut)
