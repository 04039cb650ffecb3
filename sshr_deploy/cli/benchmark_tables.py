"""Tables of `sshr-deploy benchmark`, on stdout; see `robustness_tables` too."""

from __future__ import annotations

from typing import Any

from sshr_deploy.cli.figure_table import print_figures


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
