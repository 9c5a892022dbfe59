"""A backend that says for every call who it was for: one client, attribution attached per request.

`attributed` is all there is to copy. It shares the connections of the client that it is given, so
make one client when the backend starts and call `attributed` as often as there are requests.
"""

import json
import os

from openai import OpenAI

BASE_URL = os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8080/v1")


def attributed(client: OpenAI, *, user: str, endpoint: str, **metadata: str) -> OpenAI:
    """Return the client for one request of ours; ids in ASCII, since headers are."""
    return client.with_options(
        default_headers={
            "X-Meter-User": user,
            "X-Meter-Endpoint": endpoint,
            "X-Meter-Metadata": json.dumps(metadata),
        }
    )


def analyze_homework(client: OpenAI, *, user: str, course: str, text: str) -> str:
    """Answer one request of a user."""
    openai = attributed(client, user=user, endpoint="analyze_homework", course=course)
    answer = openai.chat.completions.create(
        model="gpt-5.4-mini",
        messages=[{"role": "user", "content": f"Is this right? {text}"}],
    )
    return answer.choices[0].message.content or ""


if __name__ == "__main__":
    shared = OpenAI(base_url=BASE_URL)
    for user in ("u-17", "u-23"):
        print(analyze_homework(shared, user=user, course="algebra-1", text="2 + 2 = 5"))
