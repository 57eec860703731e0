"""What the driver says of this server's GPUs, through nvidia-ml-py.

A thread of its own asks every few seconds and leaves what it heard behind; whoever wants it takes it from there, and waits
for nobody. Each quantity is asked for by itself: a part of a GPU, a virtual one and an old driver know some and not others.

    python -I -m scoring_runtime.telemetry.nvml      prints the UUIDs of all GPUs, one a line
"""

import importlib.util
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

logger = logging.getLogger("scoring_runtime.gpus")

POLL_S = 2.0
STALE_S = 10.0
"""Readings older than this are not told: the driver hangs, and what it said last is not how things are."""

CLOSE_S = 0.5
LIST_TIMEOUT_S = 10.0

INSTALL = "pip install 'scoring-runtime[gpu]'"


class Reading(NamedTuple):
    """One value of one GPU."""

    name: str
    """In FAMILIES."""
    uuid: str
    value: float
    label: str = ""
    """A further label, as text of the form `name="value"`."""


FAMILIES = {
    # These are Triton's, names and units.
    "nv_gpu_utilization": ("gauge", "Part of the time in which the GPU computed, from 0 to 1."),
    "nv_gpu_memory_total_bytes": ("gauge", "Memory of the GPU."),
    "nv_gpu_memory_used_bytes": ("gauge", "Memory of the GPU that is in use, by whomever."),
    "nv_gpu_power_usage": ("gauge", "Power that the GPU draws, in watts."),
    "nv_gpu_power_limit": ("gauge", "Power that the GPU may draw, in watts."),
    "nv_energy_consumption": ("counter", "Energy that the GPU has used since its driver was loaded, in joules."),
    # These are ours, in the same style.
    "nv_gpu_temperature_celsius": ("gauge", "Temperature of the GPU."),
    "nv_gpu_sm_clock_mhz": ("gauge", "Clock of the multiprocessors."),
    "nv_gpu_memory_clock_mhz": ("gauge", "Clock of the memory."),
    "nv_gpu_throttle_reason": ("gauge", "1 when this holds the clocks down."),
    "nv_gpu_ecc_errors": ("counter", "Errors of the memory since the driver was loaded."),
}
"""Every metric: its type and its help text."""

_THROTTLE_REASONS = {
    "gpu_idle": 0x1,
    "application_clocks": 0x2,
    "sw_power_cap": 0x4,
    "hw_slowdown": 0x8,
    "sync_boost": 0x10,
    "sw_thermal": 0x20,
    "hw_thermal": 0x40,
    "hw_power_brake": 0x80,
    "display_clocks": 0x100,
}

_Values = Iterable[tuple[str, float, str]]


# What is asked for, one by one: `nvml` is the library, `gpu` its handle of a GPU.


def _utilization(nvml: Any, gpu: Any) -> _Values:
    yield "nv_gpu_utilization", nvml.nvmlDeviceGetUtilizationRates(gpu).gpu / 100, ""


def _memory(nvml: Any, gpu: Any) -> _Values:
    memory = nvml.nvmlDeviceGetMemoryInfo(gpu)
    yield "nv_gpu_memory_total_bytes", memory.total, ""
    yield "nv_gpu_memory_used_bytes", memory.used, ""


def _power(nvml: Any, gpu: Any) -> _Values:
    yield "nv_gpu_power_usage", nvml.nvmlDeviceGetPowerUsage(gpu) / 1000, ""


def _power_limit(nvml: Any, gpu: Any) -> _Values:
    yield "nv_gpu_power_limit", nvml.nvmlDeviceGetPowerManagementLimit(gpu) / 1000, ""


def _energy(nvml: Any, gpu: Any) -> _Values:
    yield "nv_energy_consumption", nvml.nvmlDeviceGetTotalEnergyConsumption(gpu) / 1000, ""


def _temperature(nvml: Any, gpu: Any) -> _Values:
    yield "nv_gpu_temperature_celsius", nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU), ""


def _sm_clock(nvml: Any, gpu: Any) -> _Values:
    yield "nv_gpu_sm_clock_mhz", nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM), ""


def _memory_clock(nvml: Any, gpu: Any) -> _Values:
    yield "nv_gpu_memory_clock_mhz", nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_MEM), ""


def _throttling(nvml: Any, gpu: Any) -> _Values:
    try:
        reasons = nvml.nvmlDeviceGetCurrentClocksEventReasons(gpu)
    except nvml.NVMLError_FunctionNotFound:  # a driver before 535 has it under its first name
        reasons = nvml.nvmlDeviceGetCurrentClocksThrottleReasons(gpu)
    for name, bit in _THROTTLE_REASONS.items():
        yield "nv_gpu_throttle_reason", float(bool(reasons & bit)), f'reason="{name}"'


def _ecc(nvml: Any, gpu: Any) -> _Values:
    for name, kind in (
        ("corrected", nvml.NVML_MEMORY_ERROR_TYPE_CORRECTED),
        ("uncorrected", nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED),
    ):
        count = nvml.nvmlDeviceGetTotalEccErrors(gpu, kind, nvml.NVML_VOLATILE_ECC)
        yield "nv_gpu_ecc_errors", count, f'kind="{name}"'


_QUERIES: dict[str, Callable[[Any, Any], _Values]] = {
    "utilization": _utilization,
    "memory": _memory,
    "power": _power,
    "power limit": _power_limit,
    "energy": _energy,
    "temperature": _temperature,
    "SM clock": _sm_clock,
    "memory clock": _memory_clock,
    "throttle reasons": _throttling,
    "ECC errors": _ecc,
}


class Unavailable(Exception):
    """There are no GPU metrics at all; the text says why, and what would help."""


class GpuMonitor:
    """Asks for the metrics of some GPUs, in a thread of its own.

    choose: from the UUIDs of all GPUs, by PCI address, those to ask about; an identifier of a part of a GPU may be among
    them.
    """

    def __init__(self, choose: Callable[[Sequence[str]], Sequence[str]], poll_s: float = POLL_S) -> None:
        self._choose = choose
        self._poll_s = poll_s
        self._readings: tuple[Reading, ...] = ()
        self._heard_at = time.monotonic()
        self._hangs = False
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gpus", daemon=True)  # it may never come back
        self._thread.start()

    def readings(self) -> tuple[Reading, ...]:
        """What was heard last; nothing when that was too long ago. Never waits. For one thread."""
        silent_s = time.monotonic() - self._heard_at
        stale = silent_s > STALE_S + self._poll_s
        hangs = stale and self._thread.is_alive()
        if hangs and not self._hangs:
            logger.warning(
                "The driver of the GPUs has not answered for %.0f s: there are no GPU metrics until it does.", silent_s
            )
        self._hangs = hangs
        return () if stale else self._readings

    def close(self) -> None:
        """Ask no more. Waits for a moment only: a call that hangs is left behind, and ends with the process."""
        self._closing.set()
        self._thread.join(CLOSE_S)

    # In the thread

    def _run(self) -> None:
        try:
            nvml = _open()
            gpus = _handles(nvml, self._choose(_uuids(nvml)))
            if not gpus:
                raise Unavailable("the driver shows none of the GPUs that this server may use")
        except Unavailable as reason:
            logger.info("There are no GPU metrics: %s.", reason)
            return
        asked = [(uuid, gpu, what) for uuid, gpu in gpus for what in _QUERIES]
        told: set[tuple[str, str]] = set()
        while not self._closing.is_set():
            readings: list[Reading] = []
            failures: dict[tuple[str, str, str], Exception] = {}
            for uuid, gpu, what in asked:
                try:
                    readings += [Reading(name, uuid, value, label) for name, value, label in _QUERIES[what](nvml, gpu)]
                except (nvml.NVMLError, AttributeError) as error:  # AttributeError: this nvidia-ml-py does not know it
                    failures[uuid, what, _reason(nvml, error)] = error
            self._readings = tuple(readings)
            self._heard_at = time.monotonic()
            for_ever = {(uuid, what) for (uuid, what, _), error in failures.items() if _is_final(nvml, error)}
            asked = [each for each in asked if (each[0], each[2]) not in for_ever]
            news = [key for key in failures if key[:2] not in told]
            told |= {key[:2] for key in news}
            if news:
                logger.info("GPU metrics that cannot be had: %s.", _list_failures(news))
            self._closing.wait(self._poll_s)


def _open() -> Any:
    """The library, ready to be asked; Unavailable when there is none."""
    try:
        import pynvml
    except ImportError:
        raise Unavailable(f"nvidia-ml-py is not installed: {INSTALL}") from None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError_LibraryNotFound:
        raise Unavailable(
            "libnvidia-ml.so.1 was not found: it comes with NVIDIA's driver, and into a container with "
            "NVIDIA_DRIVER_CAPABILITIES=compute,utility"
        ) from None
    except pynvml.NVMLError_DriverNotLoaded:
        raise Unavailable("NVIDIA's driver is not loaded: nvidia-smi says more") from None
    except pynvml.NVMLError as error:
        raise Unavailable(f"the driver does not let itself be asked ({error}): nvidia-smi says more") from None
    return pynvml


def _uuids(nvml: Any) -> list[str]:
    """Of all GPUs, by PCI address. One that has fallen off its bus is passed over; Unavailable when nothing can be had."""
    found = []
    try:
        for index in range(nvml.nvmlDeviceGetCount()):
            try:
                found.append(str(nvml.nvmlDeviceGetUUID(nvml.nvmlDeviceGetHandleByIndex(index))))
            except nvml.NVMLError as error:
                logger.warning("GPU %d does not answer (%s): nvidia-smi says more.", index, error)
    except nvml.NVMLError as error:
        raise Unavailable(f"the driver does not list its GPUs ({error}): nvidia-smi says more") from None
    return found


def _handles(nvml: Any, uuids: Iterable[str]) -> list[tuple[str, Any]]:
    handles = []
    for uuid in uuids:
        try:
            handles.append((uuid, nvml.nvmlDeviceGetHandleByUUID(uuid)))
        except nvml.NVMLError as error:
            logger.info("There are no metrics of GPU %s: %s.", uuid, _reason(nvml, error))
    return handles


def _is_final(nvml: Any, error: Exception) -> bool:
    """It is of no use to ask again."""
    for_ever = (nvml.NVMLError_NotSupported, nvml.NVMLError_NoPermission, nvml.NVMLError_FunctionNotFound)
    return isinstance(error, (AttributeError, *for_ever))


def _reason(nvml: Any, error: Exception) -> str:
    if isinstance(error, nvml.NVMLError_NotSupported):
        return "not supported by this GPU, or not for a part of it"
    if isinstance(error, nvml.NVMLError_NoPermission):
        return "not permitted to this user"
    if isinstance(error, nvml.NVMLError_FunctionNotFound):
        return "not known to this driver, a newer one may"
    if isinstance(error, AttributeError):
        return "not known to this nvidia-ml-py, a newer one may"
    return str(error)


def _list_failures(failures: Sequence[tuple[str, str, str]]) -> str:
    """By reason: `energy of GPU-1, GPU-2 (not known to this driver)`."""
    gpus: dict[tuple[str, str], list[str]] = {}
    for uuid, what, reason in failures:
        gpus.setdefault((what, reason), []).append(uuid)
    return "; ".join(f"{what} of {', '.join(uuids)} ({reason})" for (what, reason), uuids in gpus.items())


# What others ask


def render(readings: Sequence[Reading]) -> bytes:
    """Prometheus text. Written here, because the client library would call the counters `..._total`: Triton does not."""
    return "".join(_lines(readings)).encode()


def _lines(readings: Sequence[Reading]) -> Iterator[str]:
    for name, (kind, text) in FAMILIES.items():
        those = [reading for reading in readings if reading.name == name]
        if those:
            yield f"# HELP {name} {text}\n# TYPE {name} {kind}\n"
        for reading in those:
            labels = ",".join(filter(None, (f'gpu_uuid="{reading.uuid}"', reading.label)))
            yield f"{name}{{{labels}}} {float(reading.value)}\n"


def list_uuids(timeout_s: float = LIST_TIMEOUT_S) -> list[str]:
    """UUIDs of all GPUs, by PCI address; none when they cannot be had in time.

    In a process of its own: the library is not made to be there before a fork, and may hang.
    """
    if importlib.util.find_spec("pynvml") is None:
        return []
    command = (sys.executable, "-I", "-m", "scoring_runtime.telemetry.nvml")
    try:
        ended = subprocess.run(command, env=os.environ, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        logger.warning("The driver of the GPUs did not list them within %g s: none is used by name.", timeout_s)
        return []
    return ended.stdout.split()


def _print_uuids() -> int:
    try:
        found = _uuids(_open())
    except Unavailable as reason:
        sys.stderr.write(f"{reason}\n")
        return 1
    sys.stdout.write("".join(f"{uuid}\n" for uuid in found))
    return 0


if __name__ == "__main__":
    raise SystemExit(_print_uuids())
