"""GPUs of a running server, on a machine that has none: its driver is a stub, which lists them and says what they do."""

import re
import signal
import time
from pathlib import Path

import psutil
import pytest

ZERO = "GPU-57AB0000-0000-0000-0000-000000000000"
ONE = "GPU-57AB0001-0000-0000-0000-000000000000"
TWO = "GPU-57AB0002-0000-0000-0000-000000000000"


@pytest.fixture(autouse=True)
def no_gpu_of_its_own():
    if Path("/proc/driver/nvidia").exists():
        pytest.skip("the kernel lists GPUs of this machine: the stub would not be asked")


def metrics(server) -> str:
    return str(server.get("/metrics").body, "utf-8")


def gpu_of(process: psutil.Process) -> str | None:
    return process.environ().get("CUDA_VISIBLE_DEVICES")


def test_a_scorer_for_each_gpu_and_metrics_of_those_in_use(serve, trained, stub_nvml, wait_until):
    environ = stub_nvml(GPUS="3") | {"CUDA_VISIBLE_DEVICES": f"2,{ONE[:12]},{ZERO}"}
    with serve(trained.iris, "--gpus", "0,2", environ=environ) as server:
        assert server.score({"inputs": {"X": [[5.1, 3.5, 1.4, 0.2]]}}).status == 200
        assert {gpu_of(scorer) for scorer in server.scorers} == {TWO, ZERO}
        lines = server.get("/readyz?verbose").body.decode().splitlines()
        assert re.fullmatch(rf"scorer 1: \w+ \(pid \d+\) on {TWO}", lines[1])
        assert re.fullmatch(rf"scorer 2: \w+ \(pid \d+\) on {ZERO}", lines[2])
        assert f"Each scorer sees one GPU: {TWO} has scorer 1; {ZERO} has scorer 2." in server.log

        wait_until(lambda: "nv_gpu_utilization" in metrics(server), "there are no GPU metrics")
        text = metrics(server)
        assert set(re.findall(r'gpu_uuid="([^"]+)"', text)) == {ZERO, TWO}
        assert f'\nnv_gpu_power_usage{{gpu_uuid="{TWO}"}} 123.456\n' in text
        assert f'\nnv_energy_consumption{{gpu_uuid="{ZERO}"}} 7654.321\n' in text
        assert "# TYPE nv_energy_consumption counter" in text

        (first,) = [scorer for scorer in server.scorers if gpu_of(scorer) == TWO]
        first.kill()
        wait_until(lambda: first.pid not in {scorer.pid for scorer in server.scorers} and server.is_ready())
        wait_until(lambda: sorted(map(str, map(gpu_of, server.scorers))) == [ZERO, TWO], "it is back on its GPU")


def test_a_driver_that_hangs_holds_up_neither_scrapes_nor_the_end(serve, trained, stub_nvml):
    with serve(trained.iris, "--gpus", "all", environ=stub_nvml(HANG="nvmlDeviceGetMemoryInfo")) as server:
        assert len(server.scorers) == 2
        began = time.monotonic()
        assert "scoring_ready 1.0" in metrics(server)
        assert "nv_gpu" not in metrics(server)
        assert time.monotonic() - began < 5
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0
        assert time.monotonic() - began < 8


def test_a_script_sees_what_the_server_sees_unless_gpus_are_named(serve, script, stub_nvml):
    target = script(
        "import os\n\n\ndef init(): ...\n\n\ndef run(data):\n    return os.environ['CUDA_VISIBLE_DEVICES']\n"
    )
    environ = stub_nvml() | {"CUDA_VISIBLE_DEVICES": "1,0"}
    with serve(target, environ=environ) as server:
        assert server.score({}).json == "1,0"
        assert "nv_gpu" not in metrics(server)
    with serve(target, "--gpus", "1", "--scorers", "2", environ=environ) as server:
        assert server.score({}).json == ZERO
        assert f"and those of one GPU share its memory: {ZERO} has scorers 1, 2." in server.log


def test_without_a_driver_the_server_serves_and_says_why_there_are_no_metrics(serve, trained, wait_until):
    with serve(trained.iris, "--gpus", "all") as server:
        assert len(server.scorers) == 1
        wait_until(lambda: "There are no GPU metrics: libnvidia-ml.so.1 was not found" in server.log)
        assert "nv_gpu" not in metrics(server)


def test_a_gpu_that_is_not_there_ends_the_start(command, trained, stub_nvml):
    ended = command("serve", trained.iris, "--gpus", "0,9", environ=stub_nvml())
    assert ended.code == 3
    expected = f"scoring-runtime: error: --gpus 0,9: there is no GPU '9'. There are 0 ({ZERO}), 1 ({ONE}), and all."
    assert ended.last_line == expected
