"""Everything klieg raises.

    KliegError (RayError)
    ├── TaskError (RayTaskError)             a task or method raised; also an instance of what it raised
    ├── TaskCancelledError                   cancelled before it could finish
    ├── DeadlineExceededError  [TimeoutError]   its own `timeout` option expired
    ├── GetTimeoutError        [TimeoutError]   `get` gave up waiting; the task goes on
    ├── BlockingGetError       [RuntimeError]   a blocking `get`/`wait` on an async actor's loop, or a wait without end
    ├── WorkerCrashedError                   the process that ran a task died
    ├── ActorError (RayActorError)
    │   ├── ActorDiedError                   it is dead and stays dead
    │   └── ActorUnavailableError            it is being restarted; a later call may succeed
    ├── PendingCallsLimitExceeded
    ├── ActorAlreadyExistsError [ValueError]    the name is taken
    ├── ActorHandleNotFoundError [ValueError]   the handle is of another runtime
    ├── TaskUnschedulableError, ActorUnschedulableError   no machine of this runtime can ever hold it
    ├── ObjectLostError
    │   └── OwnerDiedError                   the process that owned the value died
    ├── ObjectStoreFullError
    ├── RuntimeShutdownError   [RuntimeError]   klieg was shut down under the caller
    ├── HeadDiedError                        the head process died: the runtime is gone
    ├── SystemError_ (RaySystemError)        klieg is not running, or cannot
    ├── RuntimeEnvSetupError, OutOfMemoryError, UserCodeException, ObjectRefStreamEndOfStreamError
    ├── TaskPlacementGroupRemoved, ActorPlacementGroupRemoved   the reservation it was to run in is gone
    ├── NeedsRayEngineError [NotImplementedError]   it has a meaning on a cluster only
    └── UnserializableException              the error could not be rebuilt here; its text is kept

The names in round brackets are Ray's, for programs that catch those; square brackets name a second base class.

The last section defines what Ray raises on a cluster only. klieg's own engines never do; the classes are there so that
an `except` clause which names them imports.
"""

import types
from typing import Any, Final


class KliegError(Exception):
    """The base of every error that klieg itself raises."""


class TaskError(KliegError):
    """A task or an actor's method raised an exception.

    What `get`, `await` and `ref.future().result()` raise is also an instance of the original type wherever that type
    allows it, so `except ValueError` works. `str()` of it is the remote traceback.
    """

    cause: BaseException | None
    """The original exception, rebuilt in this process; None if it could not be."""
    function_name: str
    """`f` or `Class.method`."""
    traceback_str: str
    """The traceback as it was printed in the worker, without klieg's own frames."""
    pid: int

    def __init__(
        self,
        function_name: str = "",
        traceback_str: str = "",
        cause: BaseException | None = None,
        pid: int = 0,
    ) -> None:
        Exception.__init__(self, cause)
        self.function_name = function_name
        self.traceback_str = traceback_str
        self.cause = cause
        self.pid = pid
        self.__cause__ = cause

    def as_instanceof_cause(self) -> "TaskError":
        """This error as an instance of `type(self.cause)` too, where that type can be subclassed and raised safely."""
        cause = self.cause
        if cause is None or isinstance(self, type(cause)) or not isinstance(cause, Exception):
            return self
        if isinstance(cause, UNSAFE_IN_A_FUTURE):
            return self
        return _dual(self, cause)

    def original(self) -> Exception:
        """What the task raised, as its own type and nothing else, with the remote traceback as its cause.

        This error itself if the original could not be rebuilt, or is of a kind that no future can hold.
        """
        cause = self.cause
        if not isinstance(cause, Exception) or isinstance(cause, UNSAFE_IN_A_FUTURE):
            return self
        cause.__cause__ = RemoteTraceback(self.traceback_str)
        return cause

    def __str__(self) -> str:
        return self.traceback_str

    def __repr__(self) -> str:
        try:
            return f"{type(self).__name__}({self.cause!r})"
        except Exception:  # the cause's own `__repr__` fails; asyncio prints errors in places that must not
            return f"{type(self).__name__}({type(self.cause).__name__})"

    def __getattr__(self, name: str) -> Any:
        # Only reached for what neither class has: an attribute that the original exception was given.
        if name.startswith("__") or name in TaskError.__annotations__:
            raise AttributeError(name)
        return getattr(self.cause, name)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild_task_error, (self.function_name, self.traceback_str, self.cause, self.pid)


class RemoteTraceback(Exception):
    """The traceback of a task as text; never raised, only the cause of what is."""

    def __str__(self) -> str:
        return f"\n\n{self.args[0]}"


UNSAFE_IN_A_FUTURE: Final = (StopIteration, StopAsyncIteration, GeneratorExit)
"""A future that holds one of these hangs its awaiter for ever (asyncio refuses StopIteration; faults.md, section 6)."""


def _rebuild_task_error(name: str, text: str, cause: BaseException | None, pid: int) -> TaskError:
    return TaskError(name, text, cause, pid).as_instanceof_cause()


_dual_classes: dict[type[BaseException], type[TaskError] | None] = {}


def _dual(error: TaskError, cause: Exception) -> TaskError:
    cls = type(cause)
    if cls not in _dual_classes:
        _dual_classes[cls] = _make_dual_class(cls)
    dual_class = _dual_classes[cls]
    if dual_class is None:
        return error
    dual: TaskError
    try:
        dual = _new_without_constructor(dual_class, cause)
        copy_members(cause, dual)
    except Exception:  # a class with its own ideas about creation: the plain TaskError still tells all
        return error
    TaskError.__init__(dual, error.function_name, error.traceback_str, cause, error.pid)
    for note in getattr(cause, "__notes__", ()):
        dual.add_note(note)
    return dual


def _make_dual_class(cls: type[Exception]) -> type[TaskError] | None:
    try:
        body = {"__module__": TaskError.__module__, "__init__": TaskError.__init__, "__str__": TaskError.__str__}
        if issubclass(cls, BaseExceptionGroup):
            body |= {"derive": lambda self, excs: self.cause.derive(excs)}
        return types.new_class(f"TaskError({cls.__name__})", (TaskError, cls), exec_body=lambda ns: ns.update(body))
    except Exception:  # final classes, enums, metaclasses: cannot be subclassed
        return None


def _new_without_constructor(cls: type[Any], like: BaseException) -> Any:
    base: Any = next(c for c in cls.__mro__ if c.__module__ == "builtins")
    if isinstance(like, BaseExceptionGroup):
        return base.__new__(cls, like.message, like.exceptions)
    try:
        return base.__new__(cls)
    except TypeError:  # MemoryError keeps its own from classes that have another base besides
        return Exception.__new__(cls)


def copy_members(source: BaseException, target: BaseException) -> None:
    """Copy what C code keeps outside `__dict__` (`errno`, `filename`, `value`, slots) from one exception to another."""
    for name, value in members(source).items():
        try:
            setattr(target, name, value)
        except (AttributeError, TypeError, ValueError):  # read-only in this version of Python
            continue


def members(error: BaseException) -> dict[str, Any]:
    """The values of the C-level members and slots of an exception; a member that cannot be read is left out."""
    found: dict[str, Any] = {}
    for cls in type(error).__mro__:
        if cls in (BaseException, Exception, object):
            continue
        for name, descriptor in vars(cls).items():
            if isinstance(descriptor, types.MemberDescriptorType) and name not in found:
                try:
                    found[name] = getattr(error, name)
                except AttributeError:
                    continue
    return found


class TaskCancelledError(KliegError):
    """The call was cancelled: it never started, or was stopped while it ran."""

    def __init__(self, message: str = "The call was cancelled.") -> None:
        super().__init__(message)


class DeadlineExceededError(KliegError, TimeoutError):
    """The call's `timeout` expired: in the queue (it never started) or while it ran (it was cancelled)."""


class GetTimeoutError(KliegError, TimeoutError):
    """`get` waited as long as it was told to. The call itself goes on; the ref can be asked again."""


class BlockingGetError(KliegError, RuntimeError):
    """A blocking `get` or `wait` that would stop an event loop, or that can be proved never to end."""


class WorkerCrashedError(KliegError):
    """The worker process that ran the task died; the message says how. Raised when no retry is left."""


class ActorError(KliegError):
    """An actor could not carry out a call."""

    def __init__(self, message: str = "The actor died.", actor_id: str | None = None) -> None:
        super().__init__(message)
        self.actor_id = actor_id
        """The actor's id as hex digits, where it is known."""

    @property
    def error_msg(self) -> str:
        return str(self)


class ActorDiedError(ActorError):
    """The actor is dead and will not come back. Whether this very call ran cannot be known, unless it was queued."""

    def __init__(
        self,
        message: str = "The actor died.",
        actor_id: str | None = None,
        actor_init_failed: bool = False,
    ) -> None:
        super().__init__(message, actor_id)
        self.actor_init_failed = actor_init_failed
        """True if the constructor raised; the message then holds its traceback."""
        self.preempted = False

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (*self.args, self.actor_id, self.actor_init_failed)


class ActorUnavailableError(ActorError):
    """The actor's process died during the call and is being restarted: the call may or may not have run."""


class PendingCallsLimitExceeded(KliegError):
    """As many calls as `max_pending_calls` allows are queued or running; raised at `.remote()`."""


class AsyncioActorExit(KliegError):
    """Raised by `exit_actor()` inside an async actor, to unwind the method that called it."""


class ActorAlreadyExistsError(ValueError, KliegError):
    """An actor of this name lives in this namespace."""


class ActorHandleNotFoundError(ValueError, KliegError):
    """The handle belongs to a runtime that was shut down."""


class TaskUnschedulableError(KliegError):
    """The task asks for more than this runtime has in all, so that it could never start."""


class ActorUnschedulableError(KliegError):
    """The actor asks for more than this runtime has in all, so that it could never be placed."""


class ObjectLostError(KliegError):
    """The value of the ref is gone."""


class OwnerDiedError(ObjectLostError):
    """The process that made the ref, and kept its value, died."""


class ObjectStoreFullError(KliegError):
    """The shared-memory store cannot hold the value."""


class RuntimeShutdownError(KliegError, RuntimeError):
    """klieg was shut down while the caller waited, or before it asked."""

    def __init__(self, message: str = "runtime shut down: `klieg.shutdown()` was called") -> None:
        super().__init__(message)


class HeadDiedError(KliegError):
    """The head process died, and with it the runtime. `shutdown()` and `init()` start a new one."""


class SystemError_(KliegError):
    """klieg is not initialized, or the machine refuses what it needs."""


class RuntimeEnvSetupError(KliegError):
    """The runtime environment of a task or actor cannot be set up."""


class OutOfMemoryError(KliegError):
    """The machine ran out of memory under a worker."""


class UserCodeException(KliegError):
    """Ray's name for an error of user code that runs outside tasks; klieg raises TaskError, which tells more."""


class ObjectRefStreamEndOfStreamError(KliegError):
    """Ray's sign that a stream of refs has ended; with klieg the iteration just ends."""


class TaskPlacementGroupRemoved(KliegError):
    """The placement group that the task was to run in was removed before it could start."""


class ActorPlacementGroupRemoved(KliegError):
    """The placement group that the actor lived in, or was to be placed in, was removed."""


class NeedsRayEngineError(KliegError, NotImplementedError):
    """What was asked for has a meaning on a cluster only: `init(engine="ray", address=...)` runs the program there."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what

    def __str__(self) -> str:
        return (
            f"{self.what} needs a Ray cluster, and this engine runs on one machine. "
            "`init(engine='ray', address=...)` runs the same program on a cluster."
        )


class UnserializableException(KliegError):
    """The original exception could not be rebuilt in this process; the message keeps its type, text and traceback."""


# What Ray raises on a cluster only


class NodeDiedError(KliegError):
    """A machine of the cluster died."""


class LocalRayletDiedError(KliegError):
    """The Ray process that manages this machine died."""


class ObjectFetchTimedOutError(ObjectLostError):
    """A value could not be fetched from another machine in time."""


class ObjectFreedError(ObjectLostError):
    """The value was freed by hand."""


class ObjectReconstructionFailedError(ObjectLostError):
    """A lost value could not be made again."""


class ReferenceCountingAssertionError(ObjectLostError, AssertionError):
    """A value was deleted while somebody still named it."""


class OutOfDiskError(KliegError):
    """A machine has no room left to spill values to."""


class PlasmaObjectNotAvailable(KliegError):
    """A value is not in the machine's object store."""


class RpcError(KliegError):
    """A request between Ray's processes failed."""


class AuthenticationError(KliegError):
    """The cluster refused the caller's token."""


class CrossLanguageError(KliegError):
    """A call into another language failed."""


class OufOfBandObjectRefSerializationException(KliegError):
    """A ref was pickled where the cluster forbids it. (Ray's own spelling.)"""


class StreamingGeneratorReplayInconsistentError(SystemError_):
    """A generator that was run again gave other items than the first time."""


class RayChannelError(SystemError_):
    """A channel of a compiled graph failed."""


class RayChannelTimeoutError(RayChannelError, TimeoutError):
    """A channel of a compiled graph was not ready in time."""


class RayCgraphCapacityExceeded(SystemError_):
    """More executions of a compiled graph are in flight than it can hold."""


class RayDirectTransportError(SystemError_):
    """Tensors could not be sent directly between actors."""


RayError = KliegError
RayTaskError = TaskError
RayActorError = ActorError
RaySystemError = SystemError_
