"""The official OpenAI SDK for Python through the proxy: one base URL, three headers."""

import os

from openai import OpenAI

client = OpenAI(  # the key comes from OPENAI_API_KEY, as ever
    base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8080/v1"),
    default_headers={"X-Meter-Endpoint": "generate_hint"},
)

answer = client.chat.completions.create(
    model="gpt-5.4-mini",
    messages=[{"role": "user", "content": "Say hello."}],
    extra_headers={"X-Meter-User": "u-17", "X-Meter-Metadata": '{"course": "algebra-1"}'},
)
print(answer.choices[0].message.content)

stream = client.chat.completions.create(
    model="gpt-5.4-mini",
    messages=[{"role": "user", "content": "Say hello."}],
    stream=True,  # metered too; your chunks stay as they are
    extra_headers={"X-Meter-User": "u-17"},
)
for chunk in stream:
    print(chunk.choices[0].delta.content or "", end="")
print()
