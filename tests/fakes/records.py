"""Records of calls that never were; the number makes the id."""

from proxy.core.model import Closing, Opening

MOMENT_MS = 1_788_000_000_000  # when they happened: in August 2026
USAGE = b'{"prompt_tokens":19,"completion_tokens":10,"total_tokens":29}'


def opening(number: int = 0) -> Opening:
    """Return what is known when a call begins."""
    return Opening(
        event_id=MOMENT_MS.to_bytes(6, "big") + (0x7000_8000 << 48 | number).to_bytes(10, "big"),
        operation_name="chat",
        method="POST",
        api_path="/v1/chat/completions",
        upstream="api.openai.com",
        user_id="ada",
        endpoint="analyze_homework",
        metadata={"course": "x12"},
        request_model="gpt-4o-mini",
        stream=False,
    )


def closing(number: int = 0) -> Closing:
    """Return what is known when the call of that number is over."""
    return Closing(
        opening=opening(number),
        outcome="ok",
        status=200,
        response_model="gpt-4o-mini-2024-07-18",
        usage=USAGE,
        latency_us=1_500_000,
    )
