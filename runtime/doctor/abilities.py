"""Things that each engine and command lacks here, and the commands that mend it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sshr_deploy.runtime.doctor.conflicts import ORT_GPU_ENGINES, RTX_MEND, gpu_refusal
from sshr_deploy.runtime.doctor.drivers import DRIVERS, before_gpu_extra, onnxruntime_note
from sshr_deploy.runtime.doctor.report import Ability, Conflict, Facts, Lack
from sshr_deploy.runtime.doctor.trials import EXTRA_PACKAGES, has_plugin
from sshr_deploy.runtime.engines.kind import EngineKind, Package
from sshr_deploy.runtime.engines.kinds import KINDS, ONNX_CPU
from sshr_deploy.runtime.sessions.onnxruntime.providers import Provider
from sshr_deploy.runtime.sessions.tensorrt.library import Library

COMMAND_PACKAGES = {
    "export": ("torch", "safetensors", "onnx", "ml-dtypes", "onnxscript"),
    "train": ("torch", "safetensors", "tensorboard", "matplotlib"),
}
"""Packages that each command needs of the extra of its name; `export` needs an onnxruntime too."""
_NO_VNNI = (
    "the processor has no VNNI: INT8 is slower than it could be, and sums of 8-bit products may "
    "saturate"
)


def judge_engines(facts: Facts, conflicts: Sequence[Conflict]) -> tuple[Ability, ...]:
    """The engines, the faster first; one that runs another's graphs only where it is installed."""
    considered = [k for k in KINDS if k.graphs_of is None or k.package in facts.libraries]
    return tuple(_judge_engine(kind, facts, conflicts) for kind in considered)


def judge_commands(facts: Facts, engines: Sequence[Ability]) -> tuple[Ability, ...]:
    """`infer`, `export` and `train`."""
    return (
        _judge_infer(facts, engines),
        *(_judge_development(name, facts) for name in COMMAND_PACKAGES),
    )


def _judge_engine(kind: EngineKind, facts: Facts, conflicts: Sequence[Conflict]) -> Ability:
    breaking = [conflict for conflict in conflicts if kind.name in conflict.breaks]
    lacks = [Lack(conflict.reason, conflict.mend) for conflict in breaking]
    if not breaking:  # what a conflict breaks cannot be tried
        lacks += _gpu_lacks(kind, facts)
        if isinstance(kind.runs_on, Provider):
            others = list(_ort_lacks(kind, kind.runs_on, facts))
        elif isinstance(kind.runs_on, Library):
            others = list(_plan_lacks(kind, kind.runs_on, facts))
        else:
            others = list(_package_lacks(kind, kind.runs_on, facts))
        # Without a GPU for it nothing is gained by installing.
        lacks += [Lack(lack.reason) for lack in others] if lacks else others
    not_tried = None
    if not lacks and kind is not ONNX_CPU:
        builds = ", for which an engine has to be built" if kind.has_static_batches else ""
        not_tried = f"the network{builds}"
    return Ability(
        kind.name, tuple(_tried(kind, facts)), not_tried, tuple(lacks), tuple(_notes(kind, facts))
    )


def _notes(kind: EngineKind, facts: Facts) -> Iterator[str]:
    if not kind.needs_gpu and facts.machine.processor.vnni is False:
        yield _NO_VNNI
    if kind.name in ORT_GPU_ENGINES and (note := onnxruntime_note(facts)) is not None:
        yield note


def _tried(kind: EngineKind, facts: Facts) -> Iterator[str]:
    if kind.provider is not None:
        if facts.went_well(kind.name):
            yield f"ran a convolution with {kind.provider.name}"
        return
    if facts.went_well(kind.name):
        verb = "imported" if kind.library is None else "made a builder of"
        yield f"{verb} {facts.trials[kind.name].facts['library']}"
    if kind.library is None:
        return
    if facts.went_well("cuda"):
        device = facts.trials["cuda"].facts
        yield f"opened {device['name']} with {device['library']}"


def _gpu_lacks(kind: EngineKind, facts: Facts) -> Iterator[Lack]:
    if not kind.needs_gpu:
        return
    if not facts.gpus:
        yield Lack(facts.no_gpu, (f"# {facts.no_gpu}; drivers: {DRIVERS}",))
    elif (refusal := gpu_refusal(kind, facts)) is not None:
        yield Lack(refusal, RTX_MEND)


def _ort_lacks(kind: EngineKind, provider: Provider, facts: Facts) -> Iterator[Lack]:
    ort, wanted = facts.onnxruntime, _onnxruntime_for(facts)
    first, driver = before_gpu_extra(facts) if "[gpu]" in wanted else ("", ())
    if not ort.packages:
        yield Lack(f"onnxruntime is not installed{first}", (*driver, f"pip install {wanted}"))
        return
    remove = f"pip uninstall -y {' '.join(ort.packages)}"
    if ort.error is not None:
        yield Lack(f"onnxruntime does not import: {ort.error}", (remove, f"pip install {wanted}"))
    elif provider.package is not None and not has_plugin(kind, facts.libraries):
        yield Lack(f"{provider.package} is not installed", (f"pip install {provider.package}",))
    elif provider.package is None and provider.name not in ort.providers:
        reason = f"onnxruntime {ort.version} (package {ort.package}) has no {provider.name}"
        yield Lack(f"{reason}{first}", (*driver, remove, f"pip install {wanted}"))
    elif (error := facts.trial_error(kind.name)) is not None:
        mend = kind.mend
        if any("[gpu]" in line for line in mend):
            error, mend = f"{error}{first}", (*driver, *mend)
        yield Lack(f"onnxruntime {ort.version}: {error}", mend)


def _onnxruntime_for(facts: Facts) -> str:
    """Requirement of pip for an onnxruntime; one for all engines, as there can be only one.

    That of [gpu] serves the CPU as well, and TensorRT-RTX's provider comes with a plug-in.
    """
    return "'sshr-deploy[gpu]'" if facts.gpus else "'sshr-deploy[cpu]'"


def _plan_lacks(kind: EngineKind, library: Library, facts: Facts) -> Iterator[Lack]:
    """Of an engine that runs plans of TensorRT or TensorRT-RTX."""
    wanted = f"'sshr-deploy[{library.extra}]'"
    if library.extra == "rtx" and _gpu_build_serves(facts):  # [rtx] would bring a second one
        wanted = f"{library.package} cuda-core cuda-bindings"
    install, again = f"pip install {wanted}", f"pip install --force-reinstall {wanted}"
    if library.package not in facts.libraries:
        yield Lack(f"{library.package} is not installed", (install,))
    elif (error := facts.trial_error(kind.name)) is not None:
        yield Lack(f"{library.package} does not work: {error}", (again,))
    if not {"cuda-core", "pycuda"} & facts.libraries.keys():
        yield Lack("cuda-core, which moves data to the GPU, is not installed", (install,))
    elif (error := facts.trial_error("cuda")) is not None:
        device = "pycuda" if "cuda-core" not in facts.libraries else "cuda-core cuda-bindings"
        driver = f"# if that does not help, install NVIDIA's driver again: {DRIVERS}"
        yield Lack(error, (f"pip install --force-reinstall {device}", driver))


def _package_lacks(kind: EngineKind, package: Package, facts: Facts) -> Iterator[Lack]:
    if package.package not in facts.libraries:
        install = f"pip install 'sshr-deploy[{package.extra}]'"
        yield Lack(f"{package.package} is not installed", (install,))
    elif (error := facts.trial_error(kind.name)) is not None:
        again = f"pip install --force-reinstall 'sshr-deploy[{package.extra}]'"
        yield Lack(f"{package.package} does not work: {error}", (again,))


def _judge_infer(facts: Facts, engines: Sequence[Ability]) -> Ability:
    ready = [engine.name for engine in engines if engine.ready]
    lacks = []
    answer = facts.trials["infer"]
    errors = answer.facts.get("errors", {})
    again = ("pip install --force-reinstall sshr-deploy",)
    if answer.error is not None:
        lacks.append(Lack(f"the slide readers do not start: {answer.error}", again))
    lacks += [Lack(f"{name} does not import: {error}", again) for name, error in errors.items()]
    if not ready:
        on_cpu = next(engine for engine in engines if engine.name == ONNX_CPU.name)
        lacks.append(Lack("no engine is ready", on_cpu.lacks[0].mend))
    tried = () if lacks else ("imported what reads slides and writes results",)
    return Ability("infer", tried, None, tuple(lacks))


def _judge_development(name: str, facts: Facts) -> Ability:
    packages = COMMAND_PACKAGES[name]
    missing = [package for package in packages if package not in facts.libraries]
    if name == "export" and not facts.onnxruntime.packages:
        missing.append("onnxruntime")
    lacks = []
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        reason = f"{', '.join(missing)} {verb} not installed"
        mend: tuple[str, ...] = (f"pip install 'sshr-deploy[{name}]'",)
        others = _other_onnxruntimes(facts)
        if name == "export" and others:
            reason += (
                f"; [export] brings onnxruntime, which would overwrite {others[0]}: "
                "use a virtual environment of its own"
            )
        if name == "export" and _gpu_build_serves(facts):
            mend = _in_an_environment_of_its_own(facts, *mend)
        lacks.append(Lack(reason, mend))
    lacks += [
        Lack(f"{package} does not import: {error}", (f"pip install --force-reinstall {package}",))
        for package, error in _module_errors(facts)
        if package in packages
    ]
    if name == "export" and facts.onnxruntime.error is not None:
        remove = f"pip uninstall -y {' '.join(facts.onnxruntime.packages)}"
        mend = (remove, f"pip install {_onnxruntime_for(facts)}")
        lacks.append(Lack(f"onnxruntime does not import: {facts.onnxruntime.error}", mend))
    tried = () if lacks else (f"imported {', '.join(packages)}",)
    return Ability(name, tried, None, tuple(lacks), tuple(_torch_notes(facts)))


def _other_onnxruntimes(facts: Facts) -> list[str]:
    """Installed packages that the package onnxruntime would overwrite."""
    return [package for package in facts.onnxruntime.packages if package != "onnxruntime"]


def _gpu_build_serves(facts: Facts) -> bool:
    """Whether another package than onnxruntime is installed, or is what this machine wants."""
    wanted = bool(facts.gpus) and not facts.onnxruntime.packages
    return wanted or bool(_other_onnxruntimes(facts))


def _in_an_environment_of_its_own(facts: Facts, command: str) -> tuple[str, ...]:
    folder = "sshr-export\\Scripts\\" if facts.on_windows else "sshr-export/bin/"
    return "python -m venv sshr-export", folder + command


def _module_errors(facts: Facts) -> Iterator[tuple[str, str]]:
    if (error := facts.trial_error("torch")) is not None:
        yield "torch", error
    extras = facts.trials.get("extras")
    if extras is None:
        return
    if extras.error is not None:  # the process ended, so which one did it is not known
        yield from ((name, extras.error) for name in EXTRA_PACKAGES if name in facts.libraries)
    for module, error in extras.facts.get("errors", {}).items():
        yield module.replace("_", "-"), error


def _torch_notes(facts: Facts) -> Iterator[str]:
    if facts.gpus and facts.went_well("torch") and not facts.trials["torch"].facts["gpu"]:
        cuda = facts.trials["torch"].facts["cuda"]
        built = f"is built for CUDA {cuda}" if cuda else "is a build for CPUs"
        yield f"torch {facts.libraries['torch']} sees no GPU, it {built}; it works on the CPU"
