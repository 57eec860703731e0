"""NVIDIA GPUs and their driver, as far as they can be seen without a CUDA library."""

import ctypes
from collections.abc import Mapping
from pathlib import Path

_CONTAINER = (
    "in a container, start it with access to the GPU (docker run --gpus all; podman run --device nvidia.com/gpu=all; "
    "nvidia.com/gpu on Kubernetes)"
)


def why_hidden(environ: Mapping[str, str]) -> str | None:
    """Why the environment shows no GPU to this process, whatever the machine has; None where it does not say so."""
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    # CUDA reads the list up to the first entry that is no device.
    if visible is not None and visible.split(",")[0].strip() in ("", "-1", "NoDevFiles", "none", "void"):
        return f"CUDA_VISIBLE_DEVICES={visible!r} hides every GPU: unset it, or name one"
    # NVIDIA_VISIBLE_DEVICES speaks to the container's runtime: it is `void` in containers that get their GPUs by CDI.
    return None


def why_no_gpu(environ: Mapping[str, str], root: Path = Path("/")) -> str | None:
    """Why no NVIDIA GPU is seen, by what the driver leaves in the file system; None when there is one."""
    hidden = why_hidden(environ)
    if hidden is not None:
        return hidden
    seen = [*root.glob("proc/driver/nvidia/gpus/*"), *root.glob("dev/nvidia[0-9]*")]
    if seen or ((root / "dev/dxg").exists() and (root / "usr/lib/wsl/lib/libcuda.so.1").exists()):
        return None
    return "this machine shows no NVIDIA GPU"


def why_no_device(environ: Mapping[str, str], cuda_major: int | None) -> str | None:
    """Why CUDA has no device here, by asking the driver; None when it has.

    cuda_major: what the provider was built with; a driver may be too old for it.
    """
    hidden = why_hidden(environ)
    if hidden is not None:
        return f"no device: {hidden}"
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        if not str(error).startswith("libcuda.so.1: cannot open"):
            return f"the NVIDIA driver's library cannot be loaded ({error})"
        machine = "" if why_no_gpu(environ) is None else ", and this machine shows no NVIDIA GPU"
        return f"no NVIDIA driver: libcuda.so.1 was not found{machine}. Install the driver or, {_CONTAINER}"
    code = driver.cuInit(0)
    if code in (0, 100):  # 100: no device
        count = ctypes.c_int(0)
        if code == 100 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0:
            named = environ.get("CUDA_VISIBLE_DEVICES")
            among = "" if named is None else f" among CUDA_VISIBLE_DEVICES={named}"
            return f"no device: the NVIDIA driver is there, but shows no GPU{among}. I{_CONTAINER[1:]}"
    else:
        return f"the NVIDIA driver does not start (cuInit returned {code}): see whether nvidia-smi works"
    version = ctypes.c_int(0)
    if cuda_major is not None and driver.cuDriverGetVersion(ctypes.byref(version)) == 0:
        major, minor = version.value // 1000, version.value % 1000 // 10
        if major < cuda_major:
            return f"the NVIDIA driver knows CUDA up to {major}.{minor}, but CUDA {cuda_major} is needed: update the driver"
    return None
