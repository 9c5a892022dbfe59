-- The request that wrk sends: a chat call of about a kilobyte with the proxy's headers, and what a peer wants besides.
local content = string.rep("The quick brown fox jumps over the lazy dog. ", 16)
local model = os.getenv("BENCH_MODEL") or "gpt-4o-mini"
wrk.method = "POST"
wrk.body = '{"model":"' .. model .. '","messages":[{"role":"user","content":"' .. content .. '"}]}'
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer sk-not-a-key-not-a-key-not-a-key-not-a-key"
wrk.headers["User-Agent"] = "OpenAI/Python 3.54.0"
wrk.headers["X-Stainless-Lang"] = "python"
wrk.headers["X-Stainless-Retry-Count"] = "0"
wrk.headers["Accept-Encoding"] = "gzip, deflate"
wrk.headers["X-Meter-User"] = "user-0042"
wrk.headers["X-Meter-Endpoint"] = "analyze_homework"
wrk.headers["X-Meter-Metadata"] = '{"school":"s1","class":"5b"}'
for line in (os.getenv("BENCH_FIELDS") or ""):gmatch("[^\n]+") do
  local name, value = line:match("([^:]+): (.*)")
  wrk.headers[name] = value
end
