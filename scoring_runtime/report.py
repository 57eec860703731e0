"""What `check` prints about a target that has loaded. Pure."""

from typing import Any

from .target import Target


def render(target: Target, info: dict[str, Any]) -> str:
    """The report, for a person. `info` is what the scorer said when it was ready."""
    rows = [("target", str(target.path)), ("name", info.get("name", target.name)), ("engine", target.engine)]
    rows += _onnx_rows(info) if target.engine == "onnx" else _script_rows(info)
    width = max(len(label) for label, _ in rows)
    return "\n".join(f"{label:<{width}}  {text}" for label, text in rows)


def _onnx_rows(info: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [("input", _tensor(tensor)) for tensor in info["inputs"]]
    rows += [("output", _tensor(tensor)) for tensor in info["outputs"]]
    if info["batchable"]:
        batching = f"yes: proved at warm-up{_within(info['tolerance'])}"
    else:
        batching = f"no: {info['why_not_batchable']}"
    rows.append(("batchable", batching))
    if info["batchable"]:
        rows.append(("stacking", _stacking(info["rows_per_run"], info["stacking_gain"])))
        rows.append(("ragged", _ragged(info["ragged"])))
    rows.append(("providers", ", ".join(info["providers"])))
    rows.append(("placement", info["placement"]))
    if info["degraded"]:
        rows.append(("degraded", info["degraded"]))
    if info.get("building"):
        rows.append(("building", str(info["building"])))
    rows.append(("threads", str(info["threads"])))
    if info.get("buckets"):
        rows.append(("buckets", _buckets(info["buckets"])))
        why = info.get("why_no_cuda_graphs")
        captured = sum(bucket["way"] == "graph" for bucket in info["buckets"])
        rows.append(("CUDA graphs", f"none: {why}" if why else f"{captured} of {len(info['buckets'])} buckets"))
    rows.append(("model cache", _CACHED.get(info["optimized_cache"], info["optimized_cache"])))
    rows.append(("onnxruntime", str(info["onnxruntime"])))
    rows.append(("load, warm-up", f"{info['load_ms']:.0f} ms, {info['warm_up_ms']:.0f} ms"))
    return rows


def _buckets(buckets: list[dict[str, Any]]) -> str:
    """Sizes, and the way in which each runs."""
    return ", ".join(f"{bucket['rows']} {bucket['way']} ({bucket['ms']:.3g} ms)" for bucket in buckets)


_CACHED = {"hit": "optimised before", "stored": "optimised now, and kept for the next start"}


def _stacking(rows: int | None, gain: float | None) -> str:
    """How many rows share a run, and why."""
    if rows is None:
        return "begins with single rows: warm-up could not measure larger runs, requests will show whether they pay"
    if rows > 1:
        return f"stacks up to {rows} rows" + (f": {gain:.2g}x the throughput of single runs" if gain else "")
    if gain is None:
        return "runs rows one by one: --max-batch-size is 1"
    if gain < 1:
        return f"runs rows one by one: stacking makes them slower ({gain:.2g}x)"
    return f"runs rows one by one: stacking gains nothing ({gain:.2g}x)"


def _ragged(why: bool | str) -> str:
    if why is True:
        return "yes: requests of different lengths are padded to share runs, proved at warm-up"
    return f"no: {why}; requests share runs with those of their shape"


def _within(tolerance: dict[str, float] | None) -> str:
    """The tolerance of float32 outputs, in words."""
    if not tolerance:
        return ""
    return f", within {tolerance['relative']:g} of a value or {tolerance['of_largest']:g} of the largest one"


def _script_rows(info: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        ("python", str(info["python"])),
        ("run() takes", f"{', '.join(info['arguments'])} ({info['mode']} mode)"),
        ("init()", f"{info['init_ms']:.0f} ms"),
        ("batchable", "no: run() takes one request; requests share the transport and run one after the other"),
    ]


def _tensor(tensor: dict[str, Any]) -> str:
    shape = ", ".join("?" if size is None else str(size) for size in tensor["shape"])
    return f"{tensor['name']}: {tensor['dtype']}[{shape}]"
