"""Which GPUs a server uses, and which of them each scorer gets.

A GPU is known by its UUID. Its number is its place among those that are there, by PCI address, as nvidia-smi counts them.
Below are decisions about lists of UUIDs; only `found` and `cuda_is_installed`, at the end, look at the machine.
"""

import dataclasses
import importlib.util
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from .. import providers
from ..errors import ConfigurationError
from ..settings import Settings
from ..telemetry import nvml

ALL = "all"
MAX_SCORERS = 1024


def allot(
    engine: str, settings: Settings, environ: Mapping[str, str], root: Path = Path("/")
) -> tuple[Settings, tuple[str, ...]]:
    """The settings with the number of scorers decided, and the GPU of each scorer, by UUID.

    There are no GPUs when none is asked for or none can be seen; then scorers find their environment as it is.
    ConfigurationError when a GPU that was named is not there, or an option would choose another one.
    """
    chosen: list[str] = []
    if asks_for_gpus(engine, settings):
        chosen = choose(visible(found(root), environ), settings.gpus or ALL)
    if chosen:
        _refuse_device_ids(settings)
    scorers = settings.scorers or min(MAX_SCORERS, max(1, len(chosen)))
    return dataclasses.replace(settings, scorers=scorers), assign(chosen, scorers)


def asks_for_gpus(engine: str, settings: Settings) -> bool:
    """A script's GPUs are its own business unless some are named; a model's follow from its first provider."""
    if engine != "onnx":
        return settings.gpus is not None
    first = providers.parse_list(settings.provider)[0]
    if first == providers.AUTO:
        return settings.gpus is not None or cuda_is_installed()
    return providers.PROVIDERS[first].gpu


def of_no_use(engine: str, settings: Settings) -> list[str]:
    """What was said of GPUs that nothing will look at, a line each."""
    if settings.gpus is None or asks_for_gpus(engine, settings):
        return []
    return [f"--gpus {settings.gpus} is of no use: --provider {settings.provider} runs the model without them"]


def visible(uuids: Sequence[str], environ: Mapping[str, str]) -> list[str]:
    """Those that CUDA would show a process with this environment, in its order.

    As CUDA reads CUDA_VISIBLE_DEVICES: a name may be cut short; what follows one that is none does not count; one that is
    named twice hides all. NVIDIA_VISIBLE_DEVICES says nothing here: it is for the container's runtime, which sets it to
    `void` in containers that do have GPUs (by CDI).
    """
    text = environ.get("CUDA_VISIBLE_DEVICES")
    if text is None:
        return list(uuids)
    shown: list[str] = []
    for name in text.split(","):
        uuid = _find(name.strip(), uuids)
        if uuid is None:
            break
        if uuid in shown:
            return []
        shown.append(uuid)
    return shown


def choose(uuids: Sequence[str], text: str) -> list[str]:
    """Those that --gpus names, in its order; ConfigurationError when one is not there."""
    if text.strip().lower() == ALL:
        return list(uuids)
    chosen: list[str] = []
    for name in map(str.strip, text.split(",")):
        uuid = _find(name, uuids)
        if uuid is None:
            raise ConfigurationError(f"--gpus {text}: there is no GPU {name!r}. {_those_that_exist(uuids)}")
        if uuid in chosen:
            raise ConfigurationError(f"--gpus {text}: {name!r} is {uuid}, which is named before. Name each GPU once.")
        chosen.append(uuid)
    return chosen


def assign(gpus: Sequence[str], scorers: int) -> tuple[str, ...]:
    """The GPU of each scorer: they take turns. Empty when there are no GPUs."""
    return tuple(gpus[seat % len(gpus)] for seat in range(scorers)) if gpus else ()


def describe(seats: Sequence[str]) -> str:
    """Who has which, for a person: `GPU-1 has scorers 1, 3; GPU-2 has scorer 2`."""
    scorers: dict[str, list[str]] = {}
    for number, uuid in enumerate(seats, 1):
        scorers.setdefault(uuid, []).append(str(number))
    return "; ".join(
        f"{uuid} has scorer{'s' if len(numbers) > 1 else ''} {', '.join(numbers)}" for uuid, numbers in scorers.items()
    )


def _find(name: str, uuids: Sequence[str]) -> str | None:
    """The GPU of this number or name. A part of a GPU (MIG) is in no list: only its name is looked at."""
    if re.fullmatch(r"[0-9]{1,6}", name):
        return uuids[int(name)] if int(name) < len(uuids) else None
    if re.fullmatch(r"MIG-[\w/-]+", name):
        return name
    matching = [uuid for uuid in uuids if name.startswith("GPU-") and uuid.startswith(name)]
    return matching[0] if len(matching) == 1 else None


def _those_that_exist(uuids: Sequence[str]) -> str:
    if uuids:
        return f"There are {', '.join(f'{number} ({uuid})' for number, uuid in enumerate(uuids))}, and all."
    return (
        "This server sees none: look at CUDA_VISIBLE_DEVICES and at what its container was given. Where the system has no "
        f"/proc/driver/nvidia, nvidia-ml-py is needed to find them: {nvml.INSTALL}."
    )


def _refuse_device_ids(settings: Settings) -> None:
    for name, options in providers.parse_options(settings.provider_option).items():
        device_id = options.get("device_id", "0")
        if providers.PROVIDERS[name].gpu and device_id != "0":
            raise ConfigurationError(
                f"--provider-option {name}.device_id={device_id}: each scorer sees one GPU, which is its number 0. "
                f"Leave the option out, and choose the GPU with --gpus {device_id}."
            )


# Of the front: which of them are told of


def are_of_interest(engine: str, settings: Settings, root: Path = Path("/")) -> bool:
    """Somebody may want to know about GPUs: they were asked for, or this machine has some."""
    return asks_for_gpus(engine, settings) or (root / "proc/driver/nvidia").is_dir()


def of_server(seats: Sequence[str], environ: Mapping[str, str], uuids: Sequence[str]) -> list[str]:
    """Those of `uuids` that this server uses: its scorers' own, else those that they can see."""
    return list(dict.fromkeys(seats)) if seats else visible(uuids, environ)


# The machine


def found(root: Path = Path("/")) -> list[str]:
    """UUIDs of the GPUs that are there, by PCI address. Without a library where the kernel lists them, else through NVML.

    A container sees the kernel's list of all GPUs of its machine, but has the devices only of those that it was given.
    """
    folder = root / "proc/driver/nvidia/gpus"
    if not folder.is_dir():
        return nvml.list_uuids()
    uuids = []
    for file in sorted(folder.glob("*/information")):
        text = file.read_text(encoding="utf-8", errors="replace")
        uuid = re.search(r"^GPU UUID:\s*(\S+)", text, re.MULTILINE)
        minor = re.search(r"^Device Minor:\s*(\d+)", text, re.MULTILINE)
        if uuid is None or "?" in uuid[1]:  # nobody has opened it yet: the kernel's driver does not know
            return nvml.list_uuids()
        if minor is None or (root / f"dev/nvidia{minor[1]}").exists():
            uuids.append(uuid[1])
    return uuids


def cuda_is_installed() -> bool:
    """The installed ONNX Runtime has a CUDA provider. The package is looked up, not imported: that is the scorer's to do."""
    spec = importlib.util.find_spec("onnxruntime")
    folders = spec.submodule_search_locations if spec is not None else None
    return any(Path(folder, "capi/libonnxruntime_providers_cuda.so").exists() for folder in folders or ())
