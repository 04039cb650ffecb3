"""An engine file of TensorRT or TensorRT-RTX, loaded and checked to be one of SSHR."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sshr_deploy.closing import Closing
from sshr_deploy.errors import SessionError, first_line
from sshr_deploy.geometry import PATCH, Geometry
from sshr_deploy.runtime.contract import INPUT_NAME, OUTPUT_NAMES
from sshr_deploy.runtime.sessions.base import output_shape
from sshr_deploy.runtime.sessions.tensorrt.library import (
    Library,
    context_config,
    error_logger,
    import_tensorrt,
    library_text,
)
from sshr_deploy.runtime.sessions.tensorrt.rtx_cache import RtxCache

_Tensors = dict[str, tuple[Any, Any, tuple[int, ...]]]
"""Direction, dtype and shape by name."""


class TensorRtEngine(Closing):
    """A deserialised engine; see `TensorRtSession` for the arguments.

    Every failure of the library is a `SessionError` with the last line that it logged as an error.
    """

    uses_graphs = True
    """Whether its calls may be captured and replayed."""
    why_no_graph = ""
    """Set once its work could not be captured; there are no CUDA graphs then."""

    def __init__(
        self,
        path: Path,
        classes: int,
        name: str,
        made_by: Library,
        batches: tuple[int, ...],
        host_code: bool,
        cache: RtxCache | None = None,
        geometry: Geometry = PATCH,
    ) -> None:
        self._geometry = geometry
        trt = import_tensorrt(made_by)
        self.library = library_text(made_by, trt)
        self._trt = trt
        self._logger = error_logger(trt)
        self._path = path
        self._fix = f"build it again with `sshr-deploy export --engine {name}`"
        try:
            plan = path.read_bytes()
        except OSError as error:
            raise SessionError(f"{path} cannot be read: {error.strerror}; {self._fix}") from error
        what = f"load {path}"
        runtime = self._call(what, trt.Runtime, self._logger)
        runtime.engine_host_code_allowed = host_code
        engine = self._call(what, runtime.deserialize_cuda_engine, plan, fix=self._fix)
        self._engine: Any = engine
        self._runtime: Any = runtime
        self._check_tensors(engine, classes)
        self._check_profiles(engine, batches)
        self.memory_bytes = max(1, int(engine.device_memory_size_v2))
        """Bytes that an execution context needs for its work."""
        self._config: Any = context_config(made_by, trt, engine)
        self._cache = cache
        if cache is not None:
            cache.attach(self._config)

    def _check_tensors(self, engine: Any, classes: int) -> None:
        trt = self._trt
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        found = {
            name: (
                engine.get_tensor_mode(name),
                engine.get_tensor_dtype(name),
                tuple(engine.get_tensor_shape(name)),
            )
            for name in names
        }
        wanted: _Tensors = {
            INPUT_NAME: (
                trt.TensorIOMode.INPUT,
                trt.DataType.UINT8,
                (-1, *self._geometry.input_shape()),
            )
        }
        for name in OUTPUT_NAMES:
            shape = (-1, *output_shape(name, classes, self._geometry))
            wanted[name] = (trt.TensorIOMode.OUTPUT, trt.DataType.FLOAT, shape)
        if found != wanted:
            raise SessionError(
                f"{self._path} is an engine with {_tensors_text(found)}; "
                f"one of SSHR for {classes} classes has {_tensors_text(wanted)}; {self._fix}"
            )

    def _check_profiles(self, engine: Any, batches: tuple[int, ...]) -> None:
        found = [
            tuple(shape[0] for shape in engine.get_tensor_profile_shape(INPUT_NAME, profile))
            for profile in range(engine.num_optimization_profiles)
        ]
        tail = found[-1] if found else ()
        static = [(batch, batch, batch) for batch in batches]
        if found[:-1] != static or (tail[0], tail[-1]) != (1, max(batches)):
            raise SessionError(
                f"{self._path} has profiles for batches (least, best, most) {found}; the bundle "
                f"says {static} and one from 1 to {max(batches)}; {self._fix}"
            )

    def context(self, profile: int, memory: tuple[int, int], stream: int) -> Any:
        """A new execution context that has `profile`; enqueue it on the same stream.

        Args:
            profile: its index.
            memory: pointer and size, at least `memory_bytes`; no two contexts that run at the same
                time may share it.
            stream: a CUstream.
        """
        if self._engine is None:
            raise SessionError("the engine is closed; open it again")
        what = f"prepare optimisation profile {profile}"
        context = self._call(what, self._engine.create_execution_context, self._config)
        context.set_device_memory(*memory)
        self._call(what, context.set_optimization_profile_async, profile, stream)
        return context

    def bind(self, context: Any, batch: int, pointers: dict[str, int]) -> None:
        """Tell a context its batch size, which its profile has to hold, and its tensors' places."""
        what = f"take a batch of {batch}"
        self._call(
            what, context.set_input_shape, INPUT_NAME, (batch, *self._geometry.input_shape())
        )
        for name, pointer in pointers.items():
            self._call(what, context.set_tensor_address, name, pointer)

    def enqueue(self, context: Any, stream: int) -> None:
        """Ask a stream for the work of a context."""
        self._call("run the engine", context.execute_async_v3, stream)

    def save_cache(self) -> None:
        """Keep what the library compiled since it was loaded."""
        if self._cache is not None:
            self._cache.save()

    def close(self) -> None:
        """Free the engine, after its contexts; safe to call twice."""
        if self._cache is not None:
            self._cache.detach()
        self._config = None
        self._engine = None
        self._runtime = None

    def _call(self, what: str, function: Callable[..., Any], *arguments: Any, fix: str = "") -> Any:
        """The result of a function that says False or None, and logs why, where it fails."""
        self._logger.last_errors()  # an older one would explain nothing
        try:
            result = function(*arguments)
        except Exception as error:  # the bindings raise several kinds
            raise SessionError(f"{self.library} cannot {what}: {first_line(error)}") from error
        if result is None or result is False:
            reason = self._logger.last_errors()
            ending = f"; {fix}" if fix else ""
            raise SessionError(f"{self.library} cannot {what}: {reason}{ending}")
        return result


def _tensors_text(tensors: _Tensors) -> str:
    return ", ".join(
        f"{mode.name.lower()} {name} {dtype.name} {list(shape)}"
        for name, (mode, dtype, shape) in tensors.items()
    )
