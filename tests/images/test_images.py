"""The images that can be built here: run as a cluster runs them, derived from, and attacked by what users install.

Run by `make images-test`, which builds them first.
"""

import json
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from images import build as build_images
from images import engine, family

from .conftest import BUILT_HERE, HARDENED, NAME, PREFER, ROOT, Container, Start, free_port, podman

pytestmark = [pytest.mark.images, pytest.mark.timeout(600)]

WITH_USER_ENVIRONMENT = tuple(name for name in BUILT_HERE if name != "minimal")

SCORE = """
import sys

def init():
    global GREETING
    GREETING = "from " + sys.executable

def run(raw):
    return {"got": raw, "who": GREETING}
"""


def mounted(models: Path) -> tuple[str, str]:
    return ("-v", f"{models}:/var/azureml-app/azureml-models:ro")


@pytest.mark.parametrize("image", BUILT_HERE)
def test_a_mounted_model_is_served_without_any_code_under_hardening(
    image: str, start: Start, models: Path, request_body: bytes
):
    container = start(f"{NAME}:{image}", *HARDENED, *PREFER, *mounted(models)).await_ready()
    answer = container.ask("/score", request_body)
    assert answer.status == 200
    assert answer.json["outputs"]["label"] == [7]
    inspected = json.loads(podman("image", "inspect", f"{NAME}:{image}").stdout)[0]
    healthy = container.run(*inspected["Healthcheck"]["Test"][1:])
    assert (healthy.returncode, healthy.stdout) == (0, "ok\n")
    assert container.stop() == 0


@pytest.mark.parametrize("image", BUILT_HERE)
def test_only_tmp_can_be_written_and_no_right_is_left(image: str, start: Start, models: Path):
    container = start(f"{NAME}:{image}", *HARDENED, *PREFER, *mounted(models)).await_ready()
    look = "import os;print(open('/proc/1/status').read());open('/tmp/x','w').close()\ntry: open('/opt/scoring-runtime/x','w')\nexcept OSError as e: print(e.errno)"
    seen = container.run("/opt/scoring-runtime/bin/python", "-I", "-c", look)
    assert seen.returncode == 0, seen.stderr
    fields = dict(line.split(":\t", 1) for line in seen.stdout.splitlines() if ":\t" in line)
    assert int(fields["CapEff"], 16) == 0
    assert fields["NoNewPrivs"] == "1"
    assert fields["Uid"].split()[0] == "123456"
    assert seen.stdout.splitlines()[-1] in ("30", "13")  # EROFS, EACCES


@pytest.mark.parametrize("image", BUILT_HERE)
def test_the_image_says_how_it_is_to_be_run(image: str):
    inspected = json.loads(podman("image", "inspect", f"{NAME}:{image}").stdout)[0]
    config = inspected["Config"]
    assert config["User"] == "10001:0"
    assert list(config["ExposedPorts"]) == ["5001/tcp"]
    assert config["Entrypoint"][0] == "/usr/bin/tini"
    assert "-I" in config["Entrypoint"]
    assert config["StopSignal"] in ("SIGTERM", "15")
    assert inspected["Healthcheck"]["Test"][0] == "CMD"
    assert config["Labels"]["org.opencontainers.image.licenses"] == "MIT"


@pytest.mark.parametrize("image", BUILT_HERE)
def test_the_server_in_it_is_intact(image: str):
    code, text = image_check(f"{NAME}:{image}")
    assert code == 0, text
    assert "server        ok" in text


def test_minimal_holds_no_program_but_the_interpreter():
    listing = "import os;print(*sorted({n for d in ('/bin','/sbin','/usr/bin','/usr/sbin') if os.path.isdir(d) for n in os.listdir(d)}))"
    seen = podman("run", "--rm", "--entrypoint", "/usr/bin/python3", f"{NAME}:minimal", "-c", listing)
    assert set(seen.stdout.split()) == {"python3", "python3.11", "tini"}


@pytest.mark.parametrize("image", BUILT_HERE)
def test_nothing_in_it_changes_who_runs_it(image: str):
    look = (
        "import os,stat\nfor d,_,fs in os.walk('/'):\n if d.startswith(('/proc','/sys')): continue\n"
        " for f in fs:\n  p=os.path.join(d,f)\n  try: m=os.lstat(p).st_mode\n  except OSError: continue\n"
        "  if stat.S_ISREG(m) and m & 0o6000: print(p)"
    )
    seen = podman("run", "--rm", "--user", "0", "--entrypoint", "/usr/bin/python3", f"{NAME}:{image}", "-c", look)
    assert seen.stdout == ""


@pytest.mark.parametrize("image", WITH_USER_ENVIRONMENT)
def test_a_script_runs_in_the_users_environment(image: str, start: Start, tmp_path: Path):
    (tmp_path / "score.py").write_text(SCORE)
    tmp_path.chmod(0o755)
    container = start(f"{NAME}:{image}", *HARDENED, "-v", f"{tmp_path}:/var/azureml-app:ro").await_ready()
    answer = container.ask("/score", b'{"a": 1}')
    assert answer.json == {"got": '{"a": 1}', "who": "from /opt/user/bin/python"}


def test_the_entry_script_variable_names_what_is_served(start: Start, tmp_path: Path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "main_score.py").write_text(SCORE)
    tmp_path.chmod(0o755)
    options = ("-v", f"{tmp_path}:/var/azureml-app:ro", "-e", "AZUREML_ENTRY_SCRIPT=source/main_score.py")
    assert start(f"{NAME}:cpu", *options).await_ready().ask("/score", b"{}").status == 200


def test_openvino_runs_the_model(start: Start, dense_model: Path):
    container = start(f"{NAME}:openvino", *HARDENED, *mounted(dense_model)).await_ready()
    assert container.ask("/score", b'{"data": [[1, 2, 3]]}').json["outputs"] == {"y": [[5.5, 7.5]]}
    model = container.ask("/v2/models/dense").json
    assert model["nodes"] == {"openvino": 2}
    assert not model.get("degraded")


def test_cuda_holds_what_a_gpu_needs():
    on_demand("cuda")
    look = "import onnxruntime, pynvml; print(onnxruntime.get_available_providers())"
    python = ("--entrypoint", "/opt/scoring-runtime/bin/python")
    seen = podman("run", "--rm", *python, f"{NAME}:cuda", "-I", "-c", look).stdout
    assert "'CUDAExecutionProvider'" in seen
    config = json.loads(podman("image", "inspect", f"{NAME}:cuda").stdout)[0]["Config"]
    environ = dict(each.split("=", 1) for each in config["Env"])
    assert environ["NVIDIA_VISIBLE_DEVICES"] == "all"
    assert environ["NVIDIA_DRIVER_CAPABILITIES"] == "compute,utility"
    assert environ["NVIDIA_REQUIRE_CUDA"] == "cuda>=13.0"


def test_arguments_are_options_of_the_server(start: Start, models: Path):
    container = start(f"{NAME}:cpu", *mounted(models), command=("--scorers", "2")).await_ready()
    assert "with 2 scorers of" in container.log


def test_what_came_before_sigterm_is_answered(start: Start, tmp_path: Path):
    script = "import time\n\ndef init():\n    pass\n\ndef run(raw):\n    time.sleep(3)\n    return 'late'\n"
    (tmp_path / "score.py").write_text(script)
    tmp_path.chmod(0o755)
    container = start(f"{NAME}:cpu", *HARDENED, "-v", f"{tmp_path}:/var/azureml-app:ro").await_ready()
    with ThreadPoolExecutor(1) as client:
        answer = client.submit(container.ask, "/score", b"{}")
        time.sleep(0.5)
        assert container.stop() == 0
        assert (answer.result().status, answer.result().json) == (200, "late")


def test_orphans_are_reaped(start: Start, tmp_path: Path):
    script = (
        "import os, subprocess\n\ndef init():\n    pass\n\ndef run(raw):\n"
        "    subprocess.run(['/bin/sh', '-c', 'sleep 0.2 &'])\n    return 'done'\n"
    )
    (tmp_path / "score.py").write_text(script)
    tmp_path.chmod(0o755)
    container = start(f"{NAME}:cpu", *HARDENED, "-v", f"{tmp_path}:/var/azureml-app:ro").await_ready()
    assert [container.ask("/score", b"{}").status for _ in range(3)] == [200] * 3
    states = "cat /proc/[0-9]*/stat | cut -d' ' -f3 | sort | uniq -c"
    deadline = time.monotonic() + 10
    while "Z" in (seen := container.run("/bin/sh", "-c", states).stdout) or "sleep" in seen:
        assert time.monotonic() < deadline, seen
        time.sleep(0.2)


def test_a_conda_environment_of_the_user(start: Start, build: Callable[[str, dict[str, str]], str]):
    """What conda leaves is a folder with bin/python: one of the same shape stands in for it."""
    dockerfile = (
        f"FROM {NAME}:cpu\nUSER 0\n"
        "RUN cp -r /opt/user /azureml-envs && mkdir /envs && mv /azureml-envs /envs/x && mv /envs /azureml-envs\n"
        "ENV AZUREML_CONDA_ENVIRONMENT_PATH=/azureml-envs/x PATH=/azureml-envs/x/bin:$PATH\n"
        "COPY score.py /var/azureml-app/\nUSER 10001:0\n"
    )
    container = start(build(dockerfile, {"score.py": SCORE}), *HARDENED).await_ready()
    assert container.ask("/score", b"{}").json["who"] == "from /azureml-envs/x/bin/python"


def test_a_server_that_was_tampered_with_is_found(build: Callable[[str, dict[str, str]], str]):
    tampered = build(
        f"FROM {NAME}:cpu\nUSER 0\nRUN for file in /opt/scoring-runtime/lib/python3*/site-packages/flask/app.py; do echo '# x' >> $file; done\n",
        {},
    )
    code, text = image_check(tampered)
    assert code == 1
    assert "server        MISSING  changed: /opt/scoring-runtime/lib/python3" in text
    assert "flask/app.py: build the image again" in text
    assert "user          MISSING  0: end the Dockerfile with USER 10001:0" in text


def image_check(image: str) -> tuple[int, str]:
    command = [str(Path(sys.executable).with_name("scoring-runtime")), "image", "check", image]
    checked = subprocess.run(command, check=False, capture_output=True, text=True)
    return checked.returncode, checked.stdout + checked.stderr


# The adversary

HOSTILE = """\
FROM {base}
USER 0
RUN --mount=type=secret,id=ca_bundle,required=false \\
    if [ -s /run/secrets/ca_bundle ]; then export PIP_CERT=/run/secrets/ca_bundle; fi \\
 && pip install --no-cache-dir 'flask==0.12.5' 'gunicorn==19.9.0' 'numpy<2' 'werkzeug<1' 'jinja2<3' 'markupsafe<2.1' 'itsdangerous<2' 'click<8'
COPY sitecustomize.py /tmp/
RUN python -c "import site, shutil; shutil.copy('/tmp/sitecustomize.py', site.getsitepackages()[0])" \\
 && mkdir /evil && cp /tmp/sitecustomize.py /evil/ && cp /tmp/sitecustomize.py /evil/gunicorn.py
COPY numpy.py scoring_runtime.py flask.py gunicorn.conf.py httptools.py /var/azureml-app/
COPY digits.onnx.txt /tmp/
ENV GUNICORN_CMD_ARGS="--bind 127.0.0.1:1 --workers 7" PYTHONPATH=/evil:/var/azureml-app PYTHONSTARTUP=/evil/sitecustomize.py \\
    FLASK_DEBUG=1 FLASK_APP=evil PYTHONHOME=/nowhere PYTHONWARNINGS=error PROMETHEUS_MULTIPROC_DIR=/evil
USER 10001:0
"""
EVIL = "import os, sys\nos.write(2, b'EVIL WAS HERE')\nraise SystemExit(66)\n"


def test_what_a_derived_image_installs_changes_no_byte_of_an_answer(
    start: Start, build: Callable[[str, dict[str, str]], str], models: Path, request_body: bytes
):
    names = ("sitecustomize.py", "numpy.py", "scoring_runtime.py", "flask.py", "gunicorn.conf.py", "httptools.py")
    hostile = build(HOSTILE.format(base=f"{NAME}:cpu"), {**dict.fromkeys(names, EVIL), "digits.onnx.txt": ""})
    servers = [start(image, *mounted(models)).await_ready() for image in (f"{NAME}:cpu", hostile)]
    questions = [
        *(("/score", request_body), ("/score", b'{"nonsense": 1}'), ("/score", b"{"), ("/", None), ("/livez", None)),
        *(("/readyz", None), ("/v2", None), ("/v2/models/digits", None), ("/nowhere", None)),
    ]
    for path, body in questions:
        plain, derived = (server.ask(path, body) for server in servers)
        assert derived == plain, path
    plain, derived = (server.ask("/swagger.json").json for server in servers)
    assert derived == plain
    assert "EVIL" not in servers[1].log
    assert [server.stop() for server in servers] == [0, 0]


def test_the_users_packages_are_the_users(start: Start, build: Callable[[str, dict[str, str]], str]):
    script = "import six\n\ndef init():\n    pass\n\ndef run(raw):\n    return six.__version__\n"
    dockerfile = (
        f"FROM {NAME}:cpu\n"
        "RUN --mount=type=secret,id=ca_bundle,required=false,mode=0444 \\\n"
        "    if [ -s /run/secrets/ca_bundle ]; then export PIP_CERT=/run/secrets/ca_bundle; fi \\\n"
        " && pip install --no-cache-dir six==1.16.0\nCOPY score.py /var/azureml-app/\n"
    )
    image = build(dockerfile, {"score.py": script})
    assert start(image, *HARDENED).await_ready().ask("/score", b"{}").json == "1.16.0"


# Bad input


def ends(container: Container, exit_code: int, *texts: str) -> None:
    assert container.wait() == exit_code
    for text in texts:
        assert text in container.log


def test_neither_script_nor_model(start: Start):
    ends(start(f"{NAME}:cpu"), 3, "/var/azureml-app: holds neither a score.py nor an .onnx file")


def test_two_models_and_no_name(start: Start, tmp_path: Path):
    for name in ("a.onnx", "b.onnx"):
        (tmp_path / name).write_bytes((ROOT / "examples/digits/digits.onnx").read_bytes())
    tmp_path.chmod(0o755)
    container = start(f"{NAME}:cpu", *mounted(tmp_path))
    ends(container, 3, "holds 2 ONNX models and no score.py", "Name the one to serve")


def test_a_model_folder_that_another_user_closed(start: Start, tmp_path: Path):
    (tmp_path / "digits.onnx").write_bytes((ROOT / "examples/digits/digits.onnx").read_bytes())
    tmp_path.chmod(0o700)
    ends(start(f"{NAME}:cpu", *mounted(tmp_path)), 3, "permission denied", "Make it readable")


def test_a_conda_environment_without_python(start: Start, tmp_path: Path):
    (tmp_path / "score.py").write_text(SCORE)
    tmp_path.chmod(0o755)
    options = ("-v", f"{tmp_path}:/var/azureml-app:ro", "-e", "AZUREML_CONDA_ENVIRONMENT_PATH=/azureml-envs/none")
    ends(start(f"{NAME}:cpu", *options), 3, "AZUREML_CONDA_ENVIRONMENT_PATH", "/azureml-envs/none", "no python in bin")


SERVE = "exec /opt/scoring-runtime/bin/python -I -m scoring_runtime serve"


def test_a_full_tmp(start: Start, models: Path, request_body: bytes):
    options = (*HARDENED[:2], "--tmpfs", "/tmp:rw,size=64k,mode=1777", "--entrypoint", "/bin/sh", *mounted(models))
    fill = "cat /dev/zero > /tmp/full 2>/dev/null; df --output=avail /tmp"
    container = start(f"{NAME}:cpu", *options, command=("-c", f"{fill}; {SERVE}")).await_ready()
    assert "Avail\n    0\n" in container.log
    assert container.ask("/score", request_body).status == 200


def test_no_tmp_at_all(start: Start, models: Path, request_body: bytes):
    container = start(f"{NAME}:cpu", *HARDENED[:2], *mounted(models)).await_ready()
    assert container.ask("/score", request_body).status == 200
    assert container.stop() == 0


def test_no_place_for_an_empty_file(start: Start, models: Path):
    nowhere = ("--mount", f"type=bind,src={models},dst=/dev/shm,ro=true")
    container = start(f"{NAME}:cpu", *HARDENED[:2], *nowhere, *mounted(models))
    ends(container, 3, "neither /dev/shm nor /tmp can be written", "mount memory there: --tmpfs /tmp")


def test_a_command_of_another_image(start: Start, build: Callable[[str, dict[str, str]], str]):
    says = ("`runsvdir /var/runit` is a command", "Leave the command (CMD, or `args` in Kubernetes) out")
    ends(start(f"{NAME}:cpu", command=("runsvdir", "/var/runit")), 1, *says)
    ends(start(build(f'FROM {NAME}:cpu\nCMD ["runsvdir", "/var/runit"]\n', {})), 1, *says)


def test_a_gpu_that_the_container_was_not_given(start: Start, models: Path):
    """Provider truth: ONNX Runtime alone would fall back to the CPU in silence."""
    on_demand("cuda")
    container = start(f"{NAME}:cuda", *HARDENED, *mounted(models))
    ends(container, 3, "cannot run on the provider cuda: no NVIDIA driver", "--gpus all", "--device nvidia.com/gpu=all")


def on_demand(image: str) -> None:
    if not engine.exists(f"{NAME}:{image}"):
        pytest.skip(f"{image} is built only on demand: make image IMAGE={image}")


# Sizes


@pytest.mark.parametrize("image", BUILT_HERE)
def test_it_is_no_larger_than_it_may_be(image: str):
    known = family.load()
    described = known.find(image)

    def size_mb(tag: str) -> float:
        return int(podman("image", "inspect", tag, "--format", "{{.Size}}").stdout) / 1e6

    size = size_mb(f"{NAME}:{image}")
    if described.max_mb is not None:
        assert size <= described.max_mb
    if described.max_added_mb is not None:
        assert size - size_mb(build_images.root_tag("BASE_IMAGE")) <= described.max_added_mb


def test_it_starts_quickly(start: Start, models: Path, request_body: bytes):
    began = time.monotonic()
    container = start(f"{NAME}:cpu", *HARDENED, *mounted(models)).await_ready()
    assert container.ask("/score", request_body).status == 200
    assert time.monotonic() - began < 15


# Kubernetes


def test_the_pod_of_the_page_runs(tmp_path: Path, models: Path, request_body: bytes):
    """Podman stands in for a cluster: all of it but the probes, which need a kubelet."""
    page = (ROOT / "docs/images.md").read_text()
    (text,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    pod = yaml.safe_load(text)
    name = pod["metadata"]["name"] = f"scoring-test-{uuid.uuid4().hex[:12]}"
    (container,) = pod["spec"]["containers"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container.pop(probe)["httpGet"]["port"] == 5001
    port = free_port()
    container["env"] = [{"name": "SCORING_PORT", "value": str(port)}]
    del container["ports"]  # of no use on the host's network
    pod["spec"]["hostNetwork"] = True
    pod["spec"]["volumes"][0]["hostPath"]["path"] = str(models)
    (tmp_path / "pod.yaml").write_text(yaml.safe_dump(pod))
    try:
        podman("play", "kube", tmp_path / "pod.yaml")
        running = Container(f"{name}-scoring", port).await_ready()
        assert running.ask("/score", request_body).json["outputs"]["label"] == [7]
        status = dict(line.split(":\t", 1) for line in running.run("cat", "/proc/1/status").stdout.splitlines())
        assert (status["CapEff"].strip("0"), status["NoNewPrivs"], status["Uid"].split()[0]) == ("", "1", "10001")
        assert "Read-only file system" in running.run("touch", "/opt/x").stderr
    finally:
        podman("pod", "rm", "-f", "--time", "0", name, check=False)
