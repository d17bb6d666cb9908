// The `openai` package as it comes, against an endpoint: BASE_URL, TIR_API_KEY, MODEL. Says what it got as JSON.
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.env.BASE_URL, apiKey: process.env.TIR_API_KEY, maxRetries: 0 });
const call = {
  model: process.env.MODEL,
  messages: [{ role: "user", content: "Say hello" }],
  max_tokens: 8,
};

const chat = await client.chat.completions.create(call);
const stream = await client.chat.completions.create({
  ...call,
  stream: true,
  stream_options: { include_usage: true },
});
const pieces = [];
let usage = null;
for await (const chunk of stream) {
  if (chunk.choices[0]?.delta?.content) pieces.push(chunk.choices[0].delta.content);
  usage = chunk.usage ?? usage;
}
const wrong = new OpenAI({ baseURL: process.env.BASE_URL, apiKey: "tir_wrong", maxRetries: 0 });
const refused = await wrong.models.list().then(() => null, (error) => error);
console.log(
  JSON.stringify({
    chat: chat.choices[0].message.content,
    pieces,
    usage,
    refused: refused instanceof OpenAI.AuthenticationError,
  }),
);
