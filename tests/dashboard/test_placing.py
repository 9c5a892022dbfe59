from dashboard.cells import SUMS
from dashboard.placing import OF_DAYS, OF_LATE_ROWS, OF_ROWS, PACKED


def test_users_can_be_ranked_by_every_sum_that_a_page_shows() -> None:
    """And by their names."""
    unsorted = {"audio_prompt_tokens", "audio_completion_tokens"}
    for statements in (PACKED, OF_DAYS, OF_ROWS, OF_LATE_ROWS):
        assert set(statements) == {*SUMS, "name"} - unsorted
