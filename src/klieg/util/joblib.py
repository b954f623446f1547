"""A backend for joblib, and so for scikit-learn: `register_klieg()`, then `joblib.parallel_config("klieg")`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from joblib.parallel import (
    AutoBatchingMixin,
    FallbackToBackend,
    ParallelBackendBase,
    SequentialBackend,
    register_parallel_backend,
)

from klieg import session
from klieg.util.multiprocessing import AsyncResult, Pool


def register_klieg() -> None:
    """Let joblib know the backend "klieg": batches of calls run in a `klieg.util.multiprocessing.Pool`."""
    register_parallel_backend("klieg", KliegBackend)


def register_ray() -> None:
    """The same under the name "ray", for programs that were written for Ray's."""
    register_parallel_backend("ray", KliegBackend)


class KliegBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]  # joblib has no types
    """One pool for each `joblib.Parallel`, with as many workers as it has jobs."""

    supports_retrieve_callback = True
    supports_sharedmem = False
    uses_threads = False

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """The number of workers; -1 means all CPUs of klieg's runtime, -2 all but one, and so on."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None:
            return 1
        if n_jobs > 0:
            return n_jobs
        cpus = int(session.running_engine().resources()[0].get("CPU", 1))
        return max(1, cpus + 1 + n_jobs)

    def configure(
        self, n_jobs: int = 1, parallel: Any = None, prefer: Any = None, require: Any = None, **ignored: Any
    ) -> int:
        workers = self.effective_n_jobs(n_jobs)
        if workers == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        self.parallel = parallel
        self._pool = Pool(workers)
        return workers

    def submit(self, func: Callable[[], Any], callback: Callable[[Any], object] | None = None) -> AsyncResult:
        """Start a batch. `callback` gets what `retrieve_result_callback` opens."""
        if callback is None:
            return self._pool.apply_async(func)
        return self._pool.apply_async(
            func,
            callback=lambda value: callback((value, None)),
            error_callback=lambda error: callback((None, error)),
        )

    def retrieve_result_callback(self, out: tuple[Any, BaseException | None]) -> Any:
        value, error = out
        if error is not None:
            raise error
        return value

    def terminate(self) -> None:
        self._pool.terminate()
        self._pool.join()
        self.reset_batch_stats()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        self.terminate()
        if ensure_ready:
            self.configure(n_jobs=self.parallel.n_jobs, parallel=self.parallel)
