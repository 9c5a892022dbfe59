#!/bin/sh
# One call through the proxy: the usual request, and three headers that say whom it was for.
curl -sS --fail-with-body "${OPENAI_BASE_URL:-http://127.0.0.1:8080/v1}/chat/completions" \
  -H "Authorization: Bearer $OPENAI_API_KEY" \
  -H 'Content-Type: application/json' \
  -H 'X-Meter-User: u-17' \
  -H 'X-Meter-Endpoint: generate_hint' \
  -H 'X-Meter-Metadata: {"course": "algebra-1"}' \
  -d '{"model": "gpt-5.4-mini", "messages": [{"role": "user", "content": "Say hello."}]}'
