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
    rows.append(("providers", ", ".join(info["providers"])))
    rows.append(("placement", info["placement"]))
    if info["degraded"]:
        rows.append(("degraded", info["degraded"]))
    rows.append(("threads", str(info["threads"])))
    rows.append(("onnxruntime", str(info["onnxruntime"])))
    rows.append(("load, warm-up", f"{info['load_ms']:.0f} ms, {info['warm_up_ms']:.0f} ms"))
    return rows


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
