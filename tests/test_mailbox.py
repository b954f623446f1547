"""The mailbox by itself: any sequence of calls, ends, cancellations and new limits keeps order and limits."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from klieg.concurrency.call import Call
from klieg.concurrency.groups import Mailbox
from klieg.task import TaskSpec

GROUPS = ["default", "io"]

groups = st.sampled_from(GROUPS)


class Box(RuleBasedStateMachine):
    """Beside the box: what was put, what runs, what was started, each by group and in order."""

    def __init__(self):
        super().__init__()
        self.limits = {"default": 2, "io": 1}
        self.box = Mailbox(self.limits)
        self.number = 0
        self.waiting = {name: [] for name in GROUPS}
        self.running = {name: [] for name in GROUPS}

    def start(self, call):
        """Whatever starts is the one that has waited longest in its group."""
        group = call.spec.group
        assert self.waiting[group].pop(0) is call
        self.running[group].append(call)

    @rule(group=groups, count=st.integers(1, 5))
    def put(self, group, count):
        for _ in range(count):
            self.number += 1
            call = Call(self.number, 0, TaskSpec("call", group=group), None)
            self.waiting[group].append(call)
            if self.box.put(call):
                self.start(call)

    @initialize(early=st.booleans())
    def begin(self, early):
        if early:
            self.open()

    @precondition(lambda self: not self.box.is_open)
    @rule()
    def open(self):
        for call in self.box.open():
            self.start(call)

    @rule(group=groups, which=st.integers(0, 3))
    def end(self, group, which):
        if self.running[group]:
            following = self.box.done(self.running[group].pop(which % len(self.running[group])))
            if following is not None:
                self.start(following)

    @rule(group=groups, which=st.integers(0, 9))
    def cancel(self, group, which):
        if self.waiting[group]:
            assert self.box.discard(self.waiting[group].pop(which % len(self.waiting[group])))

    @rule(group=groups)
    def cancel_what_runs(self, group):
        for call in self.running[group]:
            assert not self.box.discard(call)

    @rule(group=groups, limit=st.integers(1, 4))
    def resize(self, group, limit):
        self.limits[group] = limit
        for call in self.box.resize(group, limit):
            self.start(call)

    @precondition(lambda self: self.number > 20)
    @rule()
    def drain(self):
        drained = [call for name in GROUPS for call in self.waiting[name]]
        assert self.box.drain() == drained
        self.waiting = {name: [] for name in GROUPS}

    @invariant()
    def counts_agree(self):
        assert self.box.running == sum(map(len, self.running.values()))
        assert self.box.waiting == sum(map(len, self.waiting.values()))

    @invariant()
    def no_place_is_free_while_a_call_waits(self):
        for name in GROUPS:
            if self.box.is_open and self.waiting[name]:
                assert len(self.running[name]) >= self.limits[name]

    @invariant()
    def nothing_runs_before_the_box_is_open(self):
        assert self.box.is_open or not any(self.running.values())


class NeverMore(Box):
    """Without new limits no group runs more than its limit."""

    resize = None

    @invariant()
    def never_more_than_the_limit(self):
        assert all(len(self.running[name]) <= self.limits[name] for name in GROUPS)


few = settings(max_examples=50, stateful_step_count=30, deadline=None)
TestBox = Box.TestCase
TestBox.settings = few
TestNeverMore = NeverMore.TestCase
TestNeverMore.settings = few
