"""Stand-ins for what the plugin uses of `tensorrt` and `tensorrt.plugin`, with their checks."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from types import SimpleNamespace
from typing import Any


class DataType(Enum):
    FLOAT = 0
    HALF = 1
    INT8 = 2


class TensorFormat(Enum):
    LINEAR = 0
    HWC8 = 2


class Symbol:
    """An integer that may depend on the batch size."""

    def __init__(self, value: Symbol | int | Callable[[int], int]) -> None:
        if isinstance(value, Symbol):
            self.at: Callable[[int], int] = value.at
        elif callable(value):
            self.at = value
        elif type(value) is int:  # the real one turns other integers into nothing
            self.at = lambda batch: value
        else:
            raise TypeError(f"{value!r} is no int")

    def __mul__(self, other: int) -> Symbol:
        return Symbol(lambda batch: self.at(batch) * other)


class SymInt32(Symbol):
    pass


class SymIntExprs(list[Any]):
    def __init__(self, length: int) -> None:
        super().__init__([None] * length)

    def __setitem__(self, index: Any, value: Any) -> None:
        assert type(value) is SymInt32
        super().__setitem__(index, value)


@dataclass
class KernelLaunchParams:
    grid_x: Any = 1
    grid_y: Any = 1
    grid_z: Any = 1
    block_x: Any = 1
    block_y: Any = 1
    block_z: Any = 1
    shared_mem: Any = 0


@dataclass
class TensorDesc:
    shape: tuple[int, ...]
    """With -1 for the batch."""
    dtype: DataType
    format: TensorFormat = TensorFormat.LINEAR
    shape_expr: tuple[Symbol, ...] = ()

    def __post_init__(self) -> None:
        if not self.shape_expr:
            self.shape_expr = tuple(
                Symbol((lambda batch: batch) if size == -1 else size) for size in self.shape
            )

    @property
    def ndim(self) -> int:
        return len(self.shape_expr)


@dataclass
class AutoTuneCombination:
    io_types: str
    layouts: str


@dataclass
class Plugin:
    """What was registered under one id."""

    register: Callable[..., Any]
    autotune: Callable[..., Any] | None = None
    aot_impl: Callable[..., Any] | None = None
    inputs: list[str] = field(default_factory=list)


class PluginModule:
    """`tensorrt.plugin`."""

    def __init__(self) -> None:
        self.TensorDesc = TensorDesc
        self.SymInt32 = SymInt32
        self.SymIntExprs = SymIntExprs
        self.KernelLaunchParams = KernelLaunchParams
        self.AutoTuneCombination = AutoTuneCombination
        self.op = SimpleNamespace()
        self.plugins: dict[str, Plugin] = {}

    @staticmethod
    def cdiv(first: Symbol, second: int) -> Symbol:
        return Symbol(lambda batch: -(-first.at(batch) // second))

    @staticmethod
    def from_shape_expr(shape_expr: tuple[Symbol, ...], dtype: DataType) -> TensorDesc:
        return TensorDesc((), dtype, shape_expr=shape_expr)

    def register(self, plugin_id: str) -> Callable[..., None]:
        def decorator(function: Callable[..., Any]) -> None:
            signature = inspect.signature(function)
            names = list(signature.parameters)
            assert all(item.annotation is TensorDesc for item in signature.parameters.values())
            assert signature.return_annotation is TensorDesc
            assert plugin_id not in self.plugins
            self.plugins[plugin_id] = Plugin(function, inputs=names)
            namespace, name = plugin_id.split("::")
            setattr(self.op, namespace, SimpleNamespace(**{name: self.plugins[plugin_id]}))

        return decorator

    def autotune(self, plugin_id: str) -> Callable[..., None]:
        def decorator(function: Callable[..., Any]) -> None:
            self._check(plugin_id, function, ["outputs"], list, 1)
            self.plugins[plugin_id].autotune = function

        return decorator

    def aot_impl(self, plugin_id: str) -> Callable[..., None]:
        def decorator(function: Callable[..., Any]) -> None:
            self._check(plugin_id, function, ["outputs", "tactic"], tuple, 4)
            self.plugins[plugin_id].aot_impl = function

        return decorator

    def _check(
        self, plugin_id: str, function: Callable[..., Any], more: list[str], kind: type, parts: int
    ) -> None:
        signature = inspect.signature(function)
        assert list(signature.parameters) == [*self.plugins[plugin_id].inputs, *more]
        for name, item in signature.parameters.items():
            if name == "outputs":
                assert typing.get_origin(item.annotation) is tuple
                assert typing.get_args(item.annotation) == (TensorDesc,)
            else:
                assert item.annotation is (int if name == "tactic" else TensorDesc)
        assert typing.get_origin(signature.return_annotation) is kind
        assert len(typing.get_args(signature.return_annotation)) == parts


def fake_modules() -> dict[str, Any]:
    """New modules for `sys.modules`."""
    plugin = PluginModule()
    base = SimpleNamespace(
        float32=DataType.FLOAT,
        float16=DataType.HALF,
        int8=DataType.INT8,
        TensorFormat=TensorFormat,
        plugin=plugin,
    )
    return {"tensorrt": base, "tensorrt.plugin": plugin}
