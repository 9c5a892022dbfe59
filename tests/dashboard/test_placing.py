from dashboard.cells import SUMS
from dashboard.placing import OPEN, PACKED


def test_users_can_be_ranked_by_every_sum_that_a_page_shows() -> None:
    """And by their names."""
    unsorted = {"audio_prompt_tokens", "audio_completion_tokens"}
    assert set(PACKED) == set(OPEN) == {*SUMS, "name"} - unsorted
