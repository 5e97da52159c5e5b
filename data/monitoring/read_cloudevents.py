"""Prints the events of a file of CloudEvents, a JSON object per line, as the official package reads them.

Fails on an event that the package refuses, and on two events with equal id and source.
"""

import json
import sys

from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

events, seen = [], set()
with open(sys.argv[1], encoding="utf-8", newline="") as file:
    lines = file.read().splitlines()
for line in lines:
    event = JSONFormat().read(CloudEvent, line)
    name = (event.get_source(), event.get_id())
    assert name not in seen, f"{name} is there twice"
    seen.add(name)
    assert event.get_datacontenttype() == "application/json" and event.get_time().tzinfo is not None, line
    events.append(
        {
            "source": event.get_source(),
            "id": event.get_id(),
            "type": event.get_type(),
            "subject": event.get_subject(),
            "data": event.get_data(),
        }
    )
json.dump(events, sys.stdout)
