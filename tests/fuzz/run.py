"""Fuzz what reads bytes from clients, scorers, users and files: `make fuzz`.

    python tests/fuzz/run.py                          every target, one after the other, 60 seconds each
    python tests/fuzz/run.py frames --seconds 600     one of them, longer
    python tests/fuzz/run.py --input FILE connection  one input, with its traceback

A target is a module beside this file: `check` takes any bytes and raises when what it promises does not hold. What it finds
is left in .fuzz/, the grown corpus too, so that the next run goes on from there. `test_targets.py` tries the seeds, and
bytes close to them, in the ordinary suite.
"""

import argparse
import contextlib
import importlib
import re
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FOUND = ROOT / ".fuzz"

TARGETS = ("connection", "scorer", "frames", "codecs", "v2", "script", "form", "heads", "settings", "model_file")
INSTRUMENTED = ["scoring_runtime", "h11", "email", "urllib", "json"]

MAX_INPUT_BYTES = 4096
SLOWEST_INPUT_S = 20
MEMORY_MB = 2048


def main() -> int:
    """Run what the command line asks for; 1 when a target has found something."""
    parser = argparse.ArgumentParser(description="Fuzz the parsers.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; all by default")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--input", type=Path, help="try this file only")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    targets = options.targets or list(TARGETS)
    unknown = set(targets) - set(TARGETS)
    if unknown:
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    if options.input is not None:
        for name in targets:
            load(name).check(options.input.read_bytes())
        return 0
    if options.inside:
        (name,) = targets
        fuzz_here(name, options.seconds)
    failed = [name for name in targets if not fuzz(name, options.seconds)]
    if failed:
        print(f"\nFound something: {', '.join(failed)}. The inputs are in {FOUND.name}/found.")
    return 1 if failed else 0


def load(name: str) -> Any:
    """A target. `tests` is known by its folder alone, so that our package is the one that was installed."""
    package = types.ModuleType("tests")
    package.__path__ = [str(HERE.parent)]
    sys.modules.setdefault("tests", package)
    return importlib.import_module(f"tests.fuzz.{name}")


def fuzz(name: str, seconds: int) -> bool:
    """Fuzz one target in a process of its own, print what came of it, and say whether all was well."""
    (FOUND / "found").mkdir(parents=True, exist_ok=True)
    log = FOUND / f"{name}.log"
    began = time.monotonic()
    command = [sys.executable, "-P", __file__, "--inside", name, "--seconds", str(seconds)]
    with log.open("wb") as file:
        returncode = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False).returncode
    text = log.read_text(encoding="utf-8", errors="replace")
    edges = [int(each) for each in re.findall(r"\bcov: (\d+)", text)] or [0]
    tried = re.findall(r"^stat::number_of_executed_units: *(\d+)|^#(\d+)\t", text, re.MULTILINE)
    count = max((int(each or other) for each, other in tried), default=0)
    print(
        f"{name:<12} {'ok' if returncode == 0 else 'FAILED':<8} {count:>10} inputs in {time.monotonic() - began:.0f} s,"
        f" edges {edges[0]} -> {edges[-1]}",
        flush=True,
    )
    if returncode:
        print("\n".join(text.splitlines()[-60:]))
    return returncode == 0


def fuzz_here(name: str, seconds: int) -> None:
    """Hand the process over to the fuzzer, which ends it."""
    import atheris

    with atheris.instrument_imports(include=INSTRUMENTED):
        target = load(name)
    corpus = FOUND / name
    corpus.mkdir(exist_ok=True)
    for number, seed in enumerate(target.SEEDS):
        (corpus / f"seed-{number:02}").write_bytes(seed)
    dictionary = FOUND / f"{name}.dict"
    dictionary.write_text("".join(f'"{_escaped(token)}"\n' for token in target.TOKENS))
    arguments = [
        sys.argv[0],
        str(corpus),
        f"-max_total_time={seconds}",
        f"-max_len={MAX_INPUT_BYTES}",
        f"-timeout={SLOWEST_INPUT_S}",
        f"-rss_limit_mb={MEMORY_MB}",
        f"-dict={dictionary}",
        f"-artifact_prefix={FOUND / 'found' / name}-",
        "-print_final_stats=1",
    ]
    atheris.Setup(arguments, target.check)
    with contextlib.suppress(KeyboardInterrupt):
        atheris.Fuzz()


def _escaped(token: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in token)


if __name__ == "__main__":
    sys.exit(main())
