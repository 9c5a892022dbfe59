from dashboard.keeping import Keeping


def test_one_version_is_kept_of_each() -> None:
    """What was folded again is read again."""
    kept: Keeping[int, str] = Keeping(most_bytes=100)
    kept.keep(1, 1, "sums", 10)
    assert kept.get(1, 1) == "sums"
    assert kept.get(1, 2) is None
    kept.keep(1, 2, "other sums", 20)
    assert kept.get(1, 2) == "other sums"
    assert kept.size == 20


def test_what_was_used_last_stays() -> None:
    """Whatever was kept first."""
    kept: Keeping[int, int] = Keeping(most_bytes=20)
    kept.keep(1, 1, 1, 10)
    kept.keep(2, 1, 2, 10)
    kept.begin()
    assert kept.get(1, 1) == 1
    kept.keep(3, 1, 3, 10)
    assert [kept.get(day, 1) for day in (1, 2, 3)] == [1, None, 3]
    assert kept.size == 20


def test_a_question_throws_out_nothing_that_it_has_used() -> None:
    """Asked again, it finds as much as there is room for, and reads the rest."""
    kept: Keeping[int, int] = Keeping(most_bytes=30)
    found = []
    for _ in range(3):
        kept.begin()
        missing = [day for day in range(5) if kept.get(day, 1) is None]
        for day in missing:
            kept.keep(day, 1, day, 10)
        found.append(5 - len(missing))
    assert found == [0, 3, 3]


def test_what_is_too_large_is_not_kept() -> None:
    """Nor is anything else kept for it."""
    kept: Keeping[int, int] = Keeping(most_bytes=5)
    kept.keep(1, 1, 1, 10)
    assert (kept.get(1, 1), kept.size) == (None, 0)


def test_the_texts_of_a_key_count() -> None:
    """A client may have chosen long ones, and many."""
    kept: Keeping[tuple[object, ...], int] = Keeping(most_bytes=10_000)
    for number in range(9):
        kept.keep((number, ("x" * 3000, None)), 1, number, 10)
    assert 6000 < kept.size < 10_000
