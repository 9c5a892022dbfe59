"""Who asks what, and when: weeks in the life of a homework helper. Pure: given its random numbers.

Five features, a few hundred pupils, school days, busy afternoons and quiet nights; now and then an
error, a pupil who closes the page in mid-sentence, a model without a price, a picture, a search.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import Any

PUPILS = 420
UNPRICED_MODEL = "homework-tutor-preview"  # in no price list, on purpose

_COURSES = ("algebra-1", "algebra-2", "geometry", "biology", "chemistry", "history", "english")
_HOURS = (1, 1, 1, 1, 1, 2, 5, 12, 14, 12, 11, 12, 15, 24, 38, 52, 60, 58, 50, 42, 33, 22, 10, 3)
_WEEKDAYS = (1.0, 1.06, 1.04, 0.98, 0.62, 0.34, 0.71)  # Monday first; on Sunday it is due tomorrow
_GROWTH_PER_DAY = 0.006
_BAD_HOUR_DAYS_AGO = 9  # an afternoon on which the upstream was ill
_BAD_HOURS = range(14, 17)

# Shares of all calls, or of those that could.
_ERRORS, _ERRORS_OF_THE_ILL = 0.012, 0.3
_HANGS_UP, _NAMELESS, _TEACHERS, _SEARCHES = 0.006, 0.008, 0.05, 0.07
_CACHED, _CACHED_FROM, _CACHE_BLOCK = 0.7, 1024, 128  # tokens: what the prompt cache works with

_DRAWING = "A right triangle with its altitude, drawn with chalk on a blackboard."
_SENTENCE = "Multiply both sides by the denominator, then collect what has an x in it. "


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call as a client will make it; `answer` is what the demo's upstream is told to say."""

    at: datetime
    user: str | None
    endpoint: str
    metadata: Mapping[str, str]
    path: str
    body: Mapping[str, Any]
    answer: Mapping[str, Any] = field(default_factory=dict)
    hangs_up: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Feature:
    """How one feature of the helper calls the API."""

    name: str
    share: float
    path: str
    models: Mapping[str, float]
    prompt_tokens: int
    cached_share: float
    completion_tokens: int
    reasoning_share: float = 0.0
    streamed: float = 0.0
    seconds: float = 0.5


_FEATURES = (
    _Feature(
        name="analyze_homework",
        share=17,
        path="/v1/responses",
        models={"gpt-5.4": 74, "gpt-6-sol": 19, "text-embedding-3-small": 30},
        prompt_tokens=2600,
        cached_share=0.35,
        completion_tokens=720,
        reasoning_share=0.4,
        seconds=1.1,
    ),
    _Feature(
        name="generate_hint",
        share=28,
        path="/v1/chat/completions",
        models={"gpt-5.4-mini": 92, UNPRICED_MODEL: 1.2, "dall-e-3": 0.8},
        prompt_tokens=1100,
        cached_share=0.55,
        completion_tokens=190,
        streamed=0.8,
        seconds=0.5,
    ),
    _Feature(
        name="verify_answer",
        share=24,
        path="/v1/chat/completions",
        models={"gpt-5.4-nano": 70, "o4-mini": 12},
        prompt_tokens=640,
        cached_share=0.2,
        completion_tokens=90,
        reasoning_share=0.55,
        seconds=0.35,
    ),
    _Feature(
        name="chat_response",
        share=22,
        path="/v1/chat/completions",
        models={"gpt-5.4-mini": 60, "gpt-4.1-mini": 25, "tts-1": 2},
        prompt_tokens=1700,
        cached_share=0.6,
        completion_tokens=340,
        streamed=0.95,
        seconds=0.7,
    ),
    _Feature(
        name="validate_image",
        share=9,
        path="/v1/chat/completions",
        models={"gpt-4o": 20, "gpt-5.4-mini": 80},
        prompt_tokens=1500,
        cached_share=0.05,
        completion_tokens=110,
        seconds=0.8,
    ),
)


def history(random: Random, *, since: datetime, until: datetime, count: int) -> list[Call]:
    """Return about so many calls between two moments, in the order of time."""
    hours = list(_hours(since, until))
    total = sum(weight for _, weight in hours)
    moments = [
        moment
        for hour, weight in hours
        for moment in _moments(random, hour, weight / total * count, until=until)
    ]
    return [call(random, at=at, now=until) for at in sorted(moments)]


def call(random: Random, *, at: datetime, now: datetime) -> Call:
    """Return a call that somebody might make at a moment."""
    feature = random.choices(_FEATURES, [feature.share for feature in _FEATURES])[0]
    model = random.choices(tuple(feature.models), tuple(feature.models.values()))[0]
    metadata = {"course": random.choice(_COURSES), "grade": str(random.randint(6, 12))}
    made = _made(random, feature, model)
    ill = at.hour in _BAD_HOURS and (now.date() - at.date()).days == _BAD_HOUR_DAYS_AGO
    answer = made.answer | _mishap(random, likely=_ERRORS_OF_THE_ILL if ill else _ERRORS)
    return Call(
        at=at,
        user=_user(random),
        endpoint=feature.name,
        metadata=metadata,
        path=made.path,
        body=made.body,
        answer=answer,
        hangs_up=bool(made.body.get("stream")) and random.random() < _HANGS_UP,
    )


def _hours(since: datetime, until: datetime) -> Iterator[tuple[datetime, float]]:
    """Return every hour with how busy it is."""
    hour = since.replace(minute=0, second=0, microsecond=0)
    while hour < until:
        growth = math.exp(_GROWTH_PER_DAY * (hour - since).total_seconds() / 86400)
        lasting = min(until - hour, timedelta(hours=1)) / timedelta(hours=1)
        yield hour, _HOURS[hour.hour] * _WEEKDAYS[hour.weekday()] * growth * lasting
        hour += timedelta(hours=1)


def _moments(
    random: Random, hour: datetime, expected: float, *, until: datetime
) -> Sequence[datetime]:
    """Return moments within an hour; their number varies from hour to hour."""
    count = int(expected * random.uniform(0.8, 1.2) + random.random())
    seconds = min((until - hour).total_seconds(), 3600)
    return [hour + timedelta(seconds=random.uniform(0, seconds)) for _ in range(count)]


def _user(random: Random) -> str | None:
    """Return a pupil: some work much, most a little, and now and then nobody is named."""
    if random.random() < _NAMELESS:
        return None
    if random.random() < _TEACHERS:
        return f"teacher-{random.randint(1, 14):02}"
    return f"pupil-{1 + int(PUPILS * random.random() ** 2.2):04}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    path: str
    body: dict[str, Any]
    answer: dict[str, Any]


def _made(random: Random, feature: _Feature, model: str) -> _Made:
    """Return request and answer of a feature with one of its models."""
    answer: dict[str, Any] = {"seconds": round(feature.seconds * random.lognormvariate(0, 0.45), 3)}
    match model:
        case "text-embedding-3-small":
            answer["prompt_tokens"] = _around(random, 900)
            return _Made(path="/v1/embeddings", body={"model": model, "input": "…"}, answer=answer)
        case "dall-e-3":
            body: dict[str, Any] = {"model": model, "prompt": _DRAWING, "size": "1024x1024"}
            return _Made(path="/v1/images/generations", body=body, answer=answer)
        case "tts-1":
            text = _SENTENCE * random.randint(2, 12)
            body = {"model": model, "voice": "alloy", "input": text}
            return _Made(path="/v1/audio/speech", body=body, answer=answer)
        case _:
            return _written(random, feature, model, answer)


def _written(random: Random, feature: _Feature, model: str, answer: dict[str, Any]) -> _Made:
    """Return a call that is answered with text."""
    answer |= _tokens(random, feature)
    if feature.path == "/v1/responses":
        searches = random.randint(1, 3) if random.random() < _SEARCHES else 0
        tools = [{"type": "web_search"}]
        asked: dict[str, Any] = {"model": model, "input": "…", "tools": tools}
        return _Made(path=feature.path, body=asked, answer=answer | {"searches": searches})
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": "…"}]}
    if random.random() < feature.streamed:
        body["stream"] = True
    return _Made(path=feature.path, body=body, answer=answer)


def _tokens(random: Random, feature: _Feature) -> dict[str, int]:
    prompt = _around(random, feature.prompt_tokens)
    cached = 0
    if random.random() < _CACHED and prompt >= _CACHED_FROM:
        cached = int(prompt * min(feature.cached_share * random.uniform(0.7, 1.4), 0.95))
        cached -= cached % _CACHE_BLOCK
    written = _around(random, feature.completion_tokens)
    return {
        "prompt_tokens": prompt,
        "cached_tokens": cached,
        "completion_tokens": written,
        "reasoning_tokens": int(written * feature.reasoning_share * random.uniform(0.5, 1.3)),
    }


def _around(random: Random, median: int) -> int:
    return max(1, int(median * random.lognormvariate(0, 0.5)))


def _mishap(random: Random, *, likely: float) -> dict[str, Any]:
    """Return what an answer says instead where something goes wrong."""
    if random.random() >= likely:
        return {}
    return {"status": random.choices((429, 500, 400, 503), (5, 2, 1, 1))[0]}
