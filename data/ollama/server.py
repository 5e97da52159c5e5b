#!/usr/bin/env python3
"""Stands in for the servers of Ollama and OpenAI in tests: chat endpoints whose answers depend on the request alone.

Usage: server.py            prints its address, and serves until it is ended

An answer is made from a digest of the model, the messages, the schema and the options, so an equal request has an equal
answer, and another seed another one. The model `busy` answers each request with 429 the first time, and then as usual.
The model `loose` ignores the schema, the model `broken` fails with 500, and any other name is as good as another.
"""

import hashlib
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

WORDS = "accept reject median mean krum round client update quorum budget noise merge".split()


def digest(value):
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).digest()


def fitting(schema, seed, path=""):
    """A value that follows a schema, chosen by the seed and its path."""
    chosen = int.from_bytes(hashlib.sha256(seed + path.encode()).digest()[:6], "big")
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][chosen % len(schema["enum"])]
    kind = schema.get("type", "object" if "properties" in schema else "string")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        properties = schema.get("properties", {})
        return {name: fitting(inner, seed, f"{path}.{name}") for name, inner in properties.items()}
    if kind == "array":
        count = max(schema.get("minItems", 1), min(2, schema.get("maxItems", 2)))
        return [fitting(schema.get("items", {}), seed, f"{path}[{n}]") for n in range(count)]
    if kind == "integer":
        least = schema.get("minimum", 0)
        return least + chosen % (schema.get("maximum", least + 100) - least + 1)
    if kind == "number":
        least = schema.get("minimum", 0)
        return least + (schema.get("maximum", least + 1) - least) * (chosen % 1000) / 1000
    if kind == "boolean":
        return chosen % 2 == 0
    return None if kind == "null" else WORDS[chosen % len(WORDS)]


def answer(model, messages, schema, options):
    """The text of an answer, with the tokens of the request and of the answer."""
    messages = [{"role": message["role"], "content": message["content"]} for message in messages]
    seed = digest([model, messages, schema, options])
    if schema and model != "loose":
        text = json.dumps(fitting(schema, seed))
    else:
        text = " ".join(WORDS[byte % len(WORDS)] for byte in seed[:8])
    asked = sum(len(message["content"].split()) for message in messages)
    return text, asked, len(text.split())


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def send(self, status, body, headers=()):
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in (("Content-Type", "application/json"), ("Content-Length", str(len(data))), *headers):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def do_POST(self):
        length = int(self.headers.get("Content-Length", 0))
        try:
            request = json.loads(self.rfile.read(length))
            serve = {"/api/chat": self.ollama, "/v1/chat/completions": self.openai}.get(self.path)
            if serve is None:
                return self.send(404, {"error": f"no such path: {self.path}"})
            model = request["model"]
            if model == "broken":
                return self.send(500, {"error": "this model always fails"})
            if model == "busy" and self.server.is_new(digest([self.path, request])):
                return self.send(429, {"error": "too many requests"}, [("Retry-After", "1")])
            if request.get("stream", self.path == "/api/chat"):
                return self.send(400, {"error": "this server answers with `stream: false` only"})
            serve(request)
        except (ValueError, KeyError, TypeError) as why:
            self.send(400, {"error": f"bad request: {why!r}"})

    def ollama(self, request):
        model, options = request["model"], request.get("options") or {}
        text, asked, said = answer(model, request["messages"], request.get("format"), options)
        self.send(200, {
            "model": model, "created_at": "2026-01-01T00:00:00Z", "done": True, "done_reason": "stop",
            "message": {"role": "assistant", "content": text},
            "total_duration": 1000, "load_duration": 1, "prompt_eval_count": asked, "prompt_eval_duration": 1,
            "eval_count": said, "eval_duration": 1,
        })

    def openai(self, request):
        model, form = request["model"], request.get("response_format") or {}
        schema = form.get("json_schema", {}).get("schema")
        options = {name: request[name] for name in ("seed", "temperature") if name in request}
        text, asked, said = answer(model, request["messages"], schema, options)
        self.send(200, {
            "id": "chatcmpl-0", "object": "chat.completion", "created": 1767225600, "model": model,
            "choices": [{"index": 0, "finish_reason": "stop", "logprobs": None,
                         "message": {"role": "assistant", "content": text, "refusal": None}}],
            "usage": {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said},
        })


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, *args):
        super().__init__(*args)
        self.seen, self.lock = set(), threading.Lock()

    def is_new(self, key):
        with self.lock:
            is_new = key not in self.seen
            self.seen.add(key)
        return is_new


if __name__ == "__main__":
    server = Server(("127.0.0.1", 0), Handler)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    sys.exit(server.serve_forever())
