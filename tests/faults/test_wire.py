"""O: what comes on a connection is cut anywhere, garbage, too long, late or twice; by a stranger and by a peer."""

import contextlib
import pickle
import resource
import socket
import tracemalloc

import gates
import mutations
import pytest
import victims
from sizes import size

import klieg
from klieg import engine
from klieg.engines.local.connection import Link
from klieg.engines.local.peer import Peer
from klieg.engines.local.reactor import Reactor
from klieg.engines.local.wire import VALUE, Decoder, Reader, WireError, frame
from klieg.exceptions import ActorDiedError, GetTimeoutError

FRAMES = mutations.every_kind()


@pytest.mark.parametrize("length", range(1, 40))
def test_frames_arrive_whole_however_the_stream_is_cut(length):
    stream, decoder = b"".join(FRAMES), Decoder()
    cut = [found for at in range(0, len(stream), length) for found in decoder.feed(stream[at : at + length])]
    assert [frame(*found) for found in cut] == FRAMES


def test_frames_arrive_whole_cut_in_two_at_every_offset():
    stream = b"".join(FRAMES)
    for at in range(len(stream) + 1):
        decoder = Decoder()
        assert len(decoder.feed(stream[:at]) + decoder.feed(stream[at:])) == len(FRAMES)


@pytest.fixture
def unpickled(monkeypatch):
    """What was unpickled while the test ran."""
    calls = []
    real = pickle.loads
    monkeypatch.setattr(pickle, "loads", lambda *args, **kwargs: calls.append(args) or real(*args, **kwargs))
    return calls


@pytest.mark.chaos
def test_a_strangers_mutated_bytes_give_frames_or_a_wire_error_and_are_never_unpickled(chance, unpickled):
    tracemalloc.start()
    for _ in range(size(20_000, 2_000)):
        decoder = Decoder()
        data = b"".join(mutations.mutated(chance.choice(FRAMES), chance) for _ in range(2))
        try:
            for _, _, body in decoder.feed(data):
                reader = Reader(body)
                reader.payload(reader.fields.get("args"), lambda stored: None, lambda number, is_actor: None)
        except WireError:
            continue
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert unpickled == []
    assert peak < 1 << 20


class Noted:
    """A call that notes what became of it."""

    def __init__(self):
        self.outcomes = []

    def resolve(self, outcome):
        self.outcomes.append(outcome)

    def fail(self, error):
        self.outcomes.append(error)


@pytest.fixture
def stranger(runtime):
    """The other end of a connection of this process's own engine, whose name nobody knows, and the peer on it."""
    made = []

    def connect():
        theirs, ours = socket.socketpair()
        peer = Peer(engine.current(), 12345, ours)
        made.append((theirs, peer))
        return theirs, peer

    yield connect
    for theirs, peer in made:
        theirs.close()
        peer.link.close()


def settle(theirs, peer):
    """Read what was sent, to its end."""
    theirs.shutdown(socket.SHUT_WR)
    assert gates.soon(lambda: peer.link.closed)


@pytest.mark.chaos
def test_a_peers_mutated_frames_end_its_connection_at_most_and_resolve_no_call_twice(stranger, chance):
    actor = victims.actor_class("plain").remote()
    for turn in range(size(2_000, 60)):
        theirs, peer = stranger()
        waiting = peer.pending[3] = Noted()
        theirs.settimeout(5)
        theirs.sendall(b"".join(mutations.mutated(chance.choice(FRAMES), chance) for _ in range(50)))
        settle(theirs, peer)
        assert len(waiting.outcomes) <= 1
        if turn % 20 == 0:
            assert klieg.get(actor.echo.remote(turn), timeout=20) == turn


def test_a_duplicate_a_late_and_an_unknown_answer_change_nothing(stranger):
    theirs, peer = stranger()
    waiting = peer.pending[7] = Noted()
    answer = frame(VALUE, 7, b"first")
    theirs.sendall(frame(VALUE, 99, b"unknown") + answer + frame(VALUE, 7, b"second") + answer)
    settle(theirs, peer)
    assert [outcome.payload for outcome in waiting.outcomes] == [b"first"]


def test_answers_in_any_order_go_where_they_belong(stranger):
    theirs, peer = stranger()
    waiting = {number: Noted() for number in range(10)}
    peer.pending.update(waiting)
    for number in (3, 9, 0, 5, 1, 8, 2, 7, 4, 6):
        theirs.sendall(frame(VALUE, number, str(number).encode()))
    settle(theirs, peer)
    assert [outcomes.outcomes[0].payload for outcomes in waiting.values()] == [str(n).encode() for n in range(10)]


def test_a_frame_that_was_half_sent_is_dropped_with_its_connection(stranger):
    theirs, peer = stranger()
    waiting = peer.pending[7] = Noted()
    theirs.sendall(frame(VALUE, 7, b"a value")[:-1])
    settle(theirs, peer)
    assert [getattr(outcome, "payload", None) for outcome in waiting.outcomes] in ([], [None])


def test_a_description_nested_too_deep_ends_the_connection(stranger):
    theirs, peer = stranger()
    deep = b"[" * 100_000
    theirs.sendall(frame(VALUE + 1, 7, len(deep).to_bytes(4, "little") + deep))
    settle(theirs, peer)
    assert "garbage" in peer.link.broken or "RecursionError" in peer.link.broken


def test_a_half_closed_connection_is_over():
    reactor, closed = Reactor(monitored=False), []
    theirs, ours = socket.socketpair()
    Link(reactor, ours, lambda frames: None, closed.append)
    theirs.shutdown(socket.SHUT_WR)
    reactor.block(lambda: bool(closed))
    assert closed == ["end of file"]
    theirs.close()
    reactor.close()


class Careful(victims.Plain):
    """Has little memory to be wasted: a mutated pickle may ask for any amount."""

    def __init__(self):
        resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
        super().__init__()


@pytest.mark.chaos
def test_a_worker_that_its_caller_sends_mutated_frames_harms_nobody_else(runtime, chance):
    neighbour = victims.actor_class("plain").remote()
    for turn in range(size(100, 6)):
        victim = klieg.remote(Careful).remote()
        klieg.get(victim.ping.remote(), timeout=20)
        peer = victim._token.channel.peer
        peer.link.send(b"".join(mutations.mutated(chance.choice(FRAMES), chance) for _ in range(5)), now=True)
        with contextlib.suppress(ActorDiedError, GetTimeoutError):  # what it has been told may end or hold it
            assert klieg.get(victim.echo.remote(turn), timeout=0.5) == turn
        klieg.kill(victim)
        assert klieg.get(neighbour.echo.remote(turn), timeout=20) == turn
