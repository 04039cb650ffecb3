from __future__ import annotations

from sshr_deploy.benchmarks.report.machine import machine_line
from sshr_deploy.benchmarks.report.recorder import Recorder
from sshr_deploy.benchmarks.report.records import Gpu, Load


def test_the_machine_is_told_with_what_else_it_did() -> None:
    found = Recorder("latency", None, {}).document
    environment = found.environment.model_copy(
        update={
            "processor": "A CPU",
            "cores": 2,
            "gpus": (Gpu(name="A GPU", driver=None, memory_mib=None),),
        }
    )
    load = Load(before=0.3, after=1.94, other_work=0.021)
    document = found.model_copy(update={"environment": environment, "load": load})
    told = "A CPU, 2 cores, A GPU, 1 thread, load 0.3 to 1.9, other work 2%"
    assert machine_line(document, 1) == told
    unknown = document.model_copy(update={"load": Load(before=None, after=None, other_work=None)})
    assert machine_line(unknown) == "A CPU, 2 cores, A GPU"
