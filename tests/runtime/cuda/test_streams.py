"""Streams, pinned memory and CUDA graphs of both libraries, on a GPU that is none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from sshr_deploy.errors import KernelArgumentError, KernelError, SessionError
from sshr_deploy.runtime.cuda.base import Device
from sshr_deploy.runtime.cuda.buffers import Buffer, Pinned
from sshr_deploy.runtime.cuda.opening import DEVICE_LIBRARIES, open_device
from sshr_deploy.runtime.cuda.streams import Kernel, Stream
from sshr_deploy.runtime.kernels.cam_to_mask import plan
from sshr_deploy.runtime.kernels.manifest import load_manifest
from tests.runtime.fake_cuda import install_fake_gpu
from tests.runtime.fake_gpu import SM, FakeGpu
from tests.runtime.fake_kernels import make_mask_kernels


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    return install_fake_gpu(monkeypatch)


@pytest.fixture(params=DEVICE_LIBRARIES)
def device(request: pytest.FixtureRequest, gpu: FakeGpu) -> Iterator[Device]:
    with open_device(0, request.param) as device:
        yield device


@pytest.fixture
def capturing(gpu: FakeGpu) -> Iterator[Device]:
    with open_device(0, "cuda-core") as device:
        yield device


def bytes_of(device: Device, buffer: Buffer) -> list[int]:
    return [int(byte) for byte in device.download(buffer, np.uint8, (buffer.nbytes,))]


def test_a_stream_copies_between_pinned_memory_and_the_device(device: Device) -> None:
    stream, buffer, host = device.stream(), device.allocate(4), device.pinned(6)
    assert host.array.dtype == np.uint8 and host.array.shape == (6,)
    host.array[:] = 1, 2, 3, 4, 5, 6
    stream.upload(buffer, host, 4)
    stream.synchronize()
    host.array[:] = 0
    stream.download(host, buffer, 3)
    assert host.array.tolist() == [0] * 6, "not done yet"
    stream.synchronize()
    assert host.array.tolist() == [1, 2, 3, 0, 0, 0]
    assert bytes_of(device, buffer) == [1, 2, 3, 4]


def test_streams_do_not_wait_for_each_other(device: Device, gpu: FakeGpu) -> None:
    one, two = device.stream(), device.stream()
    assert len({one.handle, two.handle}) == 2
    first, second, host = device.allocate(1), device.allocate(1), device.pinned(1)
    host.array[0] = 7
    for buffer in (first, second):
        device.fill(buffer)
    device.synchronize()
    one.upload(first, host, 1)
    two.upload(second, host, 1)
    two.synchronize()
    assert (bytes_of(device, first), bytes_of(device, second)) == ([0], [7])
    one.synchronize()
    assert bytes_of(device, first) == [7]


def test_memory_is_there_for_every_stream_at_once(capturing: Device, gpu: FakeGpu) -> None:
    gpu.log.clear()
    capturing.allocate(4)
    assert [what for what, _ in gpu.log] == ["allocate", "synchronize"]


def _mask_kernel(device: Device, tmp_path: Any) -> Kernel:
    folder = make_mask_kernels(tmp_path / "kernels", SM)
    return device.load(load_manifest(folder).find("cam_to_mask", "mask", SM))


def _mask_arguments(device: Device) -> tuple[Any, Any, Buffer]:
    shape = (1, 2, 4, 4)
    launch = plan.plan_mask(shape, threshold=0.5, height_px=8, width_px=32)
    inputs = [device.allocate(4 * 32) for _ in range(3)] + [device.allocate(8)]
    for buffer in inputs:
        device.fill(buffer)
    ranges, labels = device.allocate(4 * 12), device.allocate(8 * 32)
    device.fill(ranges)
    device.fill(labels, 255)
    device.synchronize()
    return launch.grid, (*inputs, ranges, *launch.scalars, labels), labels


def test_a_stream_launches_kernels(device: Device, tmp_path: Any, gpu: FakeGpu) -> None:
    kernel = _mask_kernel(device, tmp_path)
    grid, arguments, labels = _mask_arguments(device)
    stream = device.stream()
    stream.launch(kernel, grid, arguments)
    assert set(bytes_of(device, labels)) == {255}, "the device's own stream does not wait"
    stream.synchronize()
    assert set(bytes_of(device, labels)) == {0}
    assert gpu.log.count(("launch", stream.handle)) == 1
    with pytest.raises(KernelArgumentError, match="takes 12 arguments"):
        stream.launch(kernel, grid, arguments[:-1])
    with open_device() as second, pytest.raises(KernelArgumentError, match="another device"):
        second.stream().launch(kernel, grid, arguments)


def test_a_graph_does_what_was_captured_each_time(capturing: Device, gpu: FakeGpu) -> None:
    device = capturing
    stream, buffer = device.stream(), device.allocate(2)
    source, target = device.pinned(2), device.pinned(2)

    def work() -> None:
        stream.upload(buffer, source, 2)
        stream.download(target, buffer, 2)

    target.array[:] = 9
    source.array[:] = 1, 2
    graph = stream.capture(work)
    stream.synchronize()
    assert target.array.tolist() == [9, 9], "nothing is done by the capture"
    for values in ([3, 4], [5, 6]):
        source.array[:] = values
        graph.launch()
        stream.synchronize()
        assert target.array.tolist() == values
    assert len(gpu.graphs) == 1
    graph.close()
    graph.close()
    with pytest.raises(KernelError, match="the graph is closed"):
        graph.launch()
    stream.capture(work)
    stream.close()
    assert not gpu.graphs


def test_what_a_graph_cannot_hold_is_refused_and_the_stream_works_on(
    capturing: Device, gpu: FakeGpu
) -> None:
    device = capturing
    stream, buffer, host = device.stream(), device.allocate(1), device.pinned(1)
    with pytest.raises(KernelError, match="cannot allocate 4 bytes: allocate: operation not perm"):
        stream.capture(lambda: device.allocate(4))
    with pytest.raises(KernelError, match="cannot finish: operation not permitted"):
        stream.capture(stream.synchronize)
    gpu.spoils_captures = True
    with pytest.raises(KernelError, match=r"cannot capture a CUDA graph: .*CAPTURE_INVALIDATED"):
        stream.capture(lambda: stream.upload(buffer, host, 1))
    gpu.spoils_captures = False

    def fail() -> None:
        stream.upload(buffer, host, 1)
        raise SessionError("of what was captured")

    with pytest.raises(SessionError, match="of what was captured"):
        stream.capture(fail)
    assert not gpu.captures and not gpu.graphs
    host.array[0] = 3
    stream.capture(lambda: stream.upload(buffer, host, 1)).launch()
    stream.synchronize()
    assert bytes_of(device, buffer) == [3]


def test_pycuda_has_no_graphs(gpu: FakeGpu) -> None:
    with open_device(0, "pycuda") as device, pytest.raises(KernelError, match="pycuda cannot"):
        device.stream().capture(lambda: None)


def test_copies_that_do_not_fit_are_refused(device: Device) -> None:
    stream, buffer, host = device.stream(), device.allocate(4), device.pinned(8)
    with pytest.raises(KernelArgumentError, match="buffer has 4 bytes; it must have 5"):
        stream.upload(buffer, host, 5)
    with pytest.raises(KernelArgumentError, match="host has 8 bytes; it must have 9"):
        stream.download(host, device.allocate(16), 9)
    with pytest.raises(KernelArgumentError, match="nbytes is 0"):
        device.pinned(0)
    host.close()
    with pytest.raises(KernelArgumentError, match="host is closed"):
        stream.upload(buffer, host, 1)
    with open_device() as other:
        with pytest.raises(KernelArgumentError, match="buffer belongs to another device"):
            stream.upload(other.allocate(4), device.pinned(4), 4)
        with pytest.raises(KernelArgumentError, match="host belongs to another device"):
            stream.download(other.pinned(4), buffer, 4)


def test_memory_is_freed_after_the_work_of_all_streams(device: Device, gpu: FakeGpu) -> None:
    stream, buffer, host = device.stream(), device.allocate(1), device.pinned(1)
    host.array[0] = 5
    stream.upload(buffer, host, 1)
    view = gpu.view(buffer.pointer, np.uint8, (1,))
    host.close()
    assert view[0] == 5, "the copy was done before its source went"
    assert host.array.size == 0
    assert not gpu.pinned


def test_closing_closes_everything_once(gpu: FakeGpu) -> None:
    for library in DEVICE_LIBRARIES:
        device = open_device(0, library)
        streams = [device.stream() for _ in range(3)]
        pinned: list[Pinned] = [device.pinned(4) for _ in range(3)]
        streams[0].close()
        streams[0].close()
        pinned[0].close()
        with pytest.raises(KernelError, match="the stream is closed"):
            streams[0].synchronize()
        with pytest.raises(KernelError, match="the stream is closed"):
            _ = streams[0].handle
        assert len(gpu.pinned) == 2
        device.close()
        assert not gpu.pinned and gpu.contexts == 0
        for part in (*streams, *pinned):
            part.close()
        with pytest.raises(KernelError, match="the device is closed"):
            device.stream()
        with pytest.raises(KernelError, match="the device is closed"):
            device.pinned(1)


def test_a_fault_shows_when_a_stream_is_waited_for(device: Device, gpu: FakeGpu) -> None:
    stream: Stream = device.stream()
    gpu.fault = "an illegal memory access was encountered"
    with pytest.raises(KernelError, match=f"^{device.library} cannot finish: {gpu.fault}$"):
        stream.synchronize()
    with pytest.raises(KernelError, match=gpu.fault):
        stream.close()
    gpu.fault = ""
