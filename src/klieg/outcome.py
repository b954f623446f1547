"""The outcome of a finished task: `Value` or `Error`, both still serialized.

An outcome is what travels and what the owner keeps. Opening one gives a fresh copy each time, so that two readers
never share an object.
"""

from collections import deque
from collections.abc import Callable
from typing import Any, Final


class Payload:
    """A serialized value: its pickle, the large buffers beside it, the refs inside it.

    A small value without buffers or refs is its bare `bytes`; this class is for the others.
    """

    __slots__ = ("buffers", "data", "refs")

    def __init__(self, data: bytes, buffers: tuple[Any, ...] = (), refs: tuple[Any, ...] = ()) -> None:
        self.data: Final = data
        self.buffers: Final = buffers
        """Out-of-band buffers of pickle protocol 5, in the order of the pickle; each is bytes-like."""
        self.refs: Final = refs
        """Futures and actors named inside the value. Held here, so that a payload keeps alive what it names."""


Serialized = bytes | Payload


class Value:
    """The task returned; `payload` is what it returned."""

    __slots__ = ("payload",)
    is_error: Final = False

    def __init__(self, payload: Serialized) -> None:
        self.payload: Final = payload


class Error:
    """The task failed; `payload` is a failure as `engines.failures` writes it."""

    __slots__ = ("payload", "unread")
    is_error: Final = True

    def __init__(self, payload: Serialized) -> None:
        self.payload: Final = payload
        self.unread = False
        """True from when it reaches its owner until somebody sees it."""

    def __del__(self) -> None:
        # May run inside the garbage collector: leave a note, and let a thread with nothing in hand report it.
        if self.unread:
            UNREAD.append(self.payload)
            UNREAD.ring()


class UnreadErrors(deque[Serialized]):
    """Errors that were dropped before anybody saw them, to be reported once; the oldest give way if there are many."""

    ring: Callable[[], None] = staticmethod(lambda: None)
    """Tells the engine's own thread that there is something to report; must be safe in a finalizer."""


UNREAD: Final = UnreadErrors(maxlen=1000)

Outcome = Value | Error
