"""The catalogue: 171 kinds of faults, what must happen, and the tests that inject each, or the reason why none does.

python tests/faults/catalogue.py     writes docs/faults.md anew
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs" / "faults.md"

CHAPTERS: Final = {
    "A": ("A worker dies", 23),
    "B": ("The driver and its interpreter", 12),
    "C": ("The head", 4),
    "D": ("Values that travel", 16),
    "E": ("Exceptions", 14),
    "F": ("The loop of an async actor", 15),
    "G": ("Threads", 8),
    "H": ("Cancellation", 9),
    "I": ("Objects and shared memory", 13),
    "J": ("Exhaustion", 12),
    "K": ("Call graphs", 7),
    "L": ("Surroundings", 12),
    "M": ("Time and scheduling", 7),
    "N": ("Names, lifetime, handles", 10),
    "O": ("The wire", 9),
}
"""Each letter: what it is about, and how many kinds it has. A is 14 stages and 9 ways to die, crossed in the tests."""


@dataclasses.dataclass(frozen=True, slots=True)
class Kind:
    """One kind of fault."""

    id: str
    fault: str
    outcome: str
    """What must happen."""
    tests: tuple[str, ...] = ()
    """Tests that inject it: file without `test_`, and the test's name without it, in words."""
    why_not: str = ""


def kind(id: str, fault: str, outcome: str, *tests: str) -> Kind:
    return Kind(id, fault, outcome, tests)


def left_out(id: str, fault: str, outcome: str, why_not: str) -> Kind:
    return Kind(id, fault, outcome, (), why_not)


DEATH = "faults/worker_death: "
BEFORE_READY = f"{DEATH}death before ready is an actor died error"
IN_HAND = (
    f"{DEATH}death with a call in hand fails the call and those behind it",
    f"{DEATH}death with a call in hand is the same in other actors",
    f"{DEATH}a tasks worker that dies is tried as often as it may",
    f"{DEATH}a call with retries survives a death at any stage",
)
SHAPES = (
    "conformance/errors: every shape comes home by every way",
    "conformance/errors: every shape comes home from an async actor",
)
EACH_WAY = (f"{DEATH}death in a method fails the call", f"{DEATH}death in the constructor is an actor died error")

KINDS: Final = (
    # A, stages
    kind(
        "A1",
        "before it has said hello",
        "ActorDiedError that says how; a task is tried again",
        BEFORE_READY,
        IN_HAND[2],
    ),
    kind("A2", "while it loads the class", "ActorDiedError that says how", BEFORE_READY),
    kind("A3", "in the constructor", "ActorDiedError that says how, others untouched", EACH_WAY[1]),
    kind("A4", "after the constructor, before it is ready", "ActorDiedError that says how", BEFORE_READY),
    kind("A5", "idle", "the next call fails", f"{DEATH}death while idle fails the next call"),
    kind("A6", "with a call received and not started", "error, or again if it may be retried", *IN_HAND),
    kind(
        "A7",
        "in a method",
        "error, run once at most",
        EACH_WAY[0],
        "faults/chaos: t3 calls run at most once and every one is resolved",
    ),
    kind("A8", "with a result not pickled, or not sent", "error, or again if it may be retried", *IN_HAND),
    kind(
        "A9",
        "in the middle of a result's frame",
        "the part is dropped, never read",
        *IN_HAND,
        "faults/wire: a frame that was half sent is dropped with its connection",
    ),
    kind("A10", "with the result sent", "the result stands", f"{DEATH}a result that was sent stands"),
    kind(
        "A11",
        "in a put, memory taken and not published",
        "the memory is free again",
        f"{DEATH}a segment that was not sealed is reclaimed",
        "objects/faults: a worker that dies before a value is complete leaves no trace of it",
    ),
    kind("A12", "with a borrowed ref", "the ref is given back", f"{DEATH}a borrowers death gives back what it held"),
    kind("A13", "in a graceful exit", "no hang", f"{DEATH}death in a graceful exit is no hang"),
    kind(
        "A14",
        "in a restart",
        "counts as a restart",
        f"{DEATH}death in a restart counts as a restart",
        "faults/outside: a constructor that fails at the restart is the actors end and is told",
    ),
    # A, ways
    kind("A15", "SIGKILL", "named", *EACH_WAY, f"{DEATH}a signal from outside is named"),
    kind("A16", "SIGSEGV", "named", *EACH_WAY, f"{DEATH}a signal from outside is named"),
    kind("A17", "SIGABRT", "named", *EACH_WAY, f"{DEATH}a signal from outside is named"),
    kind("A18", "SIGBUS", "named", *EACH_WAY, f"{DEATH}a signal from outside is named"),
    kind("A19", "SIGTERM", "named", *EACH_WAY, f"{DEATH}a signal from outside is named"),
    kind("A20", "os._exit(0)", "an error all the same, with the code", *EACH_WAY),
    kind(
        "A21",
        "os._exit(7)",
        "the code is told",
        *EACH_WAY,
        "conformance/exiting: os exit ends the actor and the code is told",
    ),
    kind("A22", "sys.exit", "the code is told", *EACH_WAY, "conformance/exiting: sys exit ends the actor"),
    kind("A23", "a C stack that overflows", "SIGSEGV is named", *EACH_WAY),
    # B
    kind(
        "B1",
        "SIGKILL of the driver in any phase",
        "nothing is left after 2 s",
        "faults/driver: a signal to the driver leaves nothing",
        "conformance/scripts: a driver that is killed leaves nothing",
    ),
    kind(
        "B2",
        "SIGTERM or SIGHUP of the driver",
        "the same, and the exit code is the signal's",
        "faults/driver: a signal to the driver leaves nothing",
    ),
    kind(
        "B3",
        "Ctrl-C in a wait",
        "KeyboardInterrupt at once, the ref stays good, no worker gets it",
        "conformance/scripts: ctrl c ends the wait at once and the ref stays good",
        "conformance/scripts: ctrl c at the terminal does not reach the workers",
    ),
    kind(
        "B4",
        "Ctrl-C twice in shutdown, twenty times in calls",
        "it ends; no call is lost",
        "faults/driver: ctrl c twice in shutdown still ends it",
        "faults/driver: a storm of ctrl c during calls loses no call",
    ),
    kind(
        "B5",
        "any end with 10,000 calls pending",
        "nothing is left, no hang",
        "faults/driver: any end with ten thousand calls pending leaves nothing",
    ),
    kind(
        "B6",
        "the end without shutdown, from a thread, from atexit",
        "quiet",
        "faults/driver: leaving without shutdown is quiet",
    ),
    kind(
        "B7",
        "shutdown twice, at once, in an actor, while others wait",
        "they are told",
        "faults/driver: shutdown releases whoever waits in other threads",
        "conformance/lifecycle: many threads may shut down at once",
        "conformance/lifecycle: a shutdown inside an actor does not end the runtime",
    ),
    kind(
        "B8",
        "init and shutdown a hundred times",
        "nothing grows",
        "faults/outside: t10 a hundred runtimes one after another leave nothing",
    ),
    kind(
        "B9",
        "init in a thread, twice, too late; stale refs and handles",
        "works, or a clear error; never a hang",
        "faults/environment: init in another thread works",
        "conformance/lifecycle: a second init is refused",
        "conformance/lifecycle: a stale ref raises and never hangs",
        "conformance/lifecycle: a stale handle raises and never hangs",
    ),
    kind(
        "B10",
        "a fork after init",
        "RuntimeError in the child at once; the parent goes on",
        "faults/driver: a forked child is told at once and harms nothing",
        "faults/driver: a forked child that exits leaves the runtime alone",
        "faults/driver: a pool of forked processes works beside the runtime",
    ),
    kind("B11", "exec in the driver", "the workers leave", "faults/driver: exec in the driver ends the runtime"),
    kind("B12", "a stopped driver", "nothing is lost", "faults/driver: a stopped driver loses nothing"),
    # C
    kind(
        "C1",
        "SIGKILL of the head, idle or with 1,000 calls in flight",
        "HeadDiedError within a second; init works again",
        "faults/head: the death of an idle head is told at the next use",
        "faults/head: the death of the head fails a thousand calls within a second",
    ),
    kind(
        "C2",
        "the head dies before or after each verb",
        "told",
        "faults/head: a head that dies in any phase is told",
        "faults/head: a head that dies as init says hello fails the first use",
    ),
    kind(
        "C3",
        "the head hangs",
        "calls on direct connections go on",
        "faults/head: while the head hangs calls on direct connections go on",
        "faults/head: shutdown ends a head that hangs",
    ),
    kind(
        "C4",
        "a bug in a thread of klieg's own",
        "what is pending fails with the traceback",
        "faults/head: a bug in the monitor thread fails whatever is pending",
    ),
    # D
    kind(
        "D1",
        "an argument, keyword or closure that cannot be pickled",
        "TypeError at the call, naming it",
        "conformance/arguments_and_results: an argument that cannot be pickled raises at the call",
        "conformance/arguments_and_results: a keyword argument that cannot be pickled is named",
        "conformance/arguments_and_results: a closure that cannot be pickled raises at the call",
    ),
    kind(
        "D2",
        "a result that cannot be pickled",
        "an error that names it",
        "conformance/errors: a result that cannot be pickled is an error that names it",
    ),
    kind(
        "D3",
        "what cannot be loaded in the worker",
        "an error, the worker lives",
        "conformance/errors: an argument that raises when it is loaded is an error",
        "faults/environment: a module that fails only in the worker is told",
        "faults/values: a result that cannot be loaded here is an error each time and the actor lives",
    ),
    kind(
        "D4",
        "a value that kills whoever pickles or loads it",
        "the death of that worker only",
        "faults/values: a value that kills the worker that handles it is the death of that worker only",
        "conformance/errors: a result that exits when it is loaded is an error",
    ),
    kind(
        "D5",
        "a value that raises or kills when it is dropped",
        "nothing, or the death of that call",
        "faults/values: a value that raises when it is dropped changes nothing",
        "faults/values: a value that kills its holder when it is dropped is the death of that call",
    ),
    kind("D6", "50,000 lists in one another", "an error", "conformance/errors: a result nested too deep is an error"),
    kind("D7", "a value that holds itself", "arrives", "conformance/arguments_and_results: a cyclic value travels"),
    kind(
        "D8",
        "10,000 arguments; more than 2 GiB",
        "arrive",
        "faults/values: ten thousand arguments arrive",
        "objects/large_values: a value larger than two gib arrives whole",
    ),
    kind(
        "D9",
        "values whose comparison or truth raises",
        "never asked for",
        "conformance/arguments_and_results: values are never compared or asked for their truth",
    ),
    kind(
        "D10",
        "local classes, enums, dataclasses",
        "travel",
        "conformance/arguments_and_results: local classes enums and dataclasses travel",
    ),
    kind(
        "D11",
        "a class defined again between two calls",
        "each call has its own",
        "faults/environment: a repl with redefined classes sends the newest",
        "conformance/handles_and_classes: a class redefined under the same name is another class",
    ),
    kind(
        "D12",
        "sockets, locks, generators, coroutines, files, threads, loops",
        "TypeError at the call, nothing is sent",
        "faults/values: what cannot travel is refused at the call and nothing is sent",
    ),
    kind(
        "D13",
        "refs and handles inside values",
        "travel",
        "conformance/arguments_and_results: nested refs stay refs",
        "conformance/arguments_and_results: a handle is an argument and a result",
        "objects/ownership: refs and handles in an object of the users are counted",
    ),
    kind(
        "D14",
        "an argument changed after the call",
        "not seen",
        "conformance/arguments_and_results: arguments are snapshots",
        "objects/large_values: changing an argument after the call is not seen",
    ),
    kind(
        "D15",
        "a write into a result",
        "ValueError, no signal",
        "objects/large_values: writing into a view raises here and in workers",
    ),
    kind(
        "D16",
        "an array that outlives the runtime",
        "stays readable",
        "conformance/arguments_and_results: an array outlives the runtime",
        "objects/views: a view outlives its ref its owner and the runtime",
    ),
    # E
    kind("E1", "required positional arguments", "the type, the text, the remote traceback; the actor lives", *SHAPES),
    kind("E2", "required keyword arguments", "the same", *SHAPES),
    kind("E3", "a constructor without arguments", "the same", *SHAPES),
    kind("E4", "__reduce__ raises", "the same", *SHAPES),
    kind("E5", "__reduce__ exits", "the same", *SHAPES),
    kind(
        "E6",
        "__str__ raises, or gives many megabytes",
        "the same; the text is cut",
        *SHAPES,
        "conformance/errors: an error with a text of many megabytes is cut",
    ),
    kind("E7", "a class that cannot be imported here", "the same", *SHAPES),
    kind(
        "E8",
        "a final class; args overridden",
        "the same, or a plain task error",
        *SHAPES,
        "conformance/errors: a class that refuses subclassing gives a plain task error",
    ),
    kind(
        "E9",
        "an ExceptionGroup",
        "can be taken apart",
        *SHAPES,
        "conformance/errors: an exception group can be taken apart",
    ),
    kind(
        "E10",
        "causes in a cycle, notes",
        "come home",
        *SHAPES,
        "conformance/errors: the chain of causes comes home",
        "conformance/errors: notes come home",
    ),
    kind("E11", "an exception that holds a lock", "the same", *SHAPES),
    kind(
        "E12",
        "a BaseException of the user's",
        "an Exception at home, with the cause",
        "conformance/errors: a base exception of the user is an exception at home",
    ),
    kind(
        "E13",
        "StopIteration, StopAsyncIteration, GeneratorExit",
        "plain task errors by every way",
        "conformance/errors: the end of an iteration is a plain task error by every way",
        "conformance/errors: exceptions beside exception come as plain task errors",
    ),
    kind(
        "E14",
        "CancelledError, KeyboardInterrupt, SystemExit, MemoryError, RecursionError",
        "task errors, never a cancellation of the awaiter",
        *SHAPES,
        "conformance/errors: a cancelled error of the users is an error and no cancellation",
        "conformance/exiting: a keyboard interrupt in a method is an error and the actor lives",
        "conformance/exiting: sys exit ends the actor",
    ),
    # F
    kind(
        "F1",
        "a method that holds the loop; a blocking get on it",
        "a warning with the stack; an error",
        "conformance/diagnosis: a method that holds the loop is named with its stack",
        "conformance/async_actors: a blocking verb on the loop is refused",
    ),
    kind("F2", "a loop without end", "kill works", "conformance/exiting: kill ends an actor that never comes back"),
    kind(
        "F3",
        "a swallowed CancelledError",
        "the caller gets the error; what goes on is named",
        "conformance/cancellation: a swallowed cancellation still gives the caller an error",
        "conformance/diagnosis: a cancelled call that goes on is reported",
    ),
    kind(
        "F4",
        "loop.stop, loop.close, asyncio.run, another policy",
        "the method's own error; the actor lives, or ends",
        "faults/inside: what a method does to its loop is its own error and the actor answers on",
        "faults/inside: a method that stops the loop ends the actor or nothing but never hangs",
    ),
    kind(
        "F5",
        "100,000 callbacks at once",
        "the actor answers",
        "faults/inside: what a method does to its loop is its own error and the actor answers on",
    ),
    kind(
        "F6",
        "a task left behind when the actor leaves",
        "cancelled and awaited, nothing printed",
        "faults/inside: a task left behind is cancelled when the actor leaves and nothing is printed",
    ),
    kind(
        "F7",
        "a sync method in an async actor",
        "holds the loop, and is atomic",
        "conformance/async_actors: a sync method runs on the loop and is atomic",
    ),
    kind(
        "F8",
        "limits of 1, 1,000 and very many",
        "kept; cost nothing until used",
        "conformance/limits: a huge limit costs nothing until it is used",
        "conformance/limits: the default of an async actor is a thousand",
    ),
    kind(
        "F9",
        "a callback that raises",
        "the actor lives",
        "faults/inside: what a method does to its loop is its own error and the actor answers on",
        "conformance/async_actors: a failed background task does not kill the actor",
    ),
    kind(
        "F10",
        "an async constructor",
        "is awaited; its error is the actor's end",
        "conformance/async_actors: an async constructor is awaited before the first call",
        "conformance/async_actors: an error in an async constructor kills the actor",
    ),
    kind(
        "F11",
        "an async generator dropped, failing, cancelled, too fast",
        "closed; bounded",
        "conformance/generators: a dropped stream closes its producer",
        "conformance/generators: an error is the last ref",
        "conformance/generators: a cancelled stream ends with the cancellation",
        "conformance/generators: a producer stops when the window is full",
    ),
    kind(
        "F12",
        "context variables",
        "do not leak from call to call",
        "conformance/context: what a call sets is not seen by the next",
        "conformance/context: concurrent calls do not see each other",
    ),
    kind(
        "F13",
        "locks and events made in the constructor",
        "belong to the actor's loop",
        "conformance/async_actors: primitives made in the constructor belong to the loop",
    ),
    kind(
        "F14",
        "one ref awaited twice, in two loops, with a timeout",
        "the value each time; only the wait ends",
        "conformance/refs_asyncio: a ref can be awaited in two loops at once",
        "conformance/refs_asyncio: wait for times out and the call goes on",
    ),
    kind(
        "F15",
        "a loop closed before its result comes",
        "hears nothing",
        "conformance/refs_asyncio: a loop that closes before the result hears nothing",
    ),
    # G
    kind(
        "G1",
        "more calls than threads",
        "never more run than the limit says",
        "conformance/threaded_actors: never more calls run than the limit says",
    ),
    kind(
        "G2",
        "a pool all of whose threads block",
        "kill works",
        "faults/inside: a pool whose every thread hangs in a users lock can be killed",
    ),
    kind(
        "G3",
        "a deadlock in a lock of the user's",
        "kill works",
        "faults/inside: a pool whose every thread hangs in a users lock can be killed",
    ),
    kind(
        "G4",
        "a thread of the user's that calls",
        "works",
        "conformance/threaded_actors: a thread of the user can call and get",
    ),
    kind(
        "G5",
        "threads of the user's when the actor leaves",
        "do not keep it",
        "faults/inside: threads of the users do not keep an actor that leaves",
    ),
    kind(
        "G6",
        "thread locals; a signal handler in a pool thread",
        "persist; Python's ValueError comes home",
        "conformance/threaded_actors: thread locals persist on a thread",
        "faults/inside: a signal handler in a pool thread is refused by python and the error comes home",
    ),
    kind(
        "G7",
        "many threads that call, wait, create, kill and shut down",
        "no race",
        "conformance/threads: many threads create and kill actors",
        "conformance/threads: many threads put get and wait",
        "conformance/lifecycle: many threads may shut down at once",
    ),
    kind(
        "G8",
        "a full group",
        "starves nobody else",
        "conformance/groups: a full group does not delay another",
        "conformance/groups: a full group of threads does not delay the default",
    ),
    # H
    kind("H1", "cancel in every state of a call", "by one table", "conformance/cancellation_table: *"),
    kind(
        "H2",
        "very many cancellations",
        "the actor works on",
        "conformance/cancellation: a storm of cancellations leaves a working actor",
        "faults/outside: t13 very many waiting calls are cancelled within seconds",
    ),
    kind("H3", "children", "follow unless told not to", "conformance/cancellation: children follow unless told not to"),
    kind("H4", "cancel from another process", "works", "conformance/cancellation: another process can cancel"),
    kind(
        "H5",
        "cancel and result at once",
        "exactly one",
        "conformance/cancellation: of a cancellation and a result exactly one wins",
    ),
    kind(
        "H6",
        "an interrupt that comes too late",
        "never hits the next task",
        "conformance/cancellation: an interrupt never hits the next task",
    ),
    kind(
        "H7",
        "cancel of what several calls wait for",
        "fails them all, and nobody else",
        "faults/inside: a dependency of several calls that is cancelled fails them all and nobody else",
    ),
    kind(
        "H8",
        "cancel of a generator",
        "ends the stream",
        "conformance/generators: a cancelled stream ends with the cancellation",
    ),
    kind(
        "H9",
        "an interrupt inside klieg's own code",
        "loses no call",
        "faults/driver: a storm of ctrl c during calls loses no call",
        "objects/faults: a put that is interrupted by its reader gives the memory back",
    ),
    # I
    kind(
        "I1",
        "the store is full: a small tmpfs, a control group, a file size limit",
        "ObjectStoreFullError, no SIGBUS, smaller values go on",
        "objects/faults: a full tmpfs of eight mib gives a hundred clear errors and no signal",
        "objects/faults: the store stays within a control group that is small",
        "objects/limit: a limit on the size of files is an error and no signal",
    ),
    kind(
        "I2",
        "no /dev/shm, no memfd",
        "files serve",
        "objects/faults: files of a directory serve where there is no memfd",
        "faults/exhaustion: it works without shared memory mounted and says so of large values if it must",
    ),
    kind(
        "I3",
        "a segment truncated behind our back",
        "cannot be",
        "objects/faults: a segment cannot be truncated behind our back",
    ),
    kind(
        "I4",
        "the owner dies",
        "OwnerDiedError",
        "objects/ownership: a ref whose owner died says so",
        "objects/ownership: whoever waits for a value when its owner dies is told",
    ),
    kind(
        "I5",
        "a borrower dies",
        "the value is free",
        "objects/ownership: what a borrower held is free when the borrower dies",
    ),
    kind(
        "I6",
        "a ref that is only in a result",
        "keeps its value",
        "objects/ownership: a ref only in a result keeps its value in the actor that made it",
    ),
    kind(
        "I7",
        "a ref pickled by hand",
        "stays readable",
        "objects/ownership: a ref pickled by hand stays readable though it was dropped",
    ),
    kind(
        "I8",
        "10,000 refs in one get; thousands of values put and dropped",
        "the memory is back",
        "objects/ownership: ten thousand refs are read by one get and freed",
        "objects/ownership: five thousand values of one mib leave the store empty",
    ),
    kind(
        "I9",
        "refs twice in a list; odd numbers and timeouts",
        "values, or a clear error",
        "objects/ownership: duplicate refs in one get give each a value",
        "conformance/get_wait_put: wait refuses",
        "conformance/get_wait_put: a huge timeout is fine",
    ),
    kind(
        "I10",
        "get of what is no ref, or of an earlier runtime",
        "a clear error",
        "conformance/get_wait_put: get refuses anything else",
        "objects/ownership: a ref of an earlier runtime raises instead of hanging",
    ),
    kind(
        "I11",
        "an array whose ref is gone",
        "stays",
        "conformance/arguments_and_results: an array outlives its ref",
        "objects/views: memory is not used again while a view of it is alive",
    ),
    kind(
        "I12",
        "a writer that dies before its value is complete",
        "readers get an error",
        "objects/faults: a worker that dies before a value is complete leaves no trace of it",
    ),
    kind(
        "I13",
        "everything killed at once",
        "nothing is left",
        "objects/faults: killing everything at once leaves no value anywhere",
    ),
    # J
    kind(
        "J1",
        "no descriptors",
        "an error that says what to do; others go on; no spinning",
        "faults/exhaustion: without descriptors a new actor fails clearly and the others go on",
        "faults/exhaustion: without descriptors for the runtime init says so",
    ),
    kind(
        "J2",
        "no processes",
        "an error that says so; it recovers",
        "faults/exhaustion: a user without processes left is told and recovers",
        "faults/exhaustion: a control group without processes left is told and recovers",
    ),
    kind(
        "J3",
        "no threads",
        "the call fails, the actor goes on",
        "faults/exhaustion: a threaded actor without threads left fails the call and goes on",
    ),
    kind(
        "J4",
        "killed for want of memory",
        "the error says so",
        "faults/exhaustion: a real kill for want of memory says so",
        "faults/exhaustion: a task that is killed for want of memory says so",
    ),
    kind(
        "J5", "MemoryError", "an error like any other", "faults/exhaustion: a memory error is an error like any other"
    ),
    kind(
        "J6",
        "a full disk",
        "the runtime works",
        "faults/exhaustion: it works where a file system is full or read only",
        "objects/limit: a disk without room is an error that says so",
    ),
    kind(
        "J7",
        "10,000 calls that wait at once, 100,000 queued",
        "all resolved",
        "faults/outside: t13 very many calls wait at once and all are resolved",
        "faults/outside: t13 a hundred thousand queued calls fit into memory and are resolved",
    ),
    kind(
        "J8",
        "a slow consumer",
        "bounds what is made",
        "faults/exhaustion: a slow consumer bounds what a producer makes",
    ),
    kind(
        "J9",
        "a hundred actors on two cores",
        "all answer",
        "faults/exhaustion: a hundred actors on two cores all answer",
    ),
    kind(
        "J10",
        "no inodes, a read-only /tmp, no TMPDIR",
        "the runtime works",
        "faults/exhaustion: it works where a file system is full or read only",
        "commands/door: where no folder can be made the runtime works without",
    ),
    kind("J11", "a path too long for a socket", "works", "commands/door: a path too long for a socket will do"),
    kind(
        "J12",
        "output that nobody reads",
        "no deadlock",
        "faults/exhaustion: a reader that never reads is no deadlock",
        "faults/environment: output that nobody reads ends nothing",
    ),
    # K
    kind(
        "K1",
        "a chain of 10,000 refs",
        "no recursion",
        "faults/outside: t14 a long chain and a wide fan in are no recursion",
    ),
    kind(
        "K2",
        "10,000 refs into one call",
        "arrive",
        "faults/outside: t14 a long chain and a wide fan in are no recursion",
    ),
    kind(
        "K3",
        "calls that wait for one another; tasks nested deeper than CPUs",
        "raised or named; no deadlock",
        "conformance/nesting: a wait for oneself that can never end raises",
        "conformance/nesting: tasks nest deeper than there are cpus",
        "conformance/circles: plain actors that wait for one another are reported",
    ),
    kind(
        "K4",
        "a dependency that fails",
        "dependants do not run, and say why",
        "conformance/errors: a dependant does not run and says so",
        "conformance/errors: an error goes down a chain of dependants",
    ),
    kind(
        "K5",
        "a dependency whose actor restarts",
        "its value in the end",
        "faults/outside: a call that waits for one of an actor that restarts gets its value",
    ),
    kind("K6", "an actor that creates actors", "works", "conformance/nesting: an actor creates actors"),
    kind(
        "K7",
        "a tree of actors five deep; its root is killed",
        "all end",
        "conformance/nesting: a tree of actors five deep",
        "conformance/nesting: the children of a killed actor die with it",
    ),
    # L
    kind("L1", "no main guard", "works", "conformance/scripts: a script needs no main guard"),
    kind(
        "L2",
        "-c, stdin, a REPL, a zipapp, -O, -I, -W error, -X dev",
        "work",
        "faults/environment: it works under pythons options",
        "faults/environment: it works in isolated mode",
        "faults/environment: it works from a zipapp",
        "conformance/scripts: a program on stdin works",
    ),
    kind(
        "L3",
        "a working directory that is another, or gone",
        "works",
        "faults/environment: it works after what a program may have done",
        "faults/environment: chdir after init and paths added later count",
    ),
    kind(
        "L4",
        "sys.path, shadowing files, modules that fail, talk or take long",
        "work, or are told",
        "faults/environment: files in the working directory do not stand in for modules",
        "faults/environment: a module that fails only in the worker is told",
        "faults/environment: a module that talks starts threads and takes its time is fine",
    ),
    kind(
        "L5",
        "closed standard streams; input() in a worker",
        "works; no input is taken",
        "faults/environment: it works with standard descriptors closed",
        "faults/environment: a worker can read no input of the drivers",
    ),
    kind("L6", "unusual variables, locale, umask", "works", "faults/environment: it works with unusual variables"),
    kind(
        "L7",
        "descriptors 0 to 2 free",
        "no socket takes them",
        "faults/environment: prints of workers do not reach connections when stdout is closed",
    ),
    kind(
        "L8",
        "a program that reaps every child",
        "no trouble",
        "faults/environment: a program that reaps every child is no trouble",
    ),
    kind(
        "L9", "signal handlers of the user's", "kept", "conformance/scripts: a handler that the user installed is kept"
    ),
    kind(
        "L10",
        "a daemon, no terminal, nohup",
        "works",
        "faults/environment: a daemon that forks twice before init works",
        "faults/environment: a driver without a terminal outlives a hang up",
    ),
    kind("L11", "a read-only package", "works", "faults/environment: the package may be read only"),
    kind("L12", "a tracer", "works", "faults/environment: it works under a tracer"),
    # M
    kind(
        "M1",
        "a wall clock that jumps a day",
        "changes no timeout",
        "faults/outside: a wall clock that jumps a day changes no timeout",
    ),
    kind("M2", "a stopped worker", "no false death", "conformance/exiting: a stopped process is not taken for dead"),
    left_out(
        "M3",
        "the machine suspended",
        "no timeouts all at once",
        "a test cannot suspend the machine; all waits are on CLOCK_MONOTONIC, which stands still then",
    ),
    kind(
        "M4",
        "the GIL held for long, with 600 calls waiting",
        "no false death",
        "faults/outside: a gil that is held while six hundred calls wait is no death",
    ),
    kind(
        "M5",
        "CPUs busy with something else",
        "no timeout",
        "faults/outside: a machine that is busy with other things lets nothing time out",
    ),
    left_out(
        "M6",
        "a process id used again",
        "nobody else is signalled",
        "it would take 32,768 forks a try; signals go to children not reaped yet, whose number is still theirs",
    ),
    kind(
        "M7",
        "a thousand signals a second",
        "disturb nothing",
        "faults/environment: a thousand hertz of signals disturb nothing",
        "objects/faults: signals all the time do not keep a large value from being stored",
    ),
    # N
    kind(
        "N1",
        "many who want one name",
        "exactly one wins",
        "conformance/names: of many threads that want a name exactly one wins",
        "conformance/names: of many tasks that want a name all get the same actor",
    ),
    kind(
        "N2",
        "a name free again; a handle from before",
        "reaches nobody new",
        "conformance/names: a name is free after a kill",
        "conformance/lifecycle: a stale handle does not reach an actor of the new runtime",
    ),
    kind(
        "N3",
        "get_actor of one that is pending or dead",
        "the actor, or ValueError",
        "conformance/names: a named actor is found before its constructor has run",
        "conformance/names: a missing name is a value error",
    ),
    kind(
        "N4",
        "a handle elsewhere after the death",
        "told at once",
        "conformance/exiting: a handle in another process learns of the death",
    ),
    kind(
        "N5",
        "the last handle dropped",
        "the actor ends after its calls",
        "conformance/scope: pending calls finish before it ends",
    ),
    kind(
        "N6",
        "a handle in a cycle, on its way, pickled",
        "counted",
        "conformance/scope: an actor in a cycle ends when the cycle is collected",
        "conformance/scope: a handle on its way keeps the actor",
        "conformance/handles_and_classes: a handle and a ref can be pickled out of band",
    ),
    kind(
        "N7",
        "kill of a pending, restarting, dead actor, of oneself",
        "the end",
        "faults/outside: a kill in any state is the end",
        "conformance/restarts: kill restarts when asked to",
    ),
    kind(
        "N8",
        "a detached actor",
        "outlives its handles, not its runtime",
        "conformance/names: a detached actor survives its handles",
    ),
    kind(
        "N9",
        "the constructor at a restart",
        "has its arguments; may fail, and is told",
        "conformance/restarts: a restart has the constructors refs",
        "faults/outside: a constructor that fails at the restart is the actors end and is told",
    ),
    kind(
        "N10",
        "a crash loop",
        "slowed down, next to no CPU",
        "faults/outside: a crash loop is slowed down and costs next to nothing",
    ),
    # O
    kind(
        "O1",
        "frames cut at any byte, or several at once",
        "arrive whole",
        "faults/wire: frames arrive whole however the stream is cut",
        "faults/wire: frames arrive whole cut in two at every offset",
    ),
    kind(
        "O2",
        "garbage, impossible lengths",
        "end the connection",
        "faults/wire: a strangers mutated bytes give frames or a wire error and are never unpickled",
        "faults/wire: a peers mutated frames end its connection at most and resolve no call twice",
        "faults/wire: a worker that its caller sends mutated frames harms nobody else",
        "security/data: s11 a length that cannot be ends the connection",
    ),
    kind(
        "O3",
        "a byte a second; silence",
        "keeps nobody waiting",
        "security/doors: s10 a peer that sends byte by byte keeps nobody waiting and no memory",
        "commands/door: silent visitors are sent away and others get in",
    ),
    kind(
        "O4",
        "a thousand connects and drops",
        "cost nothing",
        "faults/outside: a thousand connects and drops at the door cost nothing",
    ),
    kind(
        "O5",
        "answers twice, late, in another order, for unknown calls",
        "change nothing",
        "faults/wire: a duplicate a late and an unknown answer change nothing",
        "faults/wire: answers in any order go where they belong",
    ),
    kind(
        "O6",
        "a half-closed connection; both ends full",
        "over; no deadlock",
        "faults/wire: a half closed connection is over",
        "faults/exhaustion: two processes that send each other a hundred megabytes do not block each other",
    ),
    kind(
        "O7",
        "a control message lost before or after its effect",
        "told",
        "faults/head: a head that dies in any phase is told",
    ),
    kind(
        "O8",
        "a bug where frames are read",
        "fails the calls of that connection",
        "faults/head: a bug in the reader fails the calls of that connection",
        "faults/head: a message of the heads own that nobody knows ends the sender only",
    ),
    kind(
        "O9",
        "a full wake-up descriptor",
        "wakes all the same",
        "faults/head: a full wake up descriptor wakes all the same",
    ),
)


def page() -> Iterator[str]:
    """docs/faults.md, line by line."""
    injected = sum(bool(kind.tests) for kind in KINDS)
    yield "# Faults"
    yield ""
    yield "What can go wrong, what must then happen, and the tests that make it happen."
    yield f"{injected} of {len(KINDS)} kinds are injected; the others say why not. `make test` injects a cut of"
    yield "the many combinations, `make chaos` all of them. This page is written by `python tests/faults/catalogue.py`."
    yield ""
    for letter, (title, _) in CHAPTERS.items():
        yield f"## {title}"
        yield ""
        yield "| | fault | what must happen | shown by |"
        yield "|---|---|---|---|"
        for kind in KINDS:
            if kind.id[0] == letter:
                yield f"| {kind.id} | {kind.fault} | {kind.outcome} | {_shown(kind)} |"
        yield ""


def _shown(kind: Kind) -> str:
    if kind.why_not:
        return f"not injected: {kind.why_not}"
    return "<br>".join(test.replace("_", " ").replace(": *", "") for test in kind.tests)


if __name__ == "__main__":
    PAGE.write_text("\n".join(page()).rstrip() + "\n", encoding="utf-8")
