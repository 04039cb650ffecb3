"""The report of `gpu.check` in lines for a terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

from sshr_deploy.geometry import PATCH_PX
from sshr_deploy.runtime.machine.spread import ratio_of, ratio_text

_Rows = Sequence[dict[str, Any]]


def table(report: dict[str, Any]) -> list[str]:
    """The figures that the aims are stated in, a line each; what failed comes last."""
    lines = [f"{report['device']}, {report['measured_utc']}"]
    for name, part in report["parts"].items():
        lines += _LINES.get(name.partition("-")[0], _other_lines)(_measured(part["rows"]))
        lines += [f"not measured, out of time: {what}" for what in part.get("not_measured", ())]
        if "summary" in part:
            lines.append(f"{name}: {part['summary']}")
        if "loaded" in part:
            lines.append(f"{name}: {part['loaded']} load, {part['from']}, by {part['library']}")
        if "partial" in part:
            lines.append(f"{name}: the rows until it {_short(part['partial'])}")
    lines += [f"left out {name}: {reason}" for name, reason in report["left_out"].items()]
    lines += [f"{name}: {file}" for name, file in report.get("documents", {}).items()]
    return lines + [f"FAILED {name}: {reason}" for name, reason in report["failed"].items()]


def _short(reason: str) -> str:
    return reason if reason.startswith("took") else f"failed: {reason}"


def _measured(rows: _Rows) -> _Rows:
    return [row for row in rows if "failed" not in row]


def _network_lines(rows: _Rows) -> list[str]:
    lines = []
    for row in rows:
        share = row.get("share_of_product")
        field = f"of {row['side_px']} px " if row.get("side_px", PATCH_PX) > PATCH_PX else ""
        lines.append(
            f"network {row['precision']} batch {row['batch']:3} {field}{row['form']:9} "
            f"{row['median_ms']:8.3f} ms {row['patches_per_s']:8.1f} patches/s"
            + (f" {row['tflop_per_s']:6.1f} TFLOP/s" if "tflop_per_s" in row else "")
            + (f", {share:.0%} of a matrix product" if share is not None else "")
        )
    return lines


def _kernel_lines(rows: _Rows) -> list[str]:
    sizes: dict[tuple[Any, ...], dict[str, dict[str, Any]]] = {}
    for row in rows:
        key = (row["dtype"], row["batch"], tuple(row["shape"]))
        sizes.setdefault(key, {})[row["form"]] = row
    lines = []
    for (dtype, batch, shape), forms in sizes.items():
        times = " ".join(f"{name} {row['median_ms']:.4f}" for name, row in forms.items())
        line = f"{dtype} {batch:3} x {'x'.join(map(str, shape)):10} ms: {times}"
        if "fused_nhwc" in forms:
            fused = forms["fused_nhwc"]
            gains = " ".join(
                f"x {name}: {ratio_text(_gain(forms[name], fused))}"
                for name in ("plain", "compiled")
                if name in forms
            )
            line += f" | fused_nhwc {gains}, {fused['share_of_floor']:.0%} of the floor"
        lines.append(line)
    return lines


def _gain(other: dict[str, Any], fused: dict[str, Any]) -> float | None:
    return ratio_of(("other", other["samples_ms"]), ("fused", fused["samples_ms"])).value


def _mask_lines(rows: _Rows) -> list[str]:
    return [
        f"cam_to_mask batch {row['batch']:3} {row['form']:8} {row['median_ms']:.4f} ms"
        for row in rows
    ]


def _training_lines(rows: _Rows) -> list[str]:
    whats = [f"training {row['part']}, batch {row['batch']}, {row['form']}" for row in rows]
    return [f"{what:45} {row['median_ms']:9.3f} ms" for what, row in zip(whats, rows, strict=True)]


def _config_lines(rows: _Rows) -> list[str]:
    lines = []
    for row in rows:
        sizes = " ".join(f"{key} {value}" for key, value in row["config"].items())
        result = f"{row['median_ms']:.4f} ms" if "median_ms" in row else row["left_out"]
        lines.append(f"block sizes, batch {row['batch']:3} {sizes}: {result}")
    return lines


def _stream_lines(rows: _Rows) -> list[str]:
    return [
        f"stream {row['stream']}: {row['launches']} launches of its graph, all labels right"
        for row in rows
    ]


def _session_lines(rows: _Rows) -> list[str]:
    return [
        f"{row['form']} batch {row['batch']:3} {row['median_ms']:8.3f} ms, "
        f"{row['patches_per_s']:8.1f} patches/s in a row, "
        f"masks agree on {row['mask_agreement']:.3%}"
        + ("" if row["labels_on_device"] else ", label maps by the processor")
        for row in rows
    ]


def _recipe_lines(rows: _Rows) -> list[str]:
    """Rows of `report.records.Row`, for which pydantic need not be here."""
    return [
        f"recipe {row['name']:15} {row['figures']['median_ms']:9.3f} ms, "
        f"x published: {ratio_text(row['figures']['speed_up'])}"
        for row in rows
        if row["name"].startswith("step")
    ]


def _document_lines(rows: _Rows) -> list[str]:
    """The same, of a bundle: medians, and how well the masks agree."""
    lines = []
    for row in rows:
        agreement, samples = row["agreement"], row["samples"]
        told = f"{median(samples):9.3f} {row['unit']}" if samples else row["not_measured"]
        masks = "" if agreement is None else f", masks agree on {agreement['masks']:.3%}"
        lines.append(f"{row['name']}: {told}{masks}")
    return lines


def _other_lines(rows: _Rows) -> list[str]:
    del rows
    return []


_LINES: dict[str, Callable[[_Rows], list[str]]] = {
    "network": _network_lines,
    "fields": _network_lines,
    "kernels": _kernel_lines,
    "masks": _mask_lines,
    "training": _training_lines,
    "configs": _config_lines,
    "streams": _stream_lines,
    "latency": _document_lines,
    "throughput": _document_lines,
    "sessions": _session_lines,
    "recipes": _recipe_lines,
}
