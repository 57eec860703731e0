"""Which GPUs a server uses and which of them each scorer gets: pure decisions, and a folder that looks like the machine's."""

from pathlib import Path

import pytest

from scoring_runtime.errors import ConfigurationError
from scoring_runtime.pool import gpus
from scoring_runtime.pool.launch import LaunchPlan, plan
from scoring_runtime.pool.launcher import reason_against_preload
from scoring_runtime.settings import Settings, load
from scoring_runtime.target import Target

A = "GPU-aaaa1111-0000-0000-0000-000000000000"
B = "GPU-bbbb2222-0000-0000-0000-000000000000"
C = "GPU-aaaa3333-0000-0000-0000-000000000000"

INFORMATION = """\
Model: \t\t NVIDIA H100 80GB HBM3
IRQ:   \t\t 74
GPU UUID: \t {uuid}
Video BIOS: \t 96.00.74.00.01
Bus Type: \t PCIe
Bus Location: \t {address}
Device Minor: \t {minor}
GPU Excluded:\t No
"""


@pytest.fixture
def machine(tmp_path: Path):
    """A machine with these GPUs; the minor numbers of their devices need not follow the PCI addresses."""

    def make(*uuids: str, given: tuple[str, ...] | None = None) -> Path:
        (tmp_path / "dev").mkdir()
        (tmp_path / "proc/driver/nvidia/gpus").mkdir(parents=True)
        for index, uuid in reversed(list(enumerate(uuids))):
            address, minor = f"0000:{index + 10:02x}:00.0", len(uuids) - index
            folder = tmp_path / "proc/driver/nvidia/gpus" / address
            folder.mkdir()
            text = INFORMATION.format(uuid=uuid, address=address, minor=minor)
            (folder / "information").write_text(text, "utf-8")
            if given is None or uuid in given:
                (tmp_path / f"dev/nvidia{minor}").touch()
        return tmp_path

    return make


# Which there are


def test_the_kernels_list_is_read_by_pci_address(machine):
    assert gpus.found(machine(B, A, C)) == [B, A, C]


def test_a_container_has_only_those_whose_devices_it_was_given(machine):
    assert gpus.found(machine(A, B, C, given=(C,))) == [C]


def test_a_container_that_was_given_none_has_none_though_it_sees_the_list(machine, stub_nvml, monkeypatch):
    for name, text in stub_nvml().items():
        monkeypatch.setenv(name, text)
    assert gpus.found(machine(A, B, given=())) == []


@pytest.mark.parametrize("listed", [(), ("GPU-????????-????-????-????-????????????",)])
def test_what_the_kernel_does_not_say_the_driver_is_asked_for(machine, stub_nvml, monkeypatch, tmp_path, listed):
    for name, text in stub_nvml(GPUS="1").items():
        monkeypatch.setenv(name, text)
    root = machine(*listed) if listed else tmp_path
    assert gpus.found(root) == ["GPU-57AB0000-0000-0000-0000-000000000000"]


@pytest.mark.parametrize(
    ("variable", "shown"),
    [
        (None, [A, B, C]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("2,0", [C, A]),
        (f"{B}", [B]),
        (f"1,{A}", [B, A]),
        ("GPU-bbbb", [B]),
        ("GPU-aaaa3, 0", [C, A]),
        ("GPU-aaaa", []),  # two begin so
        ("0,7,1", [A]),  # what follows one that is none does not count
        ("0,1,0", []),
        ("MIG-3c1f/1/0", ["MIG-3c1f/1/0"]),
        ("cuda:0", []),
    ],
)
def test_what_cuda_would_show(variable, shown):
    environ = {} if variable is None else {"CUDA_VISIBLE_DEVICES": variable}
    assert gpus.visible([A, B, C], environ) == shown


def test_void_is_no_word_about_gpus():
    """It is what the container device interface sets where it does give them."""
    assert gpus.visible([A], {"NVIDIA_VISIBLE_DEVICES": "void"}) == [A]


# Which to use


@pytest.mark.parametrize(
    ("text", "chosen"),
    [("all", [A, B, C]), ("ALL", [A, B, C]), ("2,1", [C, B]), (A, [A]), ("GPU-b,0", [B, A])],
)
def test_gpus_are_chosen_by_number_or_name(text, chosen):
    assert gpus.choose([A, B, C], text) == chosen


@pytest.mark.parametrize("text", ["2", "0,7", "GPU-cccc", "first", "-1", "GPU-aaaa"])
def test_one_that_is_not_there_is_refused_with_those_that_are(text):
    with pytest.raises(ConfigurationError) as caught:
        gpus.choose([A, C], text)
    name = text.rpartition(",")[2]
    assert caught.value.message == f"--gpus {text}: there is no GPU '{name}'. There are 0 ({A}), 1 ({C}), and all."
    assert caught.value.exit_code == 3


def test_where_there_are_none_the_message_says_where_to_look():
    with pytest.raises(ConfigurationError, match=r"This server sees none: look at CUDA_VISIBLE_DEVICES"):
        gpus.choose([], "0")
    assert gpus.choose([], "all") == []


def test_one_that_is_named_twice_is_refused():
    with pytest.raises(ConfigurationError, match=r"'GPU-bbbb' is GPU-bbbb2222.*, which is named before"):
        gpus.choose([A, B], "1,GPU-bbbb")


# Who gets which


def test_scorers_take_turns():
    assert gpus.assign([A, B], 5) == (A, B, A, B, A)
    assert gpus.assign([A, B], 1) == (A,)
    assert gpus.assign([], 3) == ()
    assert gpus.describe((A, B, A)) == f"{A} has scorers 1, 3; {B} has scorer 2"


def allot(root: Path, environ: dict[str, str] | None = None, engine: str = "onnx", **values: object):
    settings, seats = gpus.allot(engine, Settings(**values), environ or {}, root)  # type: ignore[arg-type]
    return settings.scorers, seats


def test_one_scorer_for_each_gpu(machine):
    root = machine(A, B, C)
    for provider in ("cuda", "tensorrt", "cuda,cpu", "tensorrt,cuda,cpu"):
        assert allot(root, provider=provider) == (3, (A, B, C))
    assert allot(root, {"CUDA_VISIBLE_DEVICES": "2,0"}, provider="cuda") == (2, (C, A))
    assert allot(root, {"CUDA_VISIBLE_DEVICES": "2,0"}, provider="cuda", gpus="1") == (1, (A,))


def test_as_many_as_are_asked_for_share_them(machine):
    root = machine(A, B)
    assert allot(root, provider="cuda", scorers=3) == (3, (A, B, A))
    assert allot(root, provider="cuda", scorers=1) == (1, (A,))
    assert allot(root, provider="cuda", scorers=2, gpus="1") == (2, (B, B))


def test_one_scorer_where_no_gpu_is_asked_for(machine, monkeypatch):
    root = machine(A, B)
    assert allot(root, provider="cpu") == (1, ())
    assert allot(root, provider="openvino") == (1, ())
    assert allot(root, provider="cpu,cuda") == (1, ())
    assert allot(root, engine="script") == (1, ())
    assert allot(root, engine="script", provider="cuda", scorers=4) == (4, ())


def test_one_scorer_where_there_is_none(machine):
    root = machine()
    assert allot(root, provider="cuda") == (1, ())
    assert allot(root, provider="cuda", gpus="all", scorers=2) == (2, ())


def test_auto_means_gpus_only_where_onnx_runtime_has_a_cuda_provider(machine, monkeypatch):
    root = machine(A, B)
    assert gpus.cuda_is_installed() in (True, False)
    for installed, expected in ((False, (1, ())), (True, (2, (A, B)))):
        monkeypatch.setattr(gpus, "cuda_is_installed", lambda installed=installed: installed)
        assert allot(root) == expected
    assert allot(root, gpus="0") == (1, (A,))


def test_a_script_gets_gpus_when_they_are_named(machine):
    root = machine(A, B)
    assert allot(root, engine="script", gpus="all") == (2, (A, B))
    assert allot(root, engine="script", gpus="1", scorers=2) == (2, (B, B))


def test_an_option_that_would_choose_another_one_is_refused(machine):
    root = machine(A, B)
    with pytest.raises(ConfigurationError, match=r"cuda.device_id=1: each scorer sees one GPU.*with --gpus 1\."):
        allot(root, provider="cuda", provider_option="cuda.device_id=1")
    assert allot(root, provider="cuda", provider_option="cuda.device_id=0;cuda.use_tf32=0") == (2, (A, B))


def test_the_worker_count_of_the_incumbent_is_at_least_one():
    assert load({}, {"SCORING_SCORERS": "0"}, None).scorers == 0
    with pytest.raises(ConfigurationError, match="from 1 to 1024") as caught:
        load({}, {"WORKER_COUNT": "0"}, None)
    assert caught.value.exit_code == 1


# What that means for processes


def test_each_seat_has_its_own_environment():
    made = LaunchPlan((), {"MINE": "1", "CUDA_VISIBLE_DEVICES": "3"}, {"engine": "script"}, gpus=(A, B))
    assert made.scorer_environ(0) == {"MINE": "1", "CUDA_VISIBLE_DEVICES": A}
    assert made.scorer_environ(1) == {"MINE": "1", "CUDA_VISIBLE_DEVICES": B}
    assert made.environ["CUDA_VISIBLE_DEVICES"] == "3"


def test_without_gpus_the_environment_is_left_alone():
    made = LaunchPlan((), {"CUDA_VISIBLE_DEVICES": "3"}, {"engine": "script"})
    assert made.scorer_environ(5) is made.environ


def test_a_preload_process_has_one_environment_for_all(tmp_path):
    def reason(*seats: str) -> str:
        target = Target("script", tmp_path / "score.py", "score")
        return reason_against_preload(plan(target, Settings(preload=True), {}, seats))

    assert reason() == reason(A, A) == ""
    assert "scorers get different GPUs" in reason(A, B)


# What the front tells of


def test_the_server_tells_of_its_own(machine, tmp_path):
    assert gpus.of_server((B, A, B), {}, [A, B, C]) == [B, A]
    assert gpus.of_server((), {"CUDA_VISIBLE_DEVICES": "1"}, [A, B, C]) == [B]
    assert not gpus.are_of_interest("onnx", Settings(provider="cpu"), tmp_path)
    assert gpus.are_of_interest("onnx", Settings(provider="cuda,cpu"), tmp_path)
    assert gpus.are_of_interest("script", Settings(), machine(A))


def test_gpus_that_no_provider_asks_for_are_said_to_be_of_no_use():
    assert gpus.of_no_use("onnx", Settings(provider="cpu", gpus="9")) == [
        "--gpus 9 is of no use: --provider cpu runs the model without them"
    ]
    assert gpus.of_no_use("onnx", Settings(provider="cpu")) == []
    assert gpus.of_no_use("onnx", Settings(provider="cuda,cpu", gpus="0")) == []
    assert gpus.of_no_use("script", Settings(provider="cpu", gpus="0")) == []
