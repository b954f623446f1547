"""What a test may leave behind: nothing. klieg's own tests use the check that klieg ships."""

from klieg.testing.leaks import (
    SESSION_VARIABLE,
    Snapshot,
    allowed,
    descendants,
    leaks_after,
    mark,
    marked_processes,
    runtime_processes,
)

__all__ = [
    "SESSION_VARIABLE",
    "Snapshot",
    "allowed",
    "descendants",
    "leaks_after",
    "mark",
    "marked_processes",
    "runtime_processes",
]
