"""Prints the spans of a trace file as JSON, one list for each line, as OpenTelemetry's own messages read them.

Fails on a field that OTLP does not have, on ids of another length, on a time that runs backwards, and on a parent that is
no span of the trace. OTLP writes ids in hex, where JSON of Protobuf has Base64.
"""

import base64
import json
import sys

from google.protobuf.json_format import Parse
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status, TracesData


def value(of):
    return getattr(of, of.WhichOneof("value"))


traces = []
with open(sys.argv[1], encoding="utf-8", newline="") as file:
    lines = file.read().splitlines()
for line in lines:
    message = json.loads(line)
    for resource in message["resourceSpans"]:
        for scope in resource["scopeSpans"]:
            for span in scope["spans"]:
                for name, size in [("traceId", 16), ("spanId", 8), ("parentSpanId", 8)]:
                    id = bytes.fromhex(span[name])
                    assert len(id) == size or (name == "parentSpanId" and not id), span
                    assert any(id) or not id, span
                    span[name] = base64.b64encode(id).decode()
    data = Parse(json.dumps(message), TracesData())
    spans = []
    for resource in data.resource_spans:
        attributes = {one.key: value(one.value) for one in resource.resource.attributes}
        assert attributes["service.name"] == "fedmill", attributes
        spans += [span for scope in resource.scope_spans for span in scope.spans]
    ids = [span.span_id for span in spans]
    assert len(set(ids)) == len(ids) and len({span.trace_id for span in spans}) == 1, line
    found = []
    for span in spans:
        assert not span.parent_span_id or span.parent_span_id in ids, span
        assert 0 < span.start_time_unix_nano <= span.end_time_unix_nano, span
        found.append(
            {
                "trace": span.trace_id.hex(),
                "id": span.span_id.hex(),
                "parent": span.parent_span_id.hex(),
                "name": span.name,
                "kind": Span.SpanKind.Name(span.kind),
                "seconds": (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
                "status": Status.StatusCode.Name(span.status.code),
                "message": span.status.message,
                "attributes": {one.key: value(one.value) for one in span.attributes},
            }
        )
    traces.append(found)
json.dump(traces, sys.stdout)
