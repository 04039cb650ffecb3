"""A stand-in for `tensorrt` that records a build, with the checks and habits of the real one."""

from __future__ import annotations

import json
import weakref
from dataclasses import dataclass
from enum import Enum, IntEnum
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

CACHE_HEADER = b"cache of this library:"
Range = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]


NetworkDefinitionCreationFlag = IntEnum("NetworkDefinitionCreationFlag", ["STRONGLY_TYPED"])
DataType = Enum("DataType", ["FLOAT", "HALF", "INT8", "FP8", "BF16"])
LayerType = Enum("LayerType", ["CONVOLUTION", "DEQUANTIZE"])
BuilderFlag = Enum("BuilderFlag", ["TF32", "VERSION_COMPATIBLE"])
MemoryPoolType = Enum("MemoryPoolType", ["WORKSPACE"])
HardwareCompatibilityLevel = Enum("HardwareCompatibilityLevel", ["NONE", "AMPERE_PLUS"])
ProfilingVerbosity = Enum("ProfilingVerbosity", ["LAYER_NAMES_ONLY", "DETAILED"])
LayerInformationFormat = Enum("LayerInformationFormat", ["JSON"])


class ILogger:
    Severity = Enum("Severity", ["INTERNAL_ERROR", "ERROR", "WARNING"])

    def log(self, severity: Any, msg: str) -> None:
        raise NotImplementedError


class IProgressMonitor:
    pass


@dataclass
class Tensor:
    name: str
    dtype: DataType
    shape: tuple[int, ...] = ()


@dataclass
class Layer:
    name: str
    type: LayerType
    inputs: list[Tensor]
    outputs: list[Tensor]

    @property
    def num_inputs(self) -> int:
        return len(self.inputs)

    @property
    def num_outputs(self) -> int:
        return len(self.outputs)

    def get_input(self, index: int) -> Tensor:
        return self.inputs[index]

    def get_output(self, index: int) -> Tensor:
        return self.outputs[index]


@dataclass
class World:
    """What the machine and the library are like, and what was asked of them."""

    dtype: DataType = DataType.HALF
    """Of the two convolutions, "first" and "second", of every graph."""
    layers: list[Any] | None = None
    """Of a built engine; None for two good ones a profile."""
    has_driver: bool = True
    unreadable_cache: bool = False
    """An unreadable timing cache gives None, not an empty one."""
    build_error: str = ""
    config: Any = None
    """The latest `IBuilderConfig`."""


class Network:
    num_inputs = 1
    num_layers = 2

    def __init__(self, world: World) -> None:
        self.world = world
        self.parser: Any = lambda: None

    def get_input(self, index: int) -> Tensor:
        return [Tensor("patches", DataType.FLOAT, (-1, 224, 224, 3))][index]

    def get_layer(self, index: int) -> Layer:
        name, dtype = ("first", "second")[index], self.world.dtype
        return Layer(
            name, LayerType.CONVOLUTION, [Tensor("x", dtype)], [Tensor(f"{name}:0", dtype)]
        )


class OnnxParser:
    num_errors = 0

    def __init__(self, network: Network, logger: ILogger) -> None:
        self.network, self.logger = network, logger
        self.is_used = False

    def supports_model_v2(self, model: bytes, path: str) -> bool:
        assert model and path
        return self._take()

    def parse_from_file(self, path: str) -> bool:
        self.network.parser = weakref.ref(self)
        assert path
        return self._take()

    def _take(self) -> bool:
        was_used, self.is_used = self.is_used, True
        return not was_used


class Profile:
    def __init__(self) -> None:
        self.shapes: dict[str, Range] = {}

    def set_shape(self, name: str, low: Any, best: Any, high: Any) -> None:
        self.shapes[name] = (tuple(low), tuple(best), tuple(high))


class ITimingCache:
    """The header of its library and one more byte for each build."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def serialize(self) -> NDArray[np.uint8]:
        return np.frombuffer(self.content, np.uint8)


class IBuilderConfig:
    def __init__(self, world: World) -> None:
        self.world = world
        self.flags = {BuilderFlag.TF32}  # on in the library
        self.profiling_verbosity = ProfilingVerbosity.LAYER_NAMES_ONLY
        self.hardware_compatibility_level = HardwareCompatibilityLevel.NONE
        self.progress_monitor: Any = None
        self.pools: dict[MemoryPoolType, int] = {}
        self.profiles: list[Profile] = []
        self.cache: ITimingCache | None = None

    def set_flag(self, flag: BuilderFlag) -> None:
        self.flags.add(flag)

    def clear_flag(self, flag: BuilderFlag) -> None:
        self.flags.discard(flag)

    def set_memory_pool_limit(self, pool: MemoryPoolType, size: int) -> None:
        self.pools[pool] = size

    def add_optimization_profile(self, profile: Profile) -> int:
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def create_timing_cache(self, content: bytes) -> ITimingCache | None:
        if content and not content.startswith(b"cache of "):
            return None if self.world.unreadable_cache else ITimingCache(CACHE_HEADER)
        return ITimingCache(content or CACHE_HEADER)

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        if not cache.content.startswith(CACHE_HEADER) and not ignore_mismatch:
            return False
        self.cache = cache
        return True

    def get_timing_cache(self) -> ITimingCache | None:
        return self.cache


class Builder:
    def __init__(self, logger: ILogger, world: World) -> None:
        if not world.has_driver:
            logger.log(ILogger.Severity.ERROR, "no driver")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self.logger = logger
        self.world = world

    def create_network(self, flags: int) -> Network:
        assert flags == 1 << NetworkDefinitionCreationFlag.STRONGLY_TYPED
        return Network(self.world)

    def create_builder_config(self) -> IBuilderConfig:
        self.world.config = IBuilderConfig(self.world)
        return self.world.config  # type: ignore[no-any-return]

    def create_optimization_profile(self) -> Profile:
        return Profile()

    def build_serialized_network(self, network: Network, config: IBuilderConfig) -> Any:
        assert network.parser() is not None, "the parser, which owns the weights, is gone"
        if not self._tell(config.progress_monitor):
            self.logger.log(ILogger.Severity.ERROR, "Build canceled by user")
            return None
        if self.world.build_error:
            self.logger.log(ILogger.Severity.ERROR, self.world.build_error)
            return None
        if config.cache:
            config.cache.content += b"+"
        plan = {"profiles": len(config.profiles)}
        plan["has_host_code"] = BuilderFlag.VERSION_COMPATIBLE in config.flags
        plan["detailed"] = config.profiling_verbosity is ProfilingVerbosity.DETAILED
        return np.frombuffer(json.dumps(plan).encode(), np.uint8)

    @staticmethod
    def _tell(monitor: Any) -> bool:
        """Two phases in one; like the bindings, goes on after an exception."""
        monitor.phase_start("Building engine", None, 2)
        for index in range(2):
            monitor.phase_start(f"Part {index}", "Building engine", 4)
            for step in range(4):
                try:
                    if not monitor.step_complete(f"Part {index}", step):
                        return False
                except Exception:
                    continue
            monitor.phase_finish(f"Part {index}")
            monitor.step_complete("Building engine", index)
        monitor.phase_finish("Building engine")
        return True


class ICudaEngine:
    def __init__(self, plan: dict[str, Any], world: World) -> None:
        self.plan, self.world = plan, world

    def create_engine_inspector(self) -> EngineInspector:
        return EngineInspector(self.plan, self.world)


class EngineInspector:
    def __init__(self, plan: dict[str, Any], world: World) -> None:
        self.plan, self.world = plan, world

    def get_engine_information(self, form: LayerInformationFormat) -> str:
        assert form is LayerInformationFormat.JSON
        words = {DataType.FLOAT: "Float", DataType.HALF: "Half", DataType.BF16: "BFloat16"}
        layers = self.world.layers
        if layers is None:
            layers = [
                {
                    "Name": f"{name} + relu" + (f" [profile {index}]" if index else ""),
                    "LayerType": "CaskConvolution",
                    "Weights": {"Type": words[self.world.dtype], "Count": 9},
                    "TacticName": "sm80_xmma",
                }
                for index in range(self.plan["profiles"])
                for name in ("first", "second")
            ]
        if not self.plan["detailed"]:
            layers = [layer["Name"] for layer in layers]
        return json.dumps({"Layers": layers, "Bindings": ["patches"]})


class Runtime:
    def __init__(self, logger: ILogger, world: World) -> None:
        self.logger, self.world = logger, world
        self.engine_host_code_allowed = False

    def deserialize_cuda_engine(self, plan: Any) -> ICudaEngine | None:
        content = json.loads(bytes(plan))
        if content["has_host_code"] and not self.engine_host_code_allowed:
            self.logger.log(ILogger.Severity.ERROR, "host code is not allowed")
            return None
        return ICudaEngine(content, self.world)


def fake_tensorrt(world: World) -> ModuleType:
    """The module, of a machine and library like `world`."""
    module = ModuleType("tensorrt")
    for item in (
        *(NetworkDefinitionCreationFlag, DataType, LayerType, BuilderFlag, MemoryPoolType),
        *(HardwareCompatibilityLevel, ProfilingVerbosity, LayerInformationFormat),
        *(
            ILogger,
            IProgressMonitor,
            OnnxParser,
            ITimingCache,
            IBuilderConfig,
            ICudaEngine,
            EngineInspector,
        ),
    ):
        setattr(module, item.__name__, item)
    module.__dict__.update(
        __version__="10.16.1.11",
        Builder=lambda logger: Builder(logger, world),
        Runtime=lambda logger: Runtime(logger, world),
    )
    return module
