"""Ray's names against klieg's: every name of Ray's core interface, and what has become of it here.

`python -m klieg.names` writes this table as a page, docs/ray-names.md. A test holds it complete against the list of
Ray 2.60's names, and true: what it calls offered exists, what it calls refused refuses.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterator
from typing import Final

from klieg.environment import VARIABLES


class State(enum.Enum):
    """What has become of a name."""

    SAME = "same"
    BETTER = "better"
    ACCEPTED = "accepted"
    CLUSTER = "Ray engine only"
    ABSENT = "not offered"
    LATER = "not yet"


MEANING: Final = {
    State.SAME: "it is there and does what Ray does",
    State.BETTER: "it is there and does something else on purpose; the note says what",
    State.ACCEPTED: "it may be written and has no effect on one machine",
    State.CLUSTER: "it has a meaning on a cluster only: using it raises NeedsRayEngineError",
    State.ABSENT: "klieg has no such name; the note says what to use instead, if anything",
    State.LATER: "it is wanted, and not there yet",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One name of Ray's."""

    name: str
    state: State
    note: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Section:
    """The names of one place."""

    title: str
    home: str
    """Where the names are looked up: a dotted path, or "options", "init", "environment" or "command"."""
    rows: tuple[Row, ...]

    def row(self, name: str) -> Row | None:
        return next((row for row in self.rows if row.name == name), None)


def _rows(state: State, names: str, note: str = "") -> Iterator[Row]:
    return (Row(name, state, note) for name in names.split())


def same(names: str, note: str = "") -> Iterator[Row]:
    return _rows(State.SAME, names, note)


def better(names: str, note: str) -> Iterator[Row]:
    return _rows(State.BETTER, names, note)


def accepted(names: str, note: str = "") -> Iterator[Row]:
    return _rows(State.ACCEPTED, names, note)


def cluster(names: str, note: str = "") -> Iterator[Row]:
    return _rows(State.CLUSTER, names, note)


def absent(names: str, note: str) -> Iterator[Row]:
    return _rows(State.ABSENT, names, note)


def later(names: str, note: str = "") -> Iterator[Row]:
    return _rows(State.LATER, names, note)


OTHER_LIBRARY: Final = "another library of Ray's, which klieg does not replace"
OTHER_LANGUAGE: Final = "klieg runs Python only"
PRIVATE: Final = "Ray's own internals"

SECTIONS: Final = (
    Section(
        "The package",
        "klieg",
        (
            *better("init", "`engine=` says where calls run, `blocking_get=` what a blocking `get` on a loop does"),
            *better("shutdown", "ends hooks, actors and waiters in order, and waits until every process is gone"),
            *same("is_initialized method put kill get_actor"),
            *better("remote", "`@remote(max_concurrency=N)` makes tasks of `async def`"),
            *better("get", "raises at once where it could never end; an exception of a signal handler ends it"),
            *better("wait", "on the event loop of an async actor it raises, as `get` does"),
            *better("cancel", "reaches blocking calls; what is queued fails at once"),
            *better("ObjectRef", "also what asyncio expects of a future, so `asyncio.wait([ref])` works"),
            *better("ObjectRefGenerator", "dropping it closes the producer, sync ones too"),
            *same("DynamicObjectRefGenerator"),
            *same("actor exceptions util runtime_context remote_function get_runtime_context cloudpickle"),
            *better("__version__", "klieg's own"),
            *better("__commit__", 'the commit of a checkout, "unknown" in an installed package'),
            *better("nodes", "the one machine, with the keys that mean something there"),
            *same("cluster_resources available_resources"),
            *same("get_gpu_ids"),
            *better("runtime_env", "env_vars, working_dir and py_modules as paths; the rest needs the Ray engine"),
            *better(
                "timeline", "queueing, running and waiting apart; recording is turned on by `init(profiling=True)`"
            ),
            *better("LoggingConfig", "records of workers pass through the driver's loggers and handlers"),
            *same("ActorID TaskID JobID NodeID WorkerID ObjectID UniqueID PlacementGroupID FunctionID"),
            *same("ActorClassID ClusterID"),
            *same("SCRIPT_MODE WORKER_MODE RESTORE_WORKER_MODE SPILL_WORKER_MODE"),
            *same("Language", "PYTHON is the only one"),
            *cluster("client ClientBuilder job_config job_submission dag"),
            *absent("java_function java_actor_class cpp_function cross_language", OTHER_LANGUAGE),
            *absent("autoscaler data workflow serve train tune rllib llm air dashboard", OTHER_LIBRARY),
            *absent("internal widgets _config _private worker state serialization ray_constants", PRIVATE),
            *absent("cluster_utils AUTO_INIT_APIS", PRIVATE),
            *later("experimental"),
        ),
    ),
    Section(
        "Keywords of `init`",
        "init",
        (
            *same("num_cpus num_gpus resources labels ignore_reinit_error log_to_driver namespace runtime_env"),
            *better("address", 'None or "local" here; an address of a cluster needs `engine="ray"`'),
            *same("object_store_memory", "beyond it, what nobody reads moves to disk; see objects.md"),
            *accepted("include_dashboard dashboard_host dashboard_port job_config"),
            *accepted("configure_logging logging_level logging_format"),
            *same("logging_config"),
            *accepted("enable_resource_isolation cgroup_path system_reserved_cpu system_reserved_memory"),
            *accepted("proxy_server_url"),
            *absent("local_mode", "`init(engine='inline')` runs everything in this process, async actors included"),
        ),
    ),
    Section(
        "What `init` returns",
        "klieg.api.Context",
        (
            *same("disconnect address_info dashboard_url python_version __enter__ __exit__ __getitem__"),
            *better("ray_version ray_commit", "klieg's own"),
        ),
    ),
    Section(
        "`ObjectRef`",
        "klieg.ObjectRef",
        (
            *same("__await__ future as_future hex binary task_id job_id is_nil nil size __eq__ __hash__ __repr__"),
            *same("__class_getitem__ _on_completed"),
            *absent("owner_address call_site from_binary from_hex from_random redis_shard_hash", PRIVATE),
            *absent("tensor_transport", PRIVATE),
        ),
    ),
    Section(
        "`ObjectRefGenerator`",
        "klieg.ObjectRefGenerator",
        (
            *same("__iter__ __next__ __aiter__ __anext__ completed next_ready is_finished"),
            *same("send throw close asend athrow aclose", "raise NotImplementedError, as in Ray"),
        ),
    ),
    Section(
        "Remote functions",
        "klieg.remote_function.RemoteFunction",
        (*same("remote options __call__"), *cluster("bind")),
    ),
    Section(
        "Actor classes",
        "klieg.actor.ActorClass",
        (
            *same("remote options __call__"),
            *cluster("bind"),
            *absent("_remote __ray_metadata__", PRIVATE),
        ),
    ),
    Section(
        "Actor handles",
        "klieg.actor.ActorHandle",
        (
            *same("__getattr__ __eq__ __hash__ __reduce__ __dir__ __repr__ __class_getitem__"),
            *same("_actor_id _ray_actor_id"),
        ),
    ),
    Section(
        "Methods that every actor has",
        "klieg.actor.SPECIAL_METHODS",
        (
            *same("__ray_ready__ __ray_terminate__"),
            *better("__ray_call__", "an async function is awaited"),
        ),
    ),
    Section(
        "Actor methods",
        "klieg.actor.ActorMethod",
        (*same("remote options __call__ __reduce__"), *cluster("bind")),
    ),
    Section(
        "The module `actor`",
        "klieg.actor",
        (*same("ActorClass ActorHandle ActorMethod exit_actor ActorClassInheritanceException"),),
    ),
    Section(
        "Options of `@remote`, `.options()` and `@method`",
        "options",
        (
            *same("num_cpus num_gpus resources memory"),
            *better("num_returns", 'on async generators of tasks: refused at once; "streaming" items may be closed'),
            *same("name max_retries retry_exceptions"),
            *better("max_calls", "a worker that is given back early ends, too"),
            *same("accelerator_type", "declare it: `init(resources={'accelerator_type:A100': 1})`"),
            *better("runtime_env", "env_vars, working_dir and py_modules as paths; inline refuses it"),
            *better("scheduling_strategy", "placement groups count; affinities and labels are accepted"),
            *accepted("label_selector fallback_strategy _labels"),
            *same("placement_group placement_group_bundle_index placement_group_capture_child_tasks"),
            *accepted("object_store_memory enable_task_events _num_objects_per_yield"),
            *same("_generator_backpressure_num_objects"),
            *better("max_concurrency", "0 is refused; a task may have it, too; a live actor can be resized"),
            *better("concurrency_groups", "share one loop; an unknown name or a size below 1 is refused at once"),
            *same("concurrency_group max_restarts max_task_retries namespace get_if_exists"),
            *better("max_pending_calls", '`on_full="raise"`, "block" or "await" says what happens at the limit'),
            *same("lifetime", "a detached actor lives as long as the runtime, which ends with the driver"),
            *accepted("allow_out_of_order_execution _actor_generator_backpressure_num_objects"),
            *accepted("enable_tensor_transport tensor_transport"),
        ),
    ),
    Section(
        "`exceptions`",
        "klieg.exceptions",
        (
            *same("RayError GetTimeoutError WorkerCrashedError PendingCallsLimitExceeded AsyncioActorExit"),
            *better("RayTaskError", "keeps errno, notes, the chain of causes; `__cause__` is the original"),
            *same("RayActorError ActorDiedError ActorUnavailableError"),
            *same("ActorAlreadyExistsError ActorHandleNotFoundError"),
            *better("TaskCancelledError", "the one class for every kind of call"),
            *same("RaySystemError UnserializableException ObjectLostError OwnerDiedError ObjectStoreFullError"),
            *same("OutOfMemoryError RuntimeEnvSetupError TaskUnschedulableError ActorUnschedulableError"),
            *same("UserCodeException ObjectRefStreamEndOfStreamError"),
            *same("TaskPlacementGroupRemoved ActorPlacementGroupRemoved"),
            *accepted("NodeDiedError LocalRayletDiedError ObjectFetchTimedOutError ObjectFreedError", "never raised"),
            *accepted("ObjectReconstructionFailedError ReferenceCountingAssertionError OutOfDiskError", "never raised"),
            *accepted("PlasmaObjectNotAvailable RpcError AuthenticationError CrossLanguageError", "never raised"),
            *accepted("StreamingGeneratorReplayInconsistentError", "never raised"),
            *accepted("OufOfBandObjectRefSerializationException RayChannelError", "never raised"),
            *accepted("RayChannelTimeoutError RayCgraphCapacityExceeded RayDirectTransportError", "never raised"),
        ),
    ),
    Section(
        "`util`",
        "klieg.util",
        (
            *same("list_named_actors"),
            *better("ActorPool", "coroutines can iterate it; an actor's next call waits for its result; docs/util.md"),
            *better("queue", "plain Empty and Full; those who wait never block the other end; docs/util.md"),
            *better("as_completed map_unordered", "also `async for`; nothing is held back for a chunk; docs/util.md"),
            *better(
                "multiprocessing", "the standard Pool's contract; a dead worker fails its work; results can be awaited"
            ),
            *better("joblib", '`register_klieg()`, and `register_ray()` for the name "ray"'),
            *same("register_serializer deregister_serializer inspect_serializability"),
            *better("state", "needs no server; tasks that have ended are not kept"),
            *same("log_once disable_log_once_globally enable_periodic_logging"),
            *better("metrics", "`export()` gives Prometheus's text, from all processes; no server runs"),
            *same("scheduling_strategies", "affinities and labels are accepted and change nothing"),
            *better("placement_group", "on one machine; one that can never be placed says so"),
            *same("PlacementGroup remove_placement_group get_placement_group placement_group_table"),
            *same("get_current_placement_group"),
            *better("get_node_ip_address", "always 127.0.0.1"),
            *same("get_node_instance_id"),
            *later("pdb rpdb ray_debugpy"),
            *absent("tracing accelerators", "constants of hardware and hooks that klieg does not have"),
            *cluster("collective spark client tpu connect disconnect"),
            *absent("iter actor_group dask horovod lightgbm xgboost sgd", "legacy, or another library"),
            *absent("check_open_ports timer serialization_addons", PRIVATE),
        ),
    ),
    Section(
        "`get_runtime_context()`",
        "klieg.runtime_context.RuntimeContext",
        (
            *same("get_actor_id get_task_id get_job_id get_node_id get_worker_id current_actor namespace"),
            *same("was_current_actor_reconstructed get_actor_name get_task_name get_task_function_name"),
            *same("is_canceled"),
            *better("get_assigned_resources", "{} in the driver, where Ray raises"),
            *same("get_accelerator_ids get_placement_group_id"),
            *same("get_runtime_env_string runtime_env"),
            *same("get_node_labels get_session_name"),
            *better("get_temp_dir", "the system's folder for temporary files; klieg keeps none there"),
            *better("gcs_address", '"local": there is no server'),
            *same("should_capture_child_tasks_in_placement_group get_resource_ids current_placement_group_id"),
            *same("get job_id node_id"),
            *better("task_id actor_id", "None in the driver, where Ray raises"),
        ),
    ),
    Section(
        "Environment variables (each also as `KLIEG_…`)",
        "environment",
        (
            *later("RAY_ADDRESS"),
            *same("RAY_NAMESPACE RAY_TASK_MAX_RETRIES RAY_LOG_TO_DRIVER RAY_IGNORE_UNHANDLED_ERRORS"),
            *same("RAY_ENABLE_AUTO_CONNECT RAY_USE_MULTIPROCESSING_CPU_COUNT"),
            *better("RAY_WARN_BLOCKING_GET_INSIDE_ASYNC", "silences the warning of `blocking_get='warn'` only"),
            *later("RAY_DEDUP_LOGS RAY_DEDUP_LOGS_AGG_WINDOW_S RAY_DEDUP_LOGS_ALLOW_REGEX RAY_DEDUP_LOGS_SKIP_REGEX"),
            *later("RAY_COLOR_PREFIX RAY_DISABLE_WORKER_LOG_PREFIX RAY_LOGGER_LEVEL"),
            *same("RAY_LOGGING_CONFIG_ENCODING"),
            *accepted("RAY_USE_UVLOOP", "actors run on klieg's own loop, which looks at the sockets itself"),
            *same("OMP_NUM_THREADS"),
            *same("RAY_TMPDIR"),
            *same("RAY_PROFILING"),
            *later("RAY_DEBUG RAY_DEBUG_POST_MORTEM"),
            *accepted("RAY_RUNTIME_ENV* RAY_JOB_* RAY_AUTH_* RAY_USE_TLS RAY_TLS_* RAY_OVERRIDE_*", "for clusters"),
            *accepted("RAY_memory_monitor_* RAY_object_spilling_* RAY_gcs_* RAY_DASHBOARD_*", "for clusters"),
            *accepted("RAY_REDIS_* RAY_CLIENT_* RAY_ON_SPARK_* RAY_ACCEL_* NOSET_*", "for clusters"),
        ),
    ),
    Section(
        "Commands (`ray …`, here `klieg …`)",
        "command",
        (
            *better("status list get summary logs timeline stack memory kill-actor", "no server is needed"),
            *same("microbenchmark"),
            *cluster("start stop up down attach exec submit rsync-up rsync-down job dashboard monitor metrics"),
            *cluster("get-head-ip get-worker-ips symmetric-run check-open-ports cluster-dump debug get-auth-token"),
            *absent("cpp enable-usage-stats disable-usage-stats", "klieg runs Python only, and reports nothing"),
        ),
    ),
)


def find(home: str, name: str) -> Row | None:
    """The row of a name; None if Ray has no such name there, or not one that anybody should know."""
    return next((row for section in SECTIONS if section.home == home for row in section.rows if row.name == name), None)


def page() -> str:
    """The table as Markdown."""
    parts = [_HEAD, *(f"- **{state.value}**: {text}." for state, text in MEANING.items() if _used(state))]
    for section in SECTIONS:
        parts += ["", f"## {section.title}", "", "| Ray | klieg | |", "|---|---|---|"]
        parts += [f"| `{row.name}` | {row.state.value} | {_note(row)} |" for row in section.rows]
    return "\n".join(parts) + "\n"


def _note(row: Row) -> str:
    return row.note or VARIABLES.get(row.name.removeprefix("RAY_"), "")


def _used(state: State) -> bool:
    return any(row.state is state for section in SECTIONS for row in section.rows)


_HEAD: Final = """<!-- Written by `python -m klieg.names`; edit src/klieg/names.py instead. -->
# Ray's names

`import klieg as ray` runs a program written for Ray's core interface on one machine. This page lists every name of that
interface, as of Ray 2.60, and what klieg makes of it. It is generated from the code, and a test holds it true.
"""

if __name__ == "__main__":
    print(page(), end="")  # noqa: T201  # this is what it is for
