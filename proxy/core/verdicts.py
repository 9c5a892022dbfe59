"""What is decided of calls that may cost something and have no price here: why, in one word.

The word is the row's `usage_problem`, its cost is NULL: such a call is in no sum, and is seen to be
in none. A price file that lists the kind as free has the last word.
"""

from collections.abc import Mapping

NO_PUBLISHED_PRICE = "no_published_price"
USAGE_NOT_READ = "usage_not_read"
BILLED_ELSEWHERE = "billed_elsewhere"
UNKNOWN_OPERATION = "unknown_operation"

_BY_TURNS = "its turns run later and tell their usage to whoever lists them; that is not read"

# By operation: the word, and a sentence for people.
UNPRICED: Mapping[str, tuple[str, str]] = {
    "unknown": (UNKNOWN_OPERATION, "a path that no line of the registry knows"),
    "vector_stores.search": (
        NO_PUBLISHED_PRICE,
        "the published fee of file search is for the tool of responses, not for a search by itself",
    ),
    "content_provenance_checks": (NO_PUBLISHED_PRICE, "none is published"),
    "audio.voices.create": (NO_PUBLISHED_PRICE, "none is published for making a voice"),
    "agents.environments.create": (
        USAGE_NOT_READ,
        "billed like a container, for a time and a size that its answer does not tell",
    ),
    "live.attach": (BILLED_ELSEWHERE, "the session is charged to the call that opened it"),
    "chatkit.sessions.create": (
        BILLED_ELSEWHERE,
        "its workflow is run by OpenAI for a browser, past this proxy",
    ),
    "fine_tuning.graders.run": (
        USAGE_NOT_READ,
        "the answer tells tokens by grading model without their kinds",
    ),
    "agents.sessions.create": (USAGE_NOT_READ, _BY_TURNS),
    "agents.sessions.events.create": (USAGE_NOT_READ, _BY_TURNS),
    "agents.automations.create": (USAGE_NOT_READ, _BY_TURNS),
    "agents.automations.resume": (USAGE_NOT_READ, _BY_TURNS),
    "agents.automations.invocations.create": (USAGE_NOT_READ, _BY_TURNS),
}
