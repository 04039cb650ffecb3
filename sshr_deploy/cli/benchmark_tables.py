"""Tables of `sshr-deploy benchmark`, on stdout; see `robustness_tables` too."""

from __future__ import annotations

from typing import Any

from sshr_deploy.cli.figure_table import print_figures

_LATENCY_HEADINGS = {
    "median_ms": "p50 ms",
    "p25_ms": "p25-p75 ms",
    "p95_ms": "p95 ms",
    "p99_ms": "p99 ms",
    "patches_per_s": "patches/s",
    "gflop_per_s": "GFLOP/s",
}


def print_latency(report: dict[str, Any]) -> None:
    """The report as a table on stdout."""
    from rich.table import Table

    from sshr_deploy.benchmarks.environment import machine_text
    from sshr_deploy.cli.tables import print_table
    from sshr_deploy.cli.terminal import stdout_console
    from sshr_deploy.runtime.machine.spread import refusals, spread_of

    console = stdout_console()
    engine, cold = report["engine"], report["cold"]
    share_equal = engine["mask_agreement"]
    agreement = "unknown" if share_equal is None else f"{share_equal:.4%}"
    console.print(
        f"{engine['engine']} {engine['precision']} ({engine['library']}), "
        f"width {report['bundle']['width']}, "
        f"on {machine_text(report['environment'], engine['threads'])}"
    )
    for name, reason in engine["rejected"].items():
        console.print(f"not {name}: {reason}", markup=False)
    console.print(
        f"cold start: bundle {cold['load_and_verify_bundle_s']:.2f} s, "
        f"session {cold['open_session_s']:.2f} s, "
        f"first patch {cold['first_patch_s']:.3f} s"
    )
    table = Table("batch", "calls", *_LATENCY_HEADINGS.values(), "agreement")
    for column in table.columns:
        column.justify = "right"
    for row in report["rows"]:
        figures = [f"{row[key]:.1f}" if key in row else "-" for key in _LATENCY_HEADINGS]
        figures[1] += f"-{row['p75_ms']:.1f}"
        table.add_row(str(row["batch"]), str(len(row["samples_ms"])), *figures, agreement)
    print_table(console, table)
    console.print(
        "agreement: share of mask pixels equal to PyTorch's FP32 on the bundle's reference "
        "patches, as found on this machine"
    )
    console.print(_post_processing(report))
    for row in report["rows"]:
        if (busy := spread_of(row["samples_ms"]).busy()) is not None:
            console.print(f"batch {row['batch']}: {busy}; measure again when it is quiet")
    for reason in refusals([report]):
        console.print(f"not reported: {reason}")


def _post_processing(report: dict[str, Any]) -> str:
    from sshr_deploy.runtime.machine.spread import spread_of

    mask_ms, share = spread_of(report["mask_ms_per_patch"]).median_ms, report["mask_share"]
    if report["labels_on_device"]:
        return f"label maps are made on the GPU; the CPU takes {mask_ms:.2f} ms a patch"
    batch = report["rows"][0]["batch"]
    told = "" if share is None else f", {share:.1%} of a call at batch {batch}"
    return f"post-processing: {mask_ms:.2f} ms a patch{told}"


def print_host(report: dict[str, Any]) -> None:
    """A table of the ways, and the cores that the GPU would need."""
    from sshr_deploy.benchmarks.environment import machine_text
    from sshr_deploy.cli.terminal import stdout_console
    from sshr_deploy.errors import counted

    console = stdout_console()
    settings, slides = report["settings"], report["slides"]
    units = sum(slide["units"] for slide in slides)
    what = "patches" if settings["side_px"] == settings["core_px"] else "fields"
    console.print(
        f"{counted(len(slides), 'slide')}, {units} {what} of {settings['side_px']} px, "
        f"{counted(settings['readers'], 'reading thread')}, "
        f"{machine_text(report['environment'], None)}"
    )
    rows = [
        [name, row["units_per_s"], row["of_bound"], 1e3 * row["cpu_s_per_unit"]]
        for name, row in report["rows"].items()
    ]
    headings = ["way", f"{what}/s", "of bound", "CPU ms"]
    title = f"medians of {counted(settings['rounds'], 'run')}"
    print_figures(console, title, headings, rows)
    console.print(
        f"a GPU of {settings['gpu_patches_per_s']:.0f} patches/s needs "
        f"{report['gpu_needs_cores']:.1f} cores of this kind beside it; "
        f"this machine has {report['environment']['cores']}"
    )
