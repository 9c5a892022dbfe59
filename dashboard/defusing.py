"""Text that a spreadsheet would take for a formula, made harmless where the rows are made: in SQL.

What begins like a formula (OWASP ASVS 1.2.10, and the full-width twins of its signs) gets an
apostrophe before it; control characters, which would end a line or be stripped before a spreadsheet
looks, become spaces. The expressions are constants of this program and never hold a value.
"""

# One look at a whole row, whose texts are joined by bars: nearly all rows are harmless.
SUSPICIOUS = r"(^|\|)\s*[=+@＝＋－＠-]|[\x01-\x1f\x7f]"  # noqa: RUF001 - meant
_FORMULA = r"^[\s]*[=+@＝＋－＠-]"  # noqa: RUF001 - meant


def harmless(text: str) -> str:
    """Return the expression that makes the text of another one harmless."""
    clean = rf"regexp_replace({text}, '[\x01-\x1f\x7f]', ' ', 'g')"
    return f"CASE WHEN {text} ~ '{_FORMULA}' THEN '''' || {clean} ELSE {clean} END"
