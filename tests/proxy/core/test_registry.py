"""What is known of the API is data, and each name in it is known elsewhere in it."""

from proxy.core.registry import CHARGED, MAKERS, MEDIA_ELSEWHERE, REGISTRY, SHOWN, TIMED_SESSIONS

NAMES = {operation.name: operation for known in REGISTRY.values() for operation in known.values()}


def test_only_chunked_completions_are_spliced() -> None:
    """A Responses stream tells its usage unasked, an embedding has no stream."""
    spliced = {operation.name for _, _, operation in CHARGED if operation.splices}
    assert spliced == {"chat", "text_completion"}


def test_what_sets_up_media_is_no_session() -> None:
    """Each of those calls is in the registry, and so are sessions that are billed by time."""
    assert not any(NAMES[name].is_session for name in MEDIA_ELSEWHERE)
    assert all(NAMES[name].is_session for name in TIMED_SESSIONS)


def test_what_is_shown_and_made_are_operations_that_there_are() -> None:
    """A name that nothing has would watch nothing."""
    assert NAMES.keys() >= SHOWN.keys() >= MAKERS
    assert (NAMES["batches.create"].shows, NAMES["batches.create"].makes) == ("batch", True)
    assert (NAMES["batches.retrieve"].shows, NAMES["batches.retrieve"].makes) == ("batch", False)
    assert (NAMES["responses"].shows, NAMES["responses"].makes) == ("response", False)


def test_what_has_a_line_of_its_own_comes_before_what_is_made_of_several() -> None:
    """The usual verbs name what nothing else does; no pattern is there twice."""
    posted = REGISTRY["POST", 1]
    assert posted["embeddings",].reads_usage
    assert posted["batches",].name == "batches.create"
    assert REGISTRY["DELETE", 2]["models", "*"].name == "models.delete"
    assert REGISTRY["GET", 1]["realtime",].is_session
