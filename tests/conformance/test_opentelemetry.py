"""OpenTelemetry's current context travels with each call: its span's ids, and its baggage."""

import pytest

import klieg

pytest.importorskip("opentelemetry.context", reason="opentelemetry-api is not installed (it is in the extra `dev`)")

from opentelemetry import baggage, context, trace

SPAN = trace.SpanContext(0x1234, 0x56, is_remote=False, trace_flags=trace.TraceFlags(1))


@pytest.fixture
def in_a_span():
    traced = trace.set_span_in_context(trace.NonRecordingSpan(SPAN))
    token = context.attach(baggage.set_baggage("customer", "7", traced))
    yield
    context.detach(token)


def seen():
    """(trace, span, baggage) of the code that asks."""
    span = trace.get_current_span().get_span_context()
    return span.trace_id, span.span_id, baggage.get_baggage("customer")


@klieg.remote
def task():
    return seen()


@klieg.remote
class Plain:
    def seen(self):
        return seen()

    def seen_by_task(self):
        return klieg.get(task.remote())


@klieg.remote
class Async:
    async def seen(self):
        return seen()

    @klieg.method(run_in="thread")
    def seen_in_thread(self):
        return seen()


CALLS = {
    "task": lambda: task.remote(),
    "plain": lambda: Plain.remote().seen.remote(),
    "threaded": lambda: Plain.options(max_concurrency=2).remote().seen.remote(),
    "call of a call": lambda: Plain.remote().seen_by_task.remote(),
    "async": lambda: Async.remote().seen.remote(),
    "sync in a thread": lambda: Async.remote().seen_in_thread.remote(),
}


@pytest.mark.parametrize("mode", CALLS)
def test_the_callers_span_is_the_current_one_in_the_call(mode, in_a_span):
    assert klieg.get(CALLS[mode]()) == (SPAN.trace_id, SPAN.span_id, "7")


def test_it_does_not_stay_for_the_next_call(in_a_span):
    actor = Plain.remote()
    assert klieg.get(actor.seen.remote())[0] == SPAN.trace_id
    token = context.attach(context.Context())
    try:
        assert klieg.get(actor.seen.remote()) == (0, 0, None)
    finally:
        context.detach(token)
