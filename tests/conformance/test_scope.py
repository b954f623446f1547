"""How long things live: an actor as long as a handle to it, a value as long as a ref to it."""

import gc
import weakref

import gates
import pytest

import klieg
from klieg.exceptions import ActorDiedError


@klieg.remote
class Mortal:
    """Says so when its constructor runs and when it is dropped."""

    def __init__(self, journal):
        self.journal = journal

    def ping(self):
        return "pong"

    def wait_at(self, gate):
        gate.wait()
        return "finished"

    def __del__(self):
        try:
            self.journal.note("gone")
        except OSError:  # the test is over and nobody reads any more
            return


def test_an_actor_ends_when_its_last_handle_is_dropped(journal):
    mortal = Mortal.remote(journal)
    klieg.get(mortal.ping.remote())
    del mortal
    assert journal.next() == "gone"


def test_a_second_handle_keeps_it_alive(journal):
    mortal = Mortal.remote(journal)
    other = [mortal]
    del mortal
    assert klieg.get(other[0].ping.remote()) == "pong"
    assert journal.unread() == []


def test_pending_calls_finish_before_it_ends(journal, gate):
    mortal = Mortal.remote(journal)
    refs = [mortal.wait_at.remote(gate), mortal.ping.remote()]
    del mortal
    gate.open()
    assert klieg.get(refs) == ["finished", "pong"]
    assert journal.next() == "gone"


def test_a_ref_alone_does_not_keep_the_actor(journal):
    ref = Mortal.remote(journal).ping.remote()
    assert klieg.get(ref) == "pong"
    assert journal.next() == "gone"
    assert klieg.get(ref) == "pong"


def test_a_bound_method_keeps_the_actor(journal):
    ping = Mortal.remote(journal).ping
    gc.collect()
    assert klieg.get(ping.remote()) == "pong"
    assert journal.unread() == []
    del ping
    assert journal.next() == "gone"


def test_a_handle_in_another_actor_keeps_it_alive(journal):
    @klieg.remote
    class Holder:
        def hold(self, mortal):
            self.mortal = mortal

        def ask(self):
            return klieg.get(self.mortal.ping.remote())

        def drop(self):
            self.mortal = None

    holder, mortal = Holder.remote(), Mortal.remote(journal)
    klieg.get(holder.hold.remote(mortal))
    del mortal
    gc.collect()
    assert klieg.get(holder.ask.remote()) == "pong"
    klieg.get(holder.drop.remote())
    assert journal.next() == "gone"


def test_a_handle_on_its_way_keeps_the_actor(journal, gate):
    @klieg.remote
    class Slow:
        def wait_at(self, gate):
            gate.wait()

        def use(self, box):
            return klieg.get(box[0].ping.remote())

    slow, mortal = Slow.remote(), Mortal.remote(journal)
    slow.wait_at.remote(gate)
    ref = slow.use.remote([mortal])
    del mortal
    gc.collect()
    gate.open()
    assert klieg.get(ref) == "pong"


def test_an_actor_in_a_cycle_ends_when_the_cycle_is_collected(journal):
    class Node:
        pass

    node = Node()
    node.me, node.actor = node, Mortal.remote(journal)
    klieg.get(node.actor.ping.remote())
    del node
    gc.collect()
    assert journal.next() == "gone"


def test_kill_runs_no_finalizer_in_a_process(journal, engine):
    if engine == "inline":
        pytest.skip("not inline: an object of this process is always finalized")
    mortal = Mortal.remote(journal)
    klieg.get(mortal.ping.remote())
    klieg.kill(mortal)
    with pytest.raises(ActorDiedError):
        klieg.get(mortal.ping.remote())
    assert journal.unread() == []


def test_a_value_is_freed_with_its_last_ref():
    ref = klieg.put([0] * 1000)
    watcher = weakref.ref(ref._future)
    copy = ref
    del ref
    assert watcher() is not None
    del copy
    assert watcher() is None


def test_a_result_nobody_wants_is_freed():
    @klieg.remote
    def ping():
        return "pong"

    ref = ping.remote()
    watcher = weakref.ref(ref._future)
    klieg.get(ref)
    del ref
    assert gates.soon(lambda: watcher() is None)


def test_dropping_refs_of_running_calls_harms_nothing(journal):
    @klieg.remote
    def note(number):
        journal.note(number)

    for i in range(20):
        note.remote(i)
    assert sorted(map(int, journal.take(20))) == list(range(20))


def test_a_ref_in_a_result_that_is_dropped_is_freed_too():
    @klieg.remote
    class Maker:
        def __init__(self):
            self.watchers = []

        def make(self):
            ref = klieg.put([0] * 1000)
            self.watchers.append(weakref.ref(ref._future))
            return [ref]

        def alive(self):
            gc.collect()
            return sum(watcher() is not None for watcher in self.watchers)

    maker = Maker.remote()
    for _ in range(5):
        (ref,) = klieg.get(maker.make.remote())
        assert len(klieg.get(ref)) == 1000
        del ref
    for _ in range(1000):
        if klieg.get(maker.alive.remote()) == 0:
            break
    assert klieg.get(maker.alive.remote()) == 0
