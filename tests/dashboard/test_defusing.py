import asyncpg
import pytest

from dashboard.defusing import SUSPICIOUS, harmless


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("ada", "ada"),
        ("a=b", "a=b"),
        ("=cmd()", "'=cmd()"),
        ("  +1", "'  +1"),
        ("\uff1d1", "'\uff1d1"),
        ("\t=1", "' =1"),
        ("two\r\nlines", "two  lines"),
        ("-1|@x", "'-1|@x"),
        ("שלום 🙂", "שלום 🙂"),
    ],
)
async def test_a_text_is_harmless_in_a_spreadsheet(database: str, text: str, made: str) -> None:
    """And whatever was changed had been found suspicious."""
    connection = await asyncpg.connect(database)
    row = await connection.fetchrow(
        f"SELECT {harmless('given')}, given ~ '{SUSPICIOUS}' FROM (SELECT $1::text AS given) AS t",  # noqa: S608 - of constants
        text,
    )
    await connection.close()
    assert row is not None
    found, suspicious = row
    assert found == made
    assert suspicious or text == made
