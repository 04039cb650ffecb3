"""What the doctor would find on two machines: a complete workstation and a laptop without a GPU."""

from __future__ import annotations

from dataclasses import replace

from sshr_deploy.runtime.doctor.report import Answer, Facts, Machine, OnnxRuntime, Processor
from sshr_deploy.runtime.engines.kinds import KINDS
from sshr_deploy.runtime.machine.gpus import Gpu

RTX = Gpu(0, "NVIDIA RTX 4000 Ada Generation", 89, "580.95.05", 20475)
H100 = Gpu(0, "NVIDIA H100 80GB HBM3", 90, "580.95.05", 81559)
MACHINE = Machine(
    "Linux 6.8.0 x86_64", "3.11.9", Processor("a processor", 8, True, True, True), 65536
)
PACKAGES = {
    "onnxruntime-gpu": "1.31.1",
    "tensorrt": "10.16.1.11",
    "tensorrt-cu13": "10.16.1.11",
    "tensorrt-rtx": "1.7.1.116",
    "tensorrt-rtx-cu13": "1.7.1.116",
    "onnxruntime-ep-nv-tensorrt-rtx-cu13": "0.5.0",
    "cuda-core": "1.2.2",
    "torch": "2.13.0",
    "safetensors": "0.8.0",
    "onnx": "1.23.2",
    "ml-dtypes": "0.6.0",
    "onnxscript": "0.7.2",
    "tensorboard": "2.21.0",
    "matplotlib": "3.11.2",
}
NO_GPU = "no NVIDIA GPU: nvidia-smi is not on the PATH"


def cuda_answer(gpu: Gpu) -> Answer:
    return Answer({"name": gpu.name, "sm": gpu.sm, "library": "cuda-core 1.2.2"}, None)


def workstation(gpu: Gpu = RTX) -> Facts:
    """Everything is installed, everything works."""
    well = {kind.name: Answer({}, None) for kind in KINDS if kind.provider is not None}
    return Facts(
        gpus=(gpu,),
        no_gpu="",
        machine=MACHINE,
        libraries=PACKAGES,
        onnxruntime=OnnxRuntime(
            ("onnxruntime-gpu",),
            "1.31.1",
            "onnxruntime-gpu",
            "13.0",
            ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"),
            None,
        ),
        trials={
            **well,
            "cuda": cuda_answer(gpu),
            "tensorrt-import": Answer({"library": "tensorrt 10.16.1.11"}, None),
            "tensorrt": Answer({"library": "tensorrt 10.16.1.11"}, None),
            "tensorrt-rtx": Answer({"library": "tensorrt-rtx 1.7.1.116"}, None),
            "infer": Answer({"errors": {}}, None),
            "extras": Answer({"errors": {}}, None),
            "torch": Answer({"gpu": True, "cuda": "13.0"}, None),
        },
        environ={},
    )


def laptop() -> Facts:
    """sshr-deploy[cpu], no GPU."""
    return replace(
        workstation(),
        gpus=(),
        no_gpu=NO_GPU,
        libraries={"onnxruntime": "1.32.0"},
        onnxruntime=OnnxRuntime(
            ("onnxruntime",), "1.32.0", "onnxruntime", None, ("CPUExecutionProvider",), None
        ),
        trials={"infer": Answer({"errors": {}}, None), "onnx-cpu": Answer({}, None)},
    )


def with_trials(facts: Facts, **answers: Answer | None) -> Facts:
    """`facts` with other answers, "_" for "-"; None where nothing was tried."""
    trials = dict(facts.trials)
    for name, answer in answers.items():
        trials.pop(name.replace("_", "-"), None)
        if answer is not None:
            trials[name.replace("_", "-")] = answer
    return replace(facts, trials=trials)


def with_packages(facts: Facts, **versions: str | None) -> Facts:
    """`facts` with other versions, "_" for "-"; None where it is not installed."""
    libraries = dict(facts.libraries)
    for name, version in versions.items():
        libraries.pop(name.replace("_", "-"), None)
        if version is not None:
            libraries[name.replace("_", "-")] = version
    return replace(facts, libraries=libraries)
