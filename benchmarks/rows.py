"""What is measured, in the order of the table, and what klieg must reach in each row."""

from fractions import Fraction
from typing import NamedTuple


class Row(NamedTuple):
    key: str
    """The name of the row's function in `workloads` and, where `bare` is given, in `bare`."""
    title: str
    unit: str
    """"/s" and "GiB/s" are rates, where more is better; of "s" and "MiB", less is."""
    target: Fraction
    """How many times better than Ray klieg must at least be."""
    bare_target: Fraction | None = None
    """The share of the bare loop's rate that klieg must at least reach."""
    bare: bool = False
    """Whether the bare loop has this row."""

    @property
    def less_is_better(self) -> bool:
        return self.unit in {"s", "MiB"}


def _row(key: str, title: str, unit: str, target: int, share: str = "", *, bare: bool = False) -> Row:
    return Row(key, title, unit, Fraction(target), Fraction(share) if share else None, bare or bool(share))


INIT = "init"
SHUTDOWN = "shutdown"

ROWS: tuple[Row, ...] = (
    _row(INIT, "init()", "s", 25),
    _row("memory_of_ten", "private memory, 10 idle actors", "MiB", 15),
    _row("create_call_kill", "create an actor, call it, kill it", "/s", 60),
    _row("plain_one", "plain actor, one at a time", "/s", 40, "1/3"),
    _row("plain_1000", "plain actor, 1,000 in flight", "/s", 20, "1/4"),
    _row("threaded_1000", "threaded(16) actor, 1,000 in flight", "/s", 10),
    _row("async_one", "async actor, one at a time", "/s", 30, bare=True),
    _row("async_1000", "async actor, 1,000 in flight", "/s", 40, "1/3"),
    _row("await_one", "async driver, await one at a time", "/s", 25),
    _row("gather_1000", "async driver, gather 1,000", "/s", 40),
    _row("fan_out", "async actor awaits two others", "/s", 25),
    _row("sleep_1000", "1,000 calls sleep 50 ms, time over it", "s", 20),
    _row("stream", "items of an async generator", "/s", 15),
    _row("task_one", "tasks, one at a time", "/s", 30),
    _row("task_1000", "tasks, 1,000 in flight", "/s", 20),
    _row("wait_500", "wait over 500 refs, one by one", "/s", 20),
    _row("put_small", "put of a small value", "/s", 100),
    _row("get_small", "get of a small value", "/s", 50),
    _row("put_100mib", "put of a 100 MiB array", "GiB/s", 5, "3/5"),
    _row("get_100mib", "get of a 100 MiB array", "/s", 5),
    _row("call_1mib", "call with a 1 MiB array", "/s", 10),
    _row("fan_out_10mib", "1,000 tasks that read one 10 MiB array", "/s", 5),
    _row(SHUTDOWN, "shutdown()", "s", 20),
)


def rows_named(keys: str | None) -> tuple[Row, ...]:
    """The rows whose keys are listed, separated by commas; all of them for None."""
    if keys is None:
        return ROWS
    wanted = set(keys.split(","))
    unknown = wanted - {row.key for row in ROWS}
    if unknown:
        known = ", ".join(row.key for row in ROWS)
        raise ValueError(f"no row is named {', '.join(sorted(unknown))}; there are: {known}")
    return tuple(row for row in ROWS if row.key in wanted)
