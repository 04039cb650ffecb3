"""Tables of `sshr-deploy benchmark`, on stdout; see `robustness_tables` too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

_HFRM_HEADINGS = (
    *("level", "plain ms", "p25-p75 ms", "pooled ms", "p25-p75 ms", "plain / pooled"),
)
_STEP_HEADINGS = {
    "median_ms": "p50 ms",
    "p25_ms": "p25-p75 ms",
    "patches_per_s": "patches/s",
    "gflop_per_s": "GFLOP/s",
    "speed_up": "speed-up",
    "peak_memory_mb": "peak memory MB",
}


_KERNEL_HEADINGS = {
    "median_ms": "p50 ms",
    "p25_ms": "p25-p75 ms",
    "p95_ms": "p95 ms",
    "tflop_per_s": "TFLOP/s",
    "gb_per_s": "GB/s",
    "share_of_floor": "floor / time",
    "relative_rms_error": "error",
}

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


def print_kernels(report: dict[str, Any]) -> None:
    """A table by type and size, below what the device reached on copies and products."""
    from sshr_deploy.cli.terminal import stdout_console

    console = stdout_console()
    ceilings = ", ".join(
        f"{dtype} products {ceiling['product_tflop_per_s']:.0f} TFLOP/s"
        for dtype, ceiling in report["ceilings"].items()
    )
    copy = next(iter(report["ceilings"].values()))["copy_gb_per_s"]
    console.print(f"{report['device']}: copies {copy:.0f} GB/s, {ceilings}")
    sizes: dict[str, list[list[Any]]] = {}
    for row in (row for row in report["rows"] if "failed" not in row):
        size = f"{row['dtype']}, {row['batch']} x {' x '.join(map(str, row['shape']))}"
        figures = (
            _quartiles(row) if key == "p25_ms" else row.get(key, "-") for key in _KERNEL_HEADINGS
        )
        sizes.setdefault(size, []).append([row["form"], *figures])
    for size, rows in sizes.items():
        _print_table(console, size, ["form", *_KERNEL_HEADINGS.values()], rows)


def print_int8(report: dict[str, Any]) -> None:
    """The report as a table on stdout."""
    from rich.table import Table

    from sshr_deploy.benchmarks.environment import machine_text
    from sshr_deploy.cli.tables import print_table
    from sshr_deploy.cli.terminal import stdout_console
    from sshr_deploy.runtime.machine.spread import ratio_text, refusals

    console = stdout_console()
    console.print(
        f"width {report['width']}, {report['scheme']}, ranges by {report['range_method']}, "
        f"on {machine_text(report['environment'], report['cpu_threads'])}"
    )
    headings = ["network", "p50 ms", "p25-p75 ms", "x fp32", "x PyTorch", "agreement", "CAM error"]
    with_truth = any(row["qualification"]["iou"] is not None for row in report["rows"])
    table = Table(*headings, *["mean IoU"] * with_truth)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in report["rows"]:
        found = row["qualification"]
        table.add_row(
            row["name"],
            f"{row['median_ms']:.1f}",
            f"{row['p25_ms']:.1f}-{row['p75_ms']:.1f}",
            ratio_text(row["times_fp32"]),
            ratio_text(row["times_pytorch"]),
            f"{found['mask_agreement']:.3%}",
            f"{max(found['cam_relative_error'].values()):.1e}",
            *([f"{found['iou']['mean_iou']:.4f}"] if found["iou"] else [""] * with_truth),
        )
    print_table(console, table)
    for reason in refusals(report["rows"]):
        console.print(f"not reported: {reason}")
    console.print(f"compared on {report['patches']} patches of {report['source']}", markup=False)
    kept = ", ".join(report["kept"])
    if kept:
        console.print(f"int8 mix keeps {kept} in FP32", markup=False)


def print_training(report: dict[str, Any]) -> None:
    """HFRM with its heads, whole steps, and how far each variant is from the published one."""
    from sshr_deploy.benchmarks.environment import machine_text
    from sshr_deploy.cli.terminal import stdout_console
    from sshr_deploy.runtime.machine.spread import refusals

    console = stdout_console()
    settings, hfrm, steps = report["settings"], report["hfrm"], report["steps"]
    console.print(
        f"{report['device']}, {machine_text(report['environment'], report['cpu_threads'])}, "
        f"torch {report['environment']['libraries']['torch']}, width {settings['width']}, "
        f"{settings['classes']} classes, {settings['batch']} patches a step, medians of "
        f"{settings['rounds']}"
    )
    rows = []
    for name in ("f56", "f28_1", "f28_2", "all"):
        plain, pooled = (hfrm[f"{name} {form}"] for form in ("plain", "pooled"))
        times = (x for row in (plain, pooled) for x in (row["median_ms"], _quartiles(row)))
        rows.append([name, *times, pooled["speed_up"]])
    _print_table(console, "HFRM + heads, forward and backward", _HFRM_HEADINGS, rows)
    measured = [key for key in _STEP_HEADINGS if key in steps["published"]]
    rows = [
        [name, *(_quartiles(row) if key == "p25_ms" else row[key] for key in measured)]
        for name, row in steps.items()
    ]
    headings = ["variant", *(_STEP_HEADINGS[key] for key in measured)]
    _print_table(console, "whole step", headings, rows)
    for reason in refusals([*hfrm.values(), *steps.values()]):
        console.print(f"not reported: {reason}")
    for name, errors in report["agreement"].items():
        console.print(
            f"{name}, relative RMS error against published: logits {errors['logits']:.1e}, "
            f"gradients {errors['gradients']:.1e}, the worst {errors['worst_gradient']:.1e} "
            f"({errors['worst_tensor']})"
        )


def _print_table(
    console: Console,
    title: str,
    headings: Sequence[str],
    rows: Sequence[Sequence[str | float | None]],
) -> None:
    """None stands for a ratio that is not reported."""
    from rich.table import Table

    from sshr_deploy.cli.tables import print_table

    table = Table(*headings)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, *figures in rows:
        table.add_row(str(name), *map(_shown, figures))
    console.print(title)
    print_table(console, table)


def _shown(figure: str | float | None) -> str:
    if figure is None:
        return "not reported"
    if isinstance(figure, str):
        return figure
    return f"{figure:.0f}" if figure >= 1000 else f"{figure:.3g}" if figure < 1 else f"{figure:.2f}"


def _quartiles(row: Mapping[str, float]) -> str:
    return f"{_shown(row['p25_ms'])}-{_shown(row['p75_ms'])}"
