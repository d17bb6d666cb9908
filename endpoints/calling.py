"""How an endpoint is called, as what it runs allows: the same call in several languages, with the real address."""

from __future__ import annotations

from endpoints.models import Endpoint, Revision
from endpoints.pages import address_of
from endpoints.sources.layout import MODEL_PY, ONNX, Layout
from endpoints.spec import MODEL_SERVERS

CHAT, PREDICT, OWN = "chat", "predict", "own"
Snippets = list[dict[str, str]]


def speaks(revision: Revision) -> str:
    """What this revision answers: chat; our model servers' predict; or paths of its image's own."""
    spec, stored = revision.wish, revision.resolved.get("layout")
    if spec.custom:
        return OWN
    layout = Layout.from_dict(stored) if stored else None
    if spec.engine not in MODEL_SERVERS or layout is None:
        return CHAT
    chats = layout.kind != ONNX and (layout.kind != MODEL_PY or bool({"chat", "stream"} & set(layout.methods)))
    return CHAT if chats else PREDICT


def root_of(endpoint: Endpoint) -> str:
    """Where every path of an endpoint begins."""
    return address_of(endpoint).removesuffix("/v1")


def snippets(endpoint: Endpoint, speech: str = CHAT) -> Snippets:
    """Keys come from the environment."""
    return {CHAT: _chat, PREDICT: _predict, OWN: _own}[speech](endpoint)


def _predict(endpoint: Endpoint) -> Snippets:
    root = root_of(endpoint)
    curl = f"""curl {root}/predict \\
  -H "Authorization: Bearer $TIR_API_KEY" \\
  -H "Content-Type: application/json" \\
  -d '{{"input": "what your model takes"}}'"""
    python = f"""import json
import os
import urllib.request

call = urllib.request.Request(
    "{root}/predict",
    data=json.dumps({{"input": "what your model takes"}}).encode(),
    headers={{"Authorization": f"Bearer {{os.environ['TIR_API_KEY']}}", "Content-Type": "application/json"}},
)
with urllib.request.urlopen(call) as answer:
    print(json.load(answer)["output"])"""
    node = f"""const answer = await fetch("{root}/predict", {{
  method: "POST",
  headers: {{ Authorization: `Bearer ${{process.env.TIR_API_KEY}}`, "Content-Type": "application/json" }},
  body: JSON.stringify({{ input: "what your model takes" }}),
}});
console.log((await answer.json()).output);"""
    return [
        {"label": "curl", "language": "shell", "code": curl},
        {"label": "Python", "language": "python", "code": python},
        {"label": "Node", "language": "javascript", "code": node},
    ]


def _own(endpoint: Endpoint) -> Snippets:
    curl = f"""# Any path that your image answers; this one is its root.
curl {root_of(endpoint)}/ -H "Authorization: Bearer $TIR_API_KEY\""""
    return [{"label": "curl", "language": "shell", "code": curl}]


def _chat(endpoint: Endpoint) -> Snippets:
    """The same call in three languages, with the real address; the key comes from the environment."""
    base, name = address_of(endpoint), endpoint.name
    curl = f"""curl {base}/chat/completions \\
  -H "Authorization: Bearer $TIR_API_KEY" \\
  -H "Content-Type: application/json" \\
  -d '{{"model": "{name}", "messages": [{{"role": "user", "content": "Say hello"}}], "max_tokens": 64}}'"""
    python = f"""import os

from openai import OpenAI

client = OpenAI(base_url="{base}", api_key=os.environ["TIR_API_KEY"])
answer = client.chat.completions.create(
    model="{name}",
    messages=[{{"role": "user", "content": "Say hello"}}],
    max_tokens=64,
)
print(answer.choices[0].message.content)"""
    node = f"""import OpenAI from "openai";

const client = new OpenAI({{ baseURL: "{base}", apiKey: process.env.TIR_API_KEY }});
const answer = await client.chat.completions.create({{
  model: "{name}",
  messages: [{{ role: "user", content: "Say hello" }}],
  max_tokens: 64,
}});
console.log(answer.choices[0].message.content);"""
    return [
        {"label": "curl", "language": "shell", "code": curl},
        {"label": "Python", "language": "python", "code": python},
        {"label": "Node", "language": "javascript", "code": node},
    ]
