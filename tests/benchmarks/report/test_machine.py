from __future__ import annotations

from sshr_deploy.benchmarks.report.machine import machine_line
from sshr_deploy.benchmarks.report.recorder import Recorder
from sshr_deploy.benchmarks.report.records import Clocks, Gpu, Load
from tests.benchmarks.report.documents import make_document


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


def test_clocks_are_told_where_they_are_known() -> None:
    before = Clocks(cpu_mhz=2400.0, governor="powersave", gpu_sm_mhz=(210,), gpu_memory_mhz=(5,))
    after = before.model_copy(update={"cpu_mhz": 3104.0, "gpu_sm_mhz": (1980, None)})
    load = Load(before=None, after=None, other_work=None, clocks_before=before, clocks_after=after)
    told = machine_line(make_document([], load=load))
    assert told == (
        "A processor, 2 cores, 2.40 to 3.10 GHz, governor powersave, GPU clock 1980 MHz"
    )
    alone = load.model_copy(update={"clocks_after": None})
    assert "2.40 GHz" in machine_line(make_document([], load=alone))
    none = before.model_copy(update={"cpu_mhz": None, "governor": None, "gpu_sm_mhz": ()})
    untold = load.model_copy(update={"clocks_before": none, "clocks_after": none})
    assert machine_line(make_document([], load=untold)) == "A processor, 2 cores"
