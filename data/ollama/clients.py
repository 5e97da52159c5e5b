#!/usr/bin/env python3
"""Lets the official clients of Ollama and OpenAI talk to server.py, and checks what they make of its answers.

Usage: clients.py ADDRESS   prints the answers as JSON, for the test to compare with those that fedmill gets

Needs requirements.txt.
"""

import json
import sys

import ollama
import openai

SCHEMA = {
    "type": "object",
    "properties": {
        "vote": {"enum": ["accept", "reject"]},
        "score": {"type": "integer", "minimum": 0, "maximum": 1000000},
    },
    "required": ["vote", "score"],
    "additionalProperties": False,
}
MESSAGES = [{"role": "system", "content": "You review a merge."}, {"role": "user", "content": "Is round 7 good?"}]

address = sys.argv[1]
chat = ollama.Client(host=address)


def ask(seed, model="m", schema=None):
    response = chat.chat(model=model, messages=MESSAGES, format=schema, options={"seed": seed, "num_ctx": 4096})
    assert response.done and response.message.role == "assistant", response
    assert response.prompt_eval_count == 8 and response.eval_count > 0, response
    return {"content": response.message.content, "tokens": response.prompt_eval_count + response.eval_count}


answers = {"text": ask(7), "ballot": ask(7, schema=SCHEMA)}
assert ask(7) == answers["text"], "an equal request has another answer"
assert ask(8) != answers["text"], "another seed has an equal answer"
ballot = json.loads(answers["ballot"]["content"])
assert ballot["vote"] in ("accept", "reject") and isinstance(ballot["score"], int), ballot
try:
    ask(7, model="busy")
    raise AssertionError("the model `busy` answered at once")
except ollama.ResponseError as why:
    assert why.status_code == 429 and "too many requests" in why.error, why
assert ask(7, model="busy")["content"], "the model `busy` has no answer the second time"
try:
    ask(7, model="broken")
    raise AssertionError("the model `broken` answered")
except ollama.ResponseError as why:
    assert why.status_code == 500, why

# The client of OpenAI tries again by itself; without that it reports the status.
once = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
form = {"type": "json_schema", "json_schema": {"name": "ballot", "schema": SCHEMA, "strict": True}}
reply = once.chat.completions.create(model="m", messages=MESSAGES, seed=7, response_format=form)
ballot = json.loads(reply.choices[0].message.content)
assert set(ballot) == {"vote", "score"} and reply.usage.total_tokens > 8, reply
try:
    once.chat.completions.create(model="busy", messages=MESSAGES, seed=1)
    raise AssertionError("the model `busy` answered at once")
except openai.RateLimitError as why:
    assert why.response.headers["retry-after"] == "1", why
patient = once.with_options(max_retries=2)
assert patient.chat.completions.create(model="busy", messages=MESSAGES, seed=2).choices[0].message.content
answers["completion"] = reply.choices[0].message.content
print(json.dumps(answers))
