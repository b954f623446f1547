"""What this machine has to give: CPUs, memory, GPUs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from klieg import environment

CONTROL_GROUPS: Final = Path("/sys/fs/cgroup")
"""Where Linux shows control groups."""

DRIVER_OF_GPUS: Final = "/proc/driver/nvidia/gpus"
"""Where the driver of NVIDIA's GPUs lists them; Linux, no library needed."""


def resources() -> dict[str, float]:
    """What a runtime has in all if `init` does not say otherwise: resource name to amount, memory in bytes."""
    found = {"CPU": float(_cpus()), "memory": float(memory())}
    gpus = _visible_gpus()
    count = _count_gpus() if gpus is None else len(gpus)
    return {**found, "GPU": float(count)} if count else found


def gpu_names(count: float) -> list[str]:
    """The names of so many GPUs, as CUDA_VISIBLE_DEVICES has them.

    Raises ValueError if that variable names fewer.
    """
    visible = _visible_gpus()
    if visible is None:
        return [str(number) for number in range(int(count))]
    if count > len(visible):
        raise ValueError(
            f"num_gpus={count:g}, but CUDA_VISIBLE_DEVICES lets this process see only {len(visible)} GPUs."
        )
    return visible[: int(count)]


def _cpus() -> int:
    may_use = hasattr(os, "sched_getaffinity") and not environment.flag("USE_MULTIPROCESSING_CPU_COUNT", False)
    return len(os.sched_getaffinity(0)) if may_use else os.cpu_count() or 1


def memory() -> int:
    """Bytes of memory of this machine, or those its control group allows this process if they are fewer; 0: unknown."""
    try:
        machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):  # not every system tells
        return 0
    return min([machine, *_limits_of_control_groups()])


def _limits_of_control_groups() -> Iterator[int]:
    """Of this process's group and all above it, in version 1 and in version 2 of control groups."""
    try:
        groups = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:  # not Linux
        return
    for _, controllers, group in (line.split(":", 2) for line in groups):
        if not controllers:
            yield from _limits_up_from(CONTROL_GROUPS, group, "memory.max")
            yield from _limits_up_from(CONTROL_GROUPS / "unified", group, "memory.max")
        elif "memory" in controllers.split(","):
            yield from _limits_up_from(CONTROL_GROUPS / "memory", group, "memory.limit_in_bytes")


def _limits_up_from(mount: Path, group: str, name: str) -> Iterator[int]:
    here = mount / group.lstrip("/")
    for directory in (here, *here.parents):
        with contextlib.suppress(OSError, ValueError):  # there is no such file in a container, or it says "max"
            yield int((directory / name).read_text())
        if directory == mount:
            return


def _visible_gpus() -> list[str] | None:
    """What CUDA_VISIBLE_DEVICES names; None if it is not set."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return None if named is None else [name.strip() for name in named.split(",") if name.strip() not in ("", "-1")]


def _count_gpus() -> int:
    try:
        return len(os.listdir(DRIVER_OF_GPUS))
    except OSError:
        return 0
