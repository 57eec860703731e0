"""Execution providers: their names, their options, and what a server wants of each. A table and how settings are read by it.

The names of options are those of ONNX Runtime 1.31, as they stand in its shared libraries and its documentation.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

AUTO = "auto"
"""The best provider that this machine has a device for."""


@dataclass(frozen=True)
class Provider:
    """One execution provider."""

    name: str
    """In our settings."""
    onnx_name: str
    """In ONNX Runtime."""
    options: frozenset[str]
    """Those that a setting may name."""
    defaults: Mapping[str, str] = field(default_factory=dict)
    """Those that a server sets where no setting does."""
    gpu: bool = False
    """It runs on an NVIDIA GPU."""
    title: str = ""
    """In sentences."""
    install: str = ""
    """What to do where ONNX Runtime has no such provider."""


_CUDA_OPTIONS = (
    *("device_id", "gpu_mem_limit", "arena_extend_strategy", "cudnn_conv_algo_search", "cudnn_conv_use_max_workspace"),
    *("cudnn_conv1d_pad_to_nc1d", "do_copy_in_default_stream", "enable_cuda_graph", "tunable_op_enable"),
    *("tunable_op_tuning_enable", "tunable_op_max_tuning_duration_ms", "enable_skip_layer_norm_strict_mode"),
    *("prefer_nhwc", "use_ep_level_unified_stream", "use_tf32", "fuse_conv_bias", "sdpa_kernel"),
    "external_data_loader_reading_threads",
)
_TENSORRT_OPTIONS = (
    *("device_id", "trt_max_partition_iterations", "trt_min_subgraph_size", "trt_max_workspace_size"),
    *("trt_fp16_enable", "trt_bf16_enable", "trt_int8_enable", "trt_int8_calibration_table_name"),
    *("trt_int8_use_native_calibration_table", "trt_dla_enable", "trt_dla_core", "trt_dump_subgraphs"),
    *("trt_engine_cache_enable", "trt_engine_cache_path", "trt_engine_cache_prefix", "trt_engine_hw_compatible"),
    *("trt_weight_stripped_engine_enable", "trt_onnx_model_folder_path", "trt_timing_cache_enable"),
    *("trt_timing_cache_path", "trt_force_timing_cache", "trt_force_sequential_engine_build"),
    *("trt_context_memory_sharing_enable", "trt_layer_norm_fp32_fallback", "trt_detailed_build_log"),
    *("trt_build_heuristics_enable", "trt_builder_optimization_level", "trt_auxiliary_streams"),
    *("trt_tactic_sources", "trt_sparsity_enable", "trt_extra_plugin_lib_paths", "trt_profile_min_shapes"),
    *("trt_profile_opt_shapes", "trt_profile_max_shapes", "trt_cuda_graph_enable", "trt_preview_features"),
    *("trt_dump_ep_context_model", "trt_ep_context_file_path", "trt_ep_context_embed_mode"),
    *("trt_load_user_initializer", "trt_op_types_to_exclude"),
)
# Those of OpenVINO's plugin. Of the older build's it takes only the last two, and passes over the others without a word:
# they are given to OpenVINO as its own properties, which it does check.
_OPENVINO_OPTIONS = (
    *("device_type", "precision", "num_of_threads", "num_streams", "cache_dir", "load_config", "reshape_input"),
)

_NOT_HERE = {
    ("tensorrt", "trt_cuda_graph_enable"): (
        "TensorRT captures whatever run comes first, and repeats it with that run's inputs for those that follow. Leave it "
        "out: --cuda-graphs captures on the provider cuda"
    )
}
"""Options that may only be off, and why."""

_GPU_WHEEL = "Put the GPU build in its place: pip uninstall onnxruntime; pip install 'onnxruntime-gpu[cuda,cudnn]'"

PROVIDERS: dict[str, Provider] = {
    each.name: each
    for each in (
        Provider("cpu", "CPUExecutionProvider", frozenset(), title="the CPU"),
        Provider(
            "cuda",
            "CUDAExecutionProvider",
            frozenset(_CUDA_OPTIONS),
            {
                # EXHAUSTIVE, the default, searches anew for each new shape: 634 ms a shape, where this takes 2.
                "cudnn_conv_algo_search": "HEURISTIC",
                # By powers of two the arena may hold twice of what is used.
                "arena_extend_strategy": "kSameAsRequested",
                # In TF32 an answer is off by 0.001 of a value, and depends on its company: some sizes of batches use it.
                "use_tf32": "0",
            },
            gpu=True,
            title="CUDA",
            install=_GPU_WHEEL,
        ),
        Provider(
            "tensorrt",
            "TensorrtExecutionProvider",
            frozenset(_TENSORRT_OPTIONS),
            gpu=True,
            title="TensorRT",
            install=_GPU_WHEEL,
        ),
        Provider(
            "openvino",
            "OpenVINOExecutionProvider",
            frozenset(_OPENVINO_OPTIONS),
            # Where a CPU has bfloat16, OpenVINO would use it: answers then differ by up to 1 % from those of the CPU.
            {"device_type": "CPU", "precision": "FP32", "num_streams": "1"},
            title="OpenVINO",
            install="Add the plugin: pip install onnxruntime-ep-openvino",
        ),
    )
}
"""By name."""


def parse_list(text: str) -> list[str]:
    """Providers from `cuda,cpu`, best first; ValueError that names the nearest for one that there is not."""
    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    known = [AUTO, *PROVIDERS]
    if not names:
        raise ValueError(f"expected one or more of {', '.join(known)}, separated by commas")
    for name in names:
        if name not in known:
            raise ValueError(
                f"there is no provider {name!r}{_nearest(name, known)}: expected one of {', '.join(known)}"
            )
    if AUTO in names and len(names) > 1:
        raise ValueError(f"{AUTO} stands alone: it chooses among all")
    if len(set(names)) != len(names):
        raise ValueError("a provider is named twice")
    return names


def parse_options(text: str) -> dict[str, dict[str, str]]:
    """Options by provider, from `cuda.use_tf32=0; tensorrt.trt_fp16_enable=1`; ValueError that says what is wrong."""
    options: dict[str, dict[str, str]] = {}
    for part in filter(None, map(str.strip, text.split(";"))):
        key, equals, value = part.partition("=")
        provider_name, dot, name = key.strip().partition(".")
        if not equals or not dot or not value.strip():
            raise ValueError(f"{part!r}: expected PROVIDER.OPTION=VALUE, several separated by semicolons")
        provider = PROVIDERS.get(provider_name)
        if provider is None:
            raise ValueError(f"there is no provider {provider_name!r}{_nearest(provider_name, list(PROVIDERS))}")
        if name not in provider.options:
            known = sorted(provider.options)
            if not known:
                raise ValueError(f"the provider {provider_name} has no options")
            hint = _nearest(name, known) or f": it has {', '.join(known)}"
            raise ValueError(f"{provider_name} has no option {name!r}{hint}")
        if (why_not := _NOT_HERE.get((provider_name, name))) and value.strip().lower() not in ("0", "false"):
            raise ValueError(f"{part!r}: {why_not}")
        options.setdefault(provider_name, {})[name] = value.strip()
    return options


def options_of(provider: Provider, given: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """What to open a session with: what is given, over what a server wants."""
    return {**provider.defaults, **given.get(provider.name, {})}


def _nearest(name: str, known: Sequence[str]) -> str:
    found = difflib.get_close_matches(name, known, 1)
    return f" (did you mean {found[0]!r}?)" if found else ""
