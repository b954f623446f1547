"""What a process has recorded for the timeline, as it hands it over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from klieg.concurrency import recording
from klieg.concurrency.call import State


def recorded(hosts: Iterable[Any], details: Mapping[str, Any]) -> dict[str, Any]:
    """{"recording", "events"}: what ran here, with what still runs. `details` may say "start" or "stop"."""
    if details.get("start"):
        recording.start()
    recorder = recording.recorder
    if recorder is None:
        return {"recording": False, "events": []}
    events = list(recorder.events)
    now = recording.Recorder(lambda: recorder.clock())
    for host in hosts:
        for call in [call for call in list(host.calls.values()) if call.state is State.RUNNING]:
            now.ran(call)
    if details.get("stop"):
        recording.stop()
    return {"recording": True, "events": [*events, *now.events]}
