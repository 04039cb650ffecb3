"""What this machine reaches at best: matrix products by precision, and copies.

After S. Williams, A. Waterman, D. Patterson, "Roofline: an insightful visual performance model for
multicore architectures", CACM 52(4), 2009: work takes at least as long as its operations at the
rate of a large matrix product, and at least as long as its bytes at that of a copy. Both rates are
the fastest of some calls in this run, through the libraries that the engines compute with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.benchmarks.measuring.turns import take_turns
from sshr_deploy.benchmarks.roofline.copies import cached_copy, last_level_bytes, memory_copy
from sshr_deploy.benchmarks.roofline.product_graph import product_graph
from sshr_deploy.errors import SshrDeployError, first_line
from sshr_deploy.precision import Precision
from sshr_deploy.runtime.contract import INPUT_NAME
from sshr_deploy.runtime.machine.processor import processor_name
from sshr_deploy.runtime.machine.threads import threads_in_use, usable_cores
from sshr_deploy.runtime.sessions import openvino
from sshr_deploy.runtime.sessions.onnxruntime.providers import CPU_PROVIDER
from sshr_deploy.runtime.sessions.onnxruntime.session import import_onnxruntime

_SECONDS, _SETTLE_S = 0.3, 0.1
"""Of each product and copy: about 4 s in all on a quiet machine."""
_FEW_THREADS = 8
_SIDE, _SIDE_OF_MANY = 1024, 2048
"""Of the matrices. 2.1 GFLOP take about 10 ms on two cores, but are soon over on many."""

_Call = Callable[[], object]


@dataclass(frozen=True)
class Product:
    """A matrix product that was timed."""

    precision: Precision
    library: str
    side: int
    """Of the square matrices."""
    samples_ms: tuple[float, ...]

    @property
    def gflop_per_s(self) -> float:
        """In the fastest call; 2 side^3 operations, a multiply-add counted as two."""
        return 2 * self.side**3 / min(self.samples_ms) / 1e6


@dataclass(frozen=True)
class Ceilings:
    """The best rates of a processor or GPU in this run."""

    products: tuple[Product, ...]
    copy_gb_per_s: float
    """Bytes read plus bytes written of a copy in memory, far larger than the caches."""
    cache_gb_per_s: float | None
    """The same within the caches; None where their size is not known."""
    cache_bytes: int | None
    """Of the last level; of a GPU its L2."""
    threads: int | None
    """None on a GPU."""
    not_measured: Mapping[Precision, str]
    """Why there is no product in a precision, in one line."""

    @property
    def gflop_per_s(self) -> dict[Precision, float]:
        """The best product by precision, in GFLOP/s; of INT8 in 1e9 operations a second."""
        best: dict[Precision, float] = {}
        for product in self.products:
            rate = product.gflop_per_s
            best[product.precision] = max(rate, best.get(product.precision, 0.0))
        return best

    def bandwidth(self, moved_bytes: float) -> float:
        """GB/s at best for so many bytes: of the caches where they hold them."""
        fits = self.cache_bytes is not None and moved_bytes <= self.cache_bytes
        cached = self.cache_gb_per_s if fits else None
        return max(self.copy_gb_per_s, cached or 0.0)

    def floor_ms(self, flop: float, moved_bytes: float, precision: Precision) -> float | None:
        """The least time that work takes; None where no product was measured in its precision.

        Args:
            flop: operations of convolutions and products.
            moved_bytes: read and written.
            precision: of the operations.
        """
        by_bytes = moved_bytes / self.bandwidth(moved_bytes) / 1e6
        if not flop:
            return by_bytes
        product = self.gflop_per_s.get(precision)
        return None if product is None else max(flop / product / 1e6, by_bytes)

    def as_json(self) -> dict[str, Any]:
        """For the facts of a document, with the raw samples."""
        return {
            **asdict(self),
            "gflop_per_s": {str(precision): rate for precision, rate in self.gflop_per_s.items()},
            "not_measured": {str(precision): why for precision, why in self.not_measured.items()},
        }


def measure_ceilings(precisions: Iterable[Precision], threads: int | None = None) -> Ceilings:
    """Measure the processor: products in `precisions`, each by every library that has it, copies.

    Args:
        precisions: that are asked for; what this processor does not compute in is told as such.
        threads: that compute; None takes those in use, or one for each core.
    """
    in_use = threads_in_use()
    count = threads or (usable_cores() if in_use is None else in_use.count)
    side = _SIDE if count <= _FEW_THREADS else _SIDE_OF_MANY
    calls: dict[tuple[Precision, str], _Call] = {}
    missing: dict[Precision, list[str]] = {}
    for precision in dict.fromkeys(precisions):
        model, matrix = product_graph(precision, side)
        for library, opened in _LIBRARIES.items():
            try:
                calls[precision, library] = opened(model, matrix, precision, count)
            except SshrDeployError as error:
                missing.setdefault(precision, []).append(first_line(error))
    cache = last_level_bytes()
    with ThreadPoolExecutor(count) as pool:
        copies = {"memory": memory_copy(pool, count, cache)}
        if cache is not None:
            copies["cache"] = cached_copy(pool, count, cache)
        named: dict[str, _Call] = {f"{p} {library}": call for (p, library), call in calls.items()}
        samples: dict[str, list[float]] = {name: [] for name in (*named, *copies)}
        for name, turn in take_turns({**named, **copies}, seconds=_SECONDS, settle_s=_SETTLE_S):
            samples[name] += turn
    rates = {name: copy.moved_bytes / min(samples[name]) / 1e6 for name, copy in copies.items()}
    products = tuple(Product(p, lib, side, tuple(samples[f"{p} {lib}"])) for p, lib in calls)
    measured = {product.precision for product in products}
    return Ceilings(
        products,
        rates["memory"],
        rates.get("cache"),
        cache,
        count,
        {p: "; ".join(reasons) for p, reasons in missing.items() if p not in measured},
    )


def _onnxruntime(
    model: bytes, matrix: NDArray[np.generic], precision: Precision, threads: int
) -> _Call:
    if precision not in (Precision.FP32, Precision.INT8):
        raise SshrDeployError(f"ONNX Runtime has no {precision} product for {processor_name()}")
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(model, options, providers=[CPU_PROVIDER])
    return lambda: session.run(None, {INPUT_NAME: matrix})


def _openvino(
    model: bytes, matrix: NDArray[np.generic], precision: Precision, threads: int
) -> _Call:
    core = openvino.openvino_core()
    if not openvino.computes(precision):
        raise SshrDeployError(f"OpenVINO has no {precision} product for {processor_name()}")
    options = openvino.compile_options(precision, threads)
    request = core.compile_model(core.read_model(model), "CPU", options).create_infer_request()
    return lambda: request.infer({INPUT_NAME: matrix}, share_inputs=True)


_LIBRARIES = {"onnxruntime": _onnxruntime, "openvino": _openvino}
