// The official OpenAI SDK for Node through the proxy: one base URL, three headers (npm install openai beside it).
import OpenAI from "openai";

const client = new OpenAI({ // the key comes from OPENAI_API_KEY, as ever
  baseURL: process.env.OPENAI_BASE_URL ?? "http://127.0.0.1:8080/v1",
  defaultHeaders: { "X-Meter-Endpoint": "generate_hint" },
});

const answer = await client.chat.completions.create(
  { model: "gpt-5.4-mini", messages: [{ role: "user", content: "Say hello." }] },
  { headers: { "X-Meter-User": "u-17", "X-Meter-Metadata": '{"course": "algebra-1"}' } },
);
console.log(answer.choices[0].message.content);

const stream = await client.chat.completions.create(
  { model: "gpt-5.4-mini", messages: [{ role: "user", content: "Say hello." }], stream: true },
  { headers: { "X-Meter-User": "u-17" } },
);
for await (const chunk of stream) process.stdout.write(chunk.choices[0].delta.content ?? "");
console.log();
