"""GPU metrics: the real nvidia-ml-py over a stub of the driver's library, and the true one where there is one."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from scoring_runtime.telemetry import nvml
from scoring_runtime.telemetry.nvml import FAMILIES, Reading, render

ZERO = "GPU-57AB0000-0000-0000-0000-000000000000"
ONE = "GPU-57AB0001-0000-0000-0000-000000000000"

# Ends when there are readings, when the thread has ended, or when the time is up; then closes, and ends with what it heard.
WATCH = """
import json, logging, sys, time
from scoring_runtime.telemetry import nvml

logging.basicConfig(level="INFO", stream=sys.stderr, format="%(message)s")
if sys.argv[2]:
    nvml.STALE_S = float(sys.argv[2])
chosen = sys.argv[1].split(",") if sys.argv[1] else None
started = time.monotonic()
monitor = nvml.GpuMonitor(lambda uuids: uuids if chosen is None else chosen, poll_s=0.02)
polls, before = 0, None
while time.monotonic() < started + 10 and monitor._thread.is_alive() and polls < 3 and not monitor._hangs:
    monitor.readings()
    if before != monitor._heard_at and monitor._readings:
        polls, before = polls + 1, monitor._heard_at
    time.sleep(0.005)
readings = monitor.readings()
closing = time.monotonic()
monitor.close()
print(json.dumps({"readings": readings, "text": nvml.render(readings).decode(), "closed_s": time.monotonic() - closing}))
"""


class Watched(NamedTuple):
    readings: list[list[Any]]
    text: str
    closed_s: float
    log: str

    def names(self, uuid: str) -> set[str]:
        return {name for name, of, _, _ in self.readings if of == uuid}


Watch = Callable[..., Watched]


@pytest.fixture
def watch(stub_nvml: Callable[..., dict[str, str]]) -> Watch:
    """What a process hears that asks the stub a few times."""

    def run(
        chosen: str = "", stale_s: str = "", driver: dict[str, str] | None = None, old: bool = False, **stub: str
    ) -> Watched:
        environ = stub_nvml(old=old, **stub) if driver is None else driver
        ended = subprocess.run(
            [sys.executable, "-I", "-c", WATCH, chosen, stale_s],
            env={"PATH": os.environ["PATH"], **environ},
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        return Watched(**json.loads(ended.stdout), log=ended.stderr)

    return run


def test_every_metric_of_every_gpu_in_its_unit(watch: Watch):
    heard = watch()

    assert heard.names(ZERO) == heard.names(ONE) == set(FAMILIES)
    values = {(name, label): value for name, uuid, value, label in heard.readings if uuid == ONE}
    reasons = {label: value for (name, label), value in values.items() if name == "nv_gpu_throttle_reason"}
    assert {label for label, value in reasons.items() if value} == {'reason="sw_power_cap"', 'reason="sw_thermal"'}
    assert len(reasons) == 9
    assert {key: value for key, value in values.items() if key[0] != "nv_gpu_throttle_reason"} == {
        ("nv_gpu_utilization", ""): 0.38,
        ("nv_gpu_memory_total_bytes", ""): 8 << 30,
        ("nv_gpu_memory_used_bytes", ""): 3 << 30,
        ("nv_gpu_power_usage", ""): 123.456,
        ("nv_gpu_power_limit", ""): 400,
        ("nv_energy_consumption", ""): 7654.321,
        ("nv_gpu_temperature_celsius", ""): 51,
        ("nv_gpu_sm_clock_mhz", ""): 1410,
        ("nv_gpu_memory_clock_mhz", ""): 1593,
        ("nv_gpu_ecc_errors", 'kind="corrected"'): 5,
        ("nv_gpu_ecc_errors", 'kind="uncorrected"'): 1,
    }
    assert heard.log == ""


def test_only_gpus_that_are_chosen(watch: Watch):
    heard = watch(ONE)

    assert {uuid for _, uuid, _, _ in heard.readings} == {ONE}


def test_one_that_is_not_there_is_said_once_and_the_others_stay(watch: Watch):
    heard = watch(f"MIG-gone,{ONE}")

    assert heard.names(ONE) == set(FAMILIES)
    assert heard.log == "There are no metrics of GPU MIG-gone: Not Found.\n"


def test_an_old_driver_lacks_one_metric_and_has_another_under_its_first_name(watch: Watch):
    heard = watch(old=True)

    assert heard.names(ZERO) == set(FAMILIES) - {"nv_energy_consumption"}
    text = f"GPU metrics that cannot be had: energy of {ZERO}, {ONE} (not known to this driver, a newer one may).\n"
    assert heard.log == text


def test_what_is_not_supported_or_not_permitted_or_fails_is_left_out_and_said_in_one_line(watch: Watch):
    heard = watch(
        GPUS="1",
        FAIL="nvmlDeviceGetPowerUsage=3,nvmlDeviceGetTotalEccErrors=4,nvmlDeviceGetUtilizationRates=999",
    )

    assert set(FAMILIES) - heard.names(ZERO) == {"nv_gpu_power_usage", "nv_gpu_ecc_errors", "nv_gpu_utilization"}
    (line,) = heard.log.splitlines()
    assert f"power of {ZERO} (not supported by this GPU, or not for a part of it)" in line
    assert f"ECC errors of {ZERO} (not permitted to this user)" in line
    assert f"utilization of {ZERO} (Unknown Error)" in line


@pytest.mark.parametrize(
    ("stub", "words"),
    [
        ({"FAIL": "nvmlInitWithFlags=9"}, "NVIDIA's driver is not loaded: nvidia-smi says more"),
        (
            {"FAIL": "nvmlInitWithFlags=18"},
            "does not let itself be asked (RM has detected an NVML/RM version mismatch.)",
        ),
        ({"FAIL": "nvmlDeviceGetCount_v2=999"}, "the driver does not list its GPUs (Unknown Error)"),
        ({"GPUS": "0"}, "the driver shows none of the GPUs that this server may use"),
    ],
)
def test_a_driver_that_cannot_be_asked_is_said_in_one_line(watch: Watch, stub, words):
    heard = watch(**stub)

    assert heard.readings == []
    assert heard.text == ""
    assert heard.log.startswith("There are no GPU metrics: ")
    assert words in heard.log
    assert heard.log.count("\n") == 1


@pytest.mark.skipif(bool(nvml.list_uuids()), reason="this machine has GPUs")
def test_a_machine_without_a_driver_says_where_it_comes_from(watch: Watch):
    heard = watch(driver={})

    assert "libnvidia-ml.so.1 was not found" in heard.log
    assert "NVIDIA_DRIVER_CAPABILITIES=compute,utility" in heard.log


@pytest.mark.parametrize("function", ["nvmlInitWithFlags", "nvmlDeviceGetPowerUsage"])
def test_a_driver_that_hangs_holds_nobody_up(watch: Watch, function):
    heard = watch(stale_s="0.3", HANG=function)

    assert heard.readings == []
    assert re.fullmatch(r"The driver of the GPUs has not answered for \d+ s: there are no GPU metrics .*\n", heard.log)
    assert heard.closed_s < nvml.CLOSE_S + 1


def test_the_text_has_the_names_as_they_are():
    readings = [Reading("nv_energy_consumption", ONE, 1.5), Reading("nv_gpu_ecc_errors", ONE, 2, 'kind="corrected"')]

    assert render(readings).decode().splitlines() == [
        "# HELP nv_energy_consumption Energy that the GPU has used since its driver was loaded, in joules.",
        "# TYPE nv_energy_consumption counter",
        f'nv_energy_consumption{{gpu_uuid="{ONE}"}} 1.5',
        "# HELP nv_gpu_ecc_errors Errors of the memory since the driver was loaded.",
        "# TYPE nv_gpu_ecc_errors counter",
        f'nv_gpu_ecc_errors{{gpu_uuid="{ONE}",kind="corrected"}} 2.0',
    ]


def test_prometheus_reads_the_text(watch: Watch):
    from prometheus_client.parser import text_string_to_metric_families

    heard = watch()
    samples = [sample for family in text_string_to_metric_families(heard.text) for sample in family.samples]

    assert {sample.labels["gpu_uuid"] for sample in samples} == {ZERO, ONE}
    assert len(samples) == len(heard.readings)


def test_a_list_of_all_gpus(stub_nvml, monkeypatch):
    for name, text in stub_nvml(GPUS="3").items():
        monkeypatch.setenv(name, text)

    assert nvml.list_uuids() == [ZERO, ONE, ONE.replace("0001", "0002")]


def test_a_list_that_does_not_come_is_empty(stub_nvml, monkeypatch):
    for name, text in stub_nvml(HANG="nvmlDeviceGetCount_v2").items():
        monkeypatch.setenv(name, text)

    assert nvml.list_uuids(timeout_s=0.5) == []


@pytest.mark.gpu
def test_a_true_gpu_says_something_true(watch: Watch):
    library_path = os.environ.get("LD_LIBRARY_PATH")
    heard = watch(driver={} if library_path is None else {"LD_LIBRARY_PATH": library_path})
    uuids = nvml.list_uuids()

    assert uuids
    assert {uuid for _, uuid, _, _ in heard.readings} == set(uuids)
    for uuid in uuids:
        values = {name: value for name, of, value, _ in heard.readings if of == uuid}
        assert 0 <= values.get("nv_gpu_utilization", 0) <= 1  # a part of a GPU has none
        assert 1 << 30 < values["nv_gpu_memory_total_bytes"] < 1 << 40
        assert values["nv_gpu_memory_used_bytes"] < values["nv_gpu_memory_total_bytes"]
        if "nv_gpu_power_usage" in values:
            assert 1 < values["nv_gpu_power_usage"] < 2000
        if "nv_gpu_temperature_celsius" in values:
            assert 5 < values["nv_gpu_temperature_celsius"] < 120
