"""ONNX graph -> engine of TensorRT or TensorRT-RTX, by one path.

Both have the same Python API; what differs is in their `Library`. This also runs on the
workstation: it needs NumPy and the library, no torch and no onnx. Building for TensorRT needs the
GPU; for TensorRT-RTX it does not, and the engine serves every RTX card from SM 8.0 on.

The graph alone decides on types: the network is strongly typed and no precision flag is set. TF32
is switched off, which would give FP32 layers 10 bits of mantissa.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sshr_deploy.atomic import atomic_path, check_writable, output_errors
from sshr_deploy.errors import ExportError, UsageError
from sshr_deploy.precision import Precision
from sshr_deploy.runtime.engines.building.callbacks import Progress, build_monitor
from sshr_deploy.runtime.engines.building.inspection import (
    check_network,
    count_types,
    inspect_engine,
)
from sshr_deploy.runtime.machine.clock import Stopwatch
from sshr_deploy.runtime.sessions.tensorrt.library import (
    Library,
    error_logger,
    import_tensorrt,
    library_text,
)

CacheState = Literal["none", "new", "reused", "replaced"]


@dataclass(frozen=True)
class BuildOptions:
    """How an engine is built."""

    batches: tuple[int, ...] = (1, 8)
    """Batch sizes in patches that get a profile of their own, in this order. One more profile, the
    last, takes every size from 1 to the largest."""
    workspace_mib: int | None = None
    """Most scratch memory of a layer on the GPU; None for all there is."""
    version_compatible: bool = False
    """Load with later releases of the same major version. TensorRT only."""
    hardware_compatible: bool = False
    """Run on every GPU from SM 8.0 on, slower; engines of TensorRT-RTX do so anyway."""
    timing_cache: Path | None = None
    """Measured times, kept to build the next engine faster. TensorRT-RTX has none."""


@dataclass(frozen=True)
class BuildReport:
    """An engine that was built."""

    library: str
    """Library and version, "tensorrt-rtx 1.7.1.116"."""
    seconds: float
    engine_bytes: int
    layers: dict[str, int]
    """Convolutions by precision, as the graph has them."""
    inspected: bool
    """The built layers were read and have these precisions; if not, `notes` says why."""
    timing_cache: CacheState
    notes: tuple[str, ...]


def build_engine(
    onnx_path: Path,
    engine_path: Path,
    *,
    library: Library,
    precision: Precision,
    options: BuildOptions,
    on_progress: Progress,
    wider: frozenset[str] = frozenset(),
) -> BuildReport:
    """Build `engine_path` from a typed graph with dynamic batch; weights may lie beside the graph.

    Ctrl-C cancels at the library's next step; nothing is written then.

    Args:
        onnx_path: the graph.
        engine_path: written whole or not at all.
        library: that builds.
        precision: what every convolution of the graph must be.
        options: see there.
        on_progress: gets what is being done and the share done so far, 0 to 1.
        wider: ONNX nodes of convolutions that may have more bits than `precision`.

    Raises:
        UsageError: an option that is wrong, or that the library does not have.
        MissingExtraError: the library is not installed.
        SessionError: the library does not start.
        ExportError: the graph is not supported, its convolutions or those of the built engine have
            another type (all listed), or the build failed.
        OutputError: the engine or the timing cache cannot be written.
    """
    watch = Stopwatch()
    _check_options(options, library)
    check_writable(engine_path)
    trt = import_tensorrt(library)
    log = error_logger(trt)
    builder = _builder(trt, log, library)
    network, parser = _parse(trt, log, builder, onnx_path)
    types = check_network(trt, network, precision, wider)
    config = _config(trt, builder, options, library)
    _add_profiles(builder, network, config, options.batches)
    cache = _TimingCache(config, options.timing_cache if library.timing_cache else None)
    plan = _build(trt, builder, network, config, on_progress)
    del parser  # until here, the weights of the network are its own
    if plan is None:
        raise ExportError(
            f"{library.package} cannot build {onnx_path}: {log.last_errors(3)}; "
            "use another engine or precision"
        )
    not_inspected = inspect_engine(trt, log, plan, types)
    with atomic_path(engine_path) as partial:
        partial.write_bytes(plan)
    cache.save()
    return BuildReport(
        library=library_text(library, trt),
        seconds=watch.seconds(),
        engine_bytes=plan.nbytes,
        layers=count_types(types),
        inspected=not not_inspected,
        timing_cache=cache.state,
        notes=_notes(
            cache, not_inspected, library.int8_note if precision is Precision.INT8 else ""
        ),
    )


def _notes(cache: _TimingCache, not_inspected: str, int8_note: str) -> tuple[str, ...]:
    inspection = f"the built engine was not inspected: {not_inspected}" if not_inspected else ""
    return tuple(note for note in (cache.note, inspection, int8_note) if note)


class _TimingCache:
    """The timing cache of a build; one that does not fit library and GPU is replaced."""

    state: CacheState
    note = ""

    def __init__(self, config: Any, path: Path | None) -> None:
        self._config, self._path = config, path
        if path is None:
            self.state = "none"
            return
        check_writable(path)
        with output_errors(path):
            content = path.read_bytes() if path.exists() else b""
        empty = config.create_timing_cache(b"")
        cache = config.create_timing_cache(content) if content else None
        # An unreadable one is no error: what comes back is None or as good as empty.
        is_usable = cache is not None and bytes(cache.serialize()) != bytes(empty.serialize())
        if is_usable and config.set_timing_cache(cache, False):
            self.state = "reused"
            return
        config.set_timing_cache(empty, False)
        self.state = "replaced" if content else "new"
        if content:
            self.note = f"{path} was no timing cache of this library and GPU; it was replaced"

    def save(self) -> None:
        if self._path is not None:
            with atomic_path(self._path) as partial:
                partial.write_bytes(self._config.get_timing_cache().serialize())


def _check_options(options: BuildOptions, library: Library) -> None:
    if not options.batches or min(options.batches) < 1:
        raise UsageError(f"batch sizes {options.batches}: give at least one, each at least 1")
    if options.workspace_mib is not None and options.workspace_mib < 1:
        raise UsageError(f"workspace of {options.workspace_mib} MiB: give at least 1, or none")
    if options.version_compatible and not library.version_compatible:
        raise UsageError(
            "engines of TensorRT-RTX run with the release that built them alone; "
            "leave version compatibility off and build again after an update"
        )


def _builder(trt: Any, log: Any, library: Library) -> Any:
    try:
        return trt.Builder(log)
    except (TypeError, RuntimeError) as error:  # where the library returns no builder
        raise ExportError(
            f"{library.package} cannot build here: {log.last_errors(3)}; run sshr-deploy doctor"
        ) from error


def _parse(trt: Any, log: Any, builder: Any, path: Path) -> tuple[Any, Any]:
    """Network and parser; the parser must live until the engine is built."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ExportError(f"{path} cannot be read: {error.strerror}; export it again") from error

    def new() -> tuple[Any, Any]:
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        return network, trt.OnnxParser(network, log)

    _, trial = new()  # a parser takes one model
    if not trial.supports_model_v2(content, str(path)):
        raise _parser_error(path, trial)
    network, parser = new()
    if not parser.parse_from_file(str(path)):
        raise _parser_error(path, parser)
    if any("UINT8" in line and "INT8 instead" in line for line in log.warnings):
        raise ExportError(
            f"{path} quantises to UINT8, which the library would read as INT8 and so cut half the "
            "range off; quantise to INT8 with zero point 0"
        )
    return network, parser


def _parser_error(path: Path, parser: Any) -> ExportError:
    problems = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        # Second lines say why; those of a missing driver follow and mean nothing here.
        text = ": ".join(error.desc().strip().splitlines()[:2])
        node = f"{error.node_name()} ({error.node_operator()}): " if error.node_operator() else ""
        problems.append(f"{node}{text}")
    reasons = "; ".join(problems) or "no reason given"
    return ExportError(f"{path} is not supported: {reasons}; export it again or use `engine` onnx")


def _config(trt: Any, builder: Any, options: BuildOptions, library: Library) -> Any:
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # else layers tell no types
    config.clear_flag(trt.BuilderFlag.TF32)
    if options.workspace_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib << 20)
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if library.user_allocation:
        rtx = trt
        config.set_flag(rtx.BuilderFlag.REQUIRE_USER_ALLOCATION)
    if options.hardware_compatible and library.hardware_level:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    return config


def _add_profiles(builder: Any, network: Any, config: Any, batches: tuple[int, ...]) -> None:
    tensor = network.get_input(0)
    if network.num_inputs != 1 or tensor.shape[0] != -1:
        raise ExportError(
            f"the graph has {network.num_inputs} inputs, the first of shape {tuple(tensor.shape)}; "
            "it must have one with dynamic batch: export it again"
        )
    largest = max(batches)
    ranges = [(batch, batch, batch) for batch in batches]
    for sizes in (*ranges, (1, max(largest // 2, 1), largest)):
        profile = builder.create_optimization_profile()
        profile.set_shape(tensor.name, *((size, *tensor.shape[1:]) for size in sizes))
        config.add_optimization_profile(profile)


def _build(trt: Any, builder: Any, network: Any, config: Any, on_progress: Progress) -> Any:
    """The serialised engine, or None if it could not be built."""
    monitor = build_monitor(trt, on_progress)
    config.progress_monitor = monitor
    plan = builder.build_serialized_network(network, config)
    if monitor.error is not None:
        raise monitor.error
    if plan is not None:
        on_progress("Engine built", 1.0)
    return plan
