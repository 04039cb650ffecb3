"""A stand-in for the runtime half of `tensorrt` and `tensorrt_rtx`, on a `FakeGpu`.

Its engines compute `network` of what is in the GPU's memory, once the stream comes to it. It
refuses what the real one refuses, as its documentation says: tensors without an address, shapes
outside the profile, memory that is too small or used by two contexts at once, and capture of a
context that has not run since its shape was set.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from enum import Enum
from types import ModuleType, SimpleNamespace
from typing import Any
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.runtime.contract import CAM_NAMES, OUTPUT_NAMES, PATCH_PX, CamBatch
from tests.runtime.fake_gpu import FakeGpu, fake_module

MEMORY_BYTES = 4096
"""What an execution context needs."""

Severity = Enum("Severity", ["INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"])
TensorIOMode = Enum("TensorIOMode", ["NONE", "INPUT", "OUTPUT"])
DataType = Enum("DataType", ["FLOAT", "HALF", "UINT8"])
Allocation = Enum("Allocation", ["STATIC", "USER_MANAGED"])
Specialization = Enum("Specialization", ["LAZY", "EAGER"])


def network(patches: NDArray[np.uint8], classes: int) -> CamBatch:
    """A function of each patch alone that gives the same bits in every batch."""
    size = len(patches), PATCH_PX // 8, 8, PATCH_PX // 8, 8, 3
    means = patches.reshape(size).sum((2, 4), dtype=np.uint32).astype(np.float32) / np.float32(
        16320
    )
    cams = []
    for level in range(3):
        factors = np.cos(np.arange(1, 3 * classes + 1) * (level + 1)).reshape(classes, 3)
        mixed = [
            sum(means[..., c] * np.float32(factors[n, c]) for c in range(3)) for n in range(classes)
        ]
        cams.append(np.maximum(np.stack(mixed, 1), np.float32(0)).astype(np.float32))
    prob = np.stack([cams[2][:, n].max((1, 2)) for n in range(classes)], 1)
    return CamBatch(cams[0], cams[1], cams[2], np.minimum(prob, np.float32(1)))


def make_plan(classes: int, batches: tuple[int, ...], **changes: Any) -> bytes:
    """What the fake takes for an engine: static profiles and a tail."""
    largest = max(batches)
    content = {
        "classes": classes,
        "profiles": [[b, b, b] for b in batches] + [[1, max(1, largest // 2), largest]],
        "cam dtype": "FLOAT",
        "input": "patches",
        "has host code": False,
    }
    return json.dumps({**content, **changes}).encode()


class FakeTensorRt:
    """What the module shares with a test."""

    def __init__(self, gpu: FakeGpu) -> None:
        self.gpu = gpu
        self.refusing: set[str] = set()
        """Methods that log "NAME is refused" as an error and fail."""
        self.is_silent = False
        """Whether what is refused is so without a word, and what works logs an error."""
        self.is_capturable = True
        """Whether `execute_async_v3` works while its stream captures."""
        self.host_code_allowed: bool | None = None
        """What was said of the code in the latest engine."""
        self.change: Callable[[CamBatch], CamBatch] = lambda cams: cams
        """Applied to what engines compute."""
        self.contexts: list[SimpleNamespace] = []
        """Profile, memory and configuration of each that was ever made."""
        self.living: WeakSet[FakeContext] = WeakSet()
        self.enqueued: list[tuple[int, int]] = []
        """Profile and batch size of each enqueue."""
        self.compiled: list[int] = []
        """Profiles that were compiled, as no cache had them."""
        self.driver = "580"
        """What caches are good for."""
        self.busy: dict[int, int] = {}
        """Stream that uses a context's memory, by address."""


def fake_tensorrt(shared: FakeTensorRt, *, is_rtx: bool) -> ModuleType:
    """The module; "tensorrt_rtx" has what that alone has."""

    class ILogger:
        def __init__(self) -> None:
            self.is_made = True

        def log(self, severity: Severity, text: str) -> None:
            raise NotImplementedError

    ILogger.Severity = Severity  # type: ignore[attr-defined]

    class RuntimeConfig:
        __slots__ = ("allocation", "dynamic_shapes_kernel_specialization_strategy")

        def __init__(self) -> None:
            self.allocation = Allocation.STATIC

        def set_execution_context_allocation_strategy(self, strategy: Allocation) -> None:
            self.allocation = strategy

    class RtxRuntimeConfig(RuntimeConfig):
        __slots__ = ("cache",)

        def create_runtime_cache(self) -> FakeRuntimeCache | None:
            return None if "create_runtime_cache" in shared.refusing else FakeRuntimeCache(shared)

        def set_runtime_cache(self, cache: FakeRuntimeCache | None = None) -> bool:
            if "set_runtime_cache" in shared.refusing:
                return False
            self.cache = cache
            return True

    class Runtime:
        def __init__(self, logger: ILogger) -> None:
            assert logger.is_made, "ILogger.__init__ was not called"
            self.logger = logger
            self.engine_host_code_allowed = False

        def deserialize_cuda_engine(self, serialized_engine: bytes) -> FakeEngine | None:
            try:
                content = json.loads(serialized_engine)
            except ValueError:
                self.logger.log(Severity.WARNING, "a warning that is no reason")
                self.logger.log(Severity.ERROR, "the magic tag does not match\nand more")
                self.logger.log(Severity.INFO, "afterwards")
                return None
            shared.host_code_allowed = self.engine_host_code_allowed
            if content["has host code"] and not self.engine_host_code_allowed:
                self.logger.log(Severity.ERROR, "host code is not allowed")
                return None
            config = RtxRuntimeConfig if is_rtx else RuntimeConfig
            return FakeEngine(shared, self.logger, content, config)

    return fake_module(
        "tensorrt_rtx" if is_rtx else "tensorrt",
        __version__="1.7.1.116" if is_rtx else "11.4.0.106",
        ILogger=ILogger,
        Runtime=Runtime,
        TensorIOMode=TensorIOMode,
        DataType=DataType,
        ExecutionContextAllocationStrategy=Allocation,
        **({"DynamicShapesKernelSpecializationStrategy": Specialization} if is_rtx else {}),
    )


class FakeRuntimeCache:
    """`IRuntimeCache`: the profiles that were compiled."""

    def __init__(self, shared: FakeTensorRt) -> None:
        self.shared = shared
        self.profiles: set[int] = set()

    def deserialize(self, blob: bytes) -> bool:
        if not blob.startswith(prefix := self._prefix):
            return False
        self.profiles = set(blob[len(prefix) :])
        return True

    def serialize(self) -> bytes:
        return self._prefix + bytes(sorted(self.profiles))

    @property
    def _prefix(self) -> bytes:
        return f"for driver {self.shared.driver}: ".encode()


class FakeEngine:
    """`ICudaEngine`."""

    device_memory_size_v2 = MEMORY_BYTES

    def __init__(self, shared: FakeTensorRt, logger: Any, content: Any, config: Any) -> None:
        self.shared, self.logger, self.config = shared, logger, config
        self.classes: int = content["classes"]
        self.profiles: list[tuple[int, int, int]] = content["profiles"]
        cam = (-1, self.classes, PATCH_PX // 8, PATCH_PX // 8)
        self.shapes: dict[str, tuple[int, ...]] = {content["input"]: (-1, PATCH_PX, PATCH_PX, 3)}
        self.shapes |= dict.fromkeys(CAM_NAMES, cam) | {"prob": (-1, self.classes)}
        self.dtypes = dict.fromkeys(CAM_NAMES, DataType[content["cam dtype"]])
        self.dtypes |= {content["input"]: DataType.UINT8, "prob": DataType.FLOAT}

    @property
    def num_io_tensors(self) -> int:
        return len(self.shapes)

    @property
    def num_optimization_profiles(self) -> int:
        return len(self.profiles)

    def get_tensor_name(self, index: int) -> str:
        return list(self.shapes)[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.OUTPUT if name in OUTPUT_NAMES else TensorIOMode.INPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        return self.dtypes[name]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.shapes[name]

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        return [(batch, *self.shapes[name][1:]) for batch in self.profiles[profile_index]]

    def create_runtime_config(self) -> Any:
        return self.config()

    def create_execution_context(self, runtime_config: Any) -> FakeContext | None:
        assert runtime_config.allocation is Allocation.USER_MANAGED
        context = FakeContext(self)
        if context.refuses("create_execution_context"):
            return None
        context.facts.config = runtime_config
        self.shared.contexts.append(context.facts)
        self.shared.living.add(context)
        return context


class FakeContext:
    """`IExecutionContext`."""

    def __init__(self, engine: FakeEngine) -> None:
        self.engine, self.shared = engine, engine.shared
        self.facts = SimpleNamespace(memory=0, profile=None)
        self.batch: int | None = None
        self.addresses: dict[str, int] = {}
        self.has_run = False
        """With this shape."""

    def refuses(self, method: str, reason: str = "") -> bool:
        if method in self.shared.refusing:
            reason = f"{method} is refused"
        if reason and not self.shared.is_silent:
            self.engine.logger.log(Severity.ERROR, reason)
        if not reason and self.shared.is_silent:
            self.engine.logger.log(Severity.ERROR, "something that was overcome")
        return bool(reason)

    def set_device_memory(self, memory: int, size: int) -> None:
        assert memory % 256 == 0 and size >= MEMORY_BYTES
        self.shared.gpu.view(memory, np.uint8, (size,))
        self.facts.memory = memory

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        assert stream_handle in self.shared.gpu.waiting
        is_known = profile_index in range(len(self.engine.profiles))
        if self.refuses("set_optimization_profile_async", "" if is_known else "no such profile"):
            return False
        self.facts.profile = profile_index
        cache = getattr(self.facts.config, "cache", None)
        if cache is None or profile_index not in cache.profiles:
            self.shared.compiled.append(profile_index)
        if cache is not None:
            cache.profiles.add(profile_index)
        self.batch, self.addresses, self.has_run = None, {}, False
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert self.facts.profile is not None
        least, _, most = self.engine.profiles[self.facts.profile]
        is_fine = (
            name in self.engine.shapes
            and least <= shape[0] <= most
            and shape[1:] == self.engine.shapes[name][1:]
        )
        if self.refuses("set_input_shape", "" if is_fine else f"{shape} is outside the profile"):
            return False
        self.batch, self.has_run = shape[0], False
        return True

    def set_tensor_address(self, name: str, memory: int) -> bool:
        assert type(memory) is int
        if self.refuses("set_tensor_address", "" if name in self.engine.shapes else "no tensor"):
            return False
        self.addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        gpu = self.shared.gpu
        assert type(stream_handle) is int and stream_handle in gpu.waiting
        if self.refuses("execute_async_v3", self._problem(stream_handle)):
            if stream_handle in gpu.captures:
                gpu.captures[stream_handle] = None
            return False
        assert self.facts.profile is not None and self.batch is not None
        self.has_run = True
        if stream_handle not in gpu.captures:
            self.shared.busy[self.facts.memory] = stream_handle
        self.shared.enqueued.append((self.facts.profile, self.batch))
        batch, addresses = self.batch, dict(self.addresses)
        gpu.submit("enqueue", stream_handle, lambda: self._compute(batch, addresses))
        return True

    def _problem(self, stream: int) -> str:
        if self.facts.memory == 0:
            return "no device memory"
        if self.shared.busy.get(self.facts.memory, stream) != stream:
            return "another context uses this device memory"
        if self.batch is None:
            return "no input shape"
        if set(self.addresses) != set(self.engine.shapes):
            return "a tensor has no address"
        if stream in self.shared.gpu.captures:
            if not self.shared.is_capturable:
                return "a layer cannot be captured"
            if not self.has_run:
                return "the shape was not used before the capture"
        return ""

    def _compute(self, batch: int, addresses: dict[str, int]) -> None:
        self.shared.busy.pop(self.facts.memory, None)
        view = self.shared.gpu.view
        patches = view(addresses["patches"], np.uint8, (batch, PATCH_PX, PATCH_PX, 3))
        cams = self.shared.change(network(patches, self.engine.classes))
        for name in OUTPUT_NAMES:
            output = getattr(cams, name)
            view(addresses[name], np.float32, output.shape)[:] = output
