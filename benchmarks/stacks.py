"""Sampled stacks: what py-spy and perf write, made readable, and counted. Pure.

A line of py-spy's raw format is `outermost (file:line);...;innermost (file:line) samples`. Here a frame is a function and its
file, without the line.
"""

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Mapping

Stack = tuple[str, ...]
Stacks = Mapping[Stack, int]

ENTRY = "_run_module_as_main"
"""Python's first frame of `python -m`: what is outside of it differs by how far the sampler could unwind."""

TRUNK_SHARE = 0.95
SYSTEM_CALL = re.compile(
    r"(read|write|readv|writev|recv|recvmsg|send|sendmsg|epoll_p?wait|poll|select|setitimer|mmap|mmap64|munmap|mremap"
    r"|madvise|clock_nanosleep) \(libc[^)]*\)$"
)
_PERF_FRAME = re.compile(r"\s*[0-9a-f]+ (?P<symbol>.*) \((?P<library>.*)\)$")
_PERF_CALL = re.compile(r"(?:__(?:x64|arm64)_sys_|ksys_)(\w+)")
_FRAME = re.compile(r"(?P<name>.+?) \((?P<file>[^()]*?)(?::(?P<line>\d+))?\)$")


@dataclasses.dataclass(frozen=True)
class Row:
    """A function's own time: what was sampled in it, and not in what it calls."""

    function: str
    called_from: str
    """The nearest function of Python around it, or nothing where it is one itself."""

    share: float


def parse(lines: Iterable[str]) -> Counter[Stack]:
    """Stacks -> samples. ValueError for a line that does not end with a number."""
    found: Counter[Stack] = Counter()
    for line in lines:
        frames, _, samples = line.strip().rpartition(" ")
        stack = _cleaned(frames.split(";"))
        if stack:
            found[stack] += int(samples)
    return found


def written(stacks: Stacks) -> list[str]:
    """The lines that parse() reads, in a fixed order."""
    return [f"{';'.join(stack)} {samples}" for stack, samples in sorted(stacks.items())]


def _cleaned(frames: list[str]) -> Stack:
    entries = [place for place, frame in enumerate(frames) if frame.startswith(ENTRY)]
    stack: list[str] = []
    for frame in frames[entries[0] if entries else 0 :]:
        name = _function(frame)
        if name and name != (stack[-1] if stack else None):
            stack.append(name)
    return tuple(stack)


def _function(frame: str) -> str | None:
    """A frame without its line; None for inlined functions of headers, whose time is their callers'."""
    found = _FRAME.match(frame)
    if found is None:
        return frame
    if found["file"].endswith(".h"):
        return None
    file = found["file"]
    if found["name"].startswith("0x"):  # a library without symbols
        return f"({file.rpartition('/')[2]})"
    return f"{found['name']} ({file})"


def own(stacks: Stacks) -> Counter[Stack]:
    """Those that are not in a system call."""
    return Counter({stack: samples for stack, samples in stacks.items() if not SYSTEM_CALL.match(stack[-1])})


def without_trunk(stacks: Stacks) -> Counter[Stack]:
    """The stacks from where they part: nearly all samples share what is before."""
    trunk: Stack = ()
    while (longer := _most_shared(stacks, len(trunk) + 1)) is not None:
        trunk = longer
    root = max(0, len(trunk) - 1)  # the last frame that is shared stays
    found: Counter[Stack] = Counter()
    for stack, samples in stacks.items():
        found[stack[root:] if stack[: len(trunk)] == trunk else stack] += samples
    return found


def _most_shared(stacks: Stacks, depth: int) -> Stack | None:
    """The beginning, so many frames long, of nearly all stacks."""
    heads: Counter[Stack] = Counter()
    for stack, samples in stacks.items():
        if len(stack) >= depth:
            heads[stack[:depth]] += samples
    head = max(heads, key=lambda one: heads[one], default=None)
    return head if head is not None and heads[head] >= TRUNK_SHARE * sum(stacks.values()) else None


def own_time(stacks: Stacks, most: int) -> list[Row]:
    """The functions that most samples were in, by share of all samples."""
    total = sum(stacks.values())
    found: Counter[tuple[str, str]] = Counter()
    for stack, samples in stacks.items():
        leaf = stack[-1]
        caller = "" if is_python(leaf) else next((frame for frame in reversed(stack) if is_python(frame)), "")
        found[leaf, caller] += samples
    rows = sorted(found.items(), key=lambda entry: (-entry[1], entry[0]))
    return [Row(leaf, caller, samples / total) for (leaf, caller), samples in rows[:most]]


def places(script: str) -> Counter[str]:
    """Library or system call -> samples, from `perf script --fields ip,sym,dso`: innermost first, a blank line between."""
    found: Counter[str] = Counter()
    for block in script.split("\n\n"):
        frames = [frame for line in block.splitlines() if (frame := _PERF_FRAME.match(line)) is not None]
        if not frames:
            continue
        library = frames[0]["library"].rpartition("/")[2]
        if library.startswith("[kernel"):
            calls = [call[1] for frame in frames if (call := _PERF_CALL.match(frame["symbol"])) is not None]
            library = f"kernel: {calls[0]}" if calls else "kernel: all else"
        found[library] += 1
    return found


def is_python(frame: str) -> bool:
    return frame.endswith((".py)", "<frozen runpy>)"))
