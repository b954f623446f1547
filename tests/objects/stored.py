"""What is in the object store, asked so that no test waits for memory that is only kept warm."""

from klieg import engine

EVERYTHING = 1 << 60
"""Bytes; more than there can be."""


def nothing() -> bool:
    """True if no process has a value in memory or on disk. What is free goes back to the machine for this, and values
    that nobody reads go to disk."""
    runtime = engine.current()
    runtime.store.give_room(EVERYTHING)
    runtime.ask_for_room(EVERYTHING)
    return not runtime.store_usage()["processes"]
