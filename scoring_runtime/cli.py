"""The command line: serve | check | tune | health | image | new-key. Parses, calls, prints; decides nothing."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from . import __version__, checks, sealing, settings, target
from .errors import StartError, TuneError, UsageError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns or raises SystemExit with the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    sealing.restart_isolated(given)
    try:
        if given[:1] == ["serve"]:
            _refuse_a_command(given[1:])
        parsed = _parser().parse_args(given)
        command = _COMMANDS[parsed.command]
        return command(parsed)
    except StartError as error:
        if isinstance(error, TuneError) and error.measured:
            print(error.measured)
        sys.stdout.flush()
        print(f"scoring-runtime: error: {error.message}", file=sys.stderr)
        traceback = getattr(error, "traceback", "")
        if traceback:
            print(f"\n{traceback.rstrip()}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def _refuse_a_command(arguments: Sequence[str]) -> None:
    from .deploy import commands

    if (why := commands.misread(arguments)) is not None and not Path(arguments[0]).is_dir():
        raise UsageError(why)


def _serve(parsed: argparse.Namespace) -> int:
    environ = sealing.seal_environment()
    chosen = _settings(parsed, environ)
    found = _target(parsed, chosen)

    from .front import app  # gunicorn must not be imported before the environment is sealed
    from .pool import gpus, launch
    from .telemetry import log
    from .tune import evidence

    chosen, seats = gpus.allot(found.engine, chosen, environ)
    plan = launch.plan(found, chosen, environ, seats)
    log.configure(chosen.log_level)
    log.banner(found, chosen, plan.arguments[0])
    log.warn(gpus.of_no_use(found.engine, chosen))
    log.warn(evidence.doubts_of_file(parsed.config_file, found.path, chosen))
    app.run(chosen, plan)


def _check(parsed: argparse.Namespace) -> int:
    environ = sealing.seal_environment()
    chosen = _settings(parsed, environ)
    found = _target(parsed, chosen)

    from .pool import gpus, launch, orphans, probe
    from .report import render

    chosen, seats = gpus.allot(found.engine, chosen, environ)
    orphans.adopt()
    try:
        info = probe.probe(launch.plan(found, chosen, environ, seats), chosen.load_timeout_s)
    finally:
        orphans.end()
    print(render(found, info))
    return 0


def _health(parsed: argparse.Namespace) -> int:
    chosen = _settings(parsed, sealing.seal_environment())

    from . import health

    why = health.why_not(chosen)
    print(why or "ok", file=sys.stderr if why else sys.stdout)
    return 1 if why else 0


def _image(parsed: argparse.Namespace) -> int:
    from .deploy import image, legacy, requirements_of_base

    if parsed.what == "map":
        found = legacy.successor(parsed.name)
        print(f"{parsed.name}: {found.explanation}")
        print(f"Use in its place: {found.image}" if found.image else "Nothing in this family takes its place.")
        return 0
    findings = image.check(parsed.name)
    print(requirements_of_base.render(findings))
    return 1 if any(finding.met is False for finding in findings) else 0


def _tune(parsed: argparse.Namespace) -> int:
    environ = sealing.seal_environment()
    given = settings.given(_flags(parsed), environ, parsed.config_file)
    chosen = settings.Settings(**given)
    found = _target(parsed, chosen)

    from .tune import run
    from .tune.order import Order

    order = Order(**{field: getattr(parsed, field) for field in Order.__dataclass_fields__})
    tuned = run.tune(found, chosen, given, order, environ)
    print(tuned.text, end="")
    return tuned.exit_code


def _new_key(parsed: argparse.Namespace) -> int:
    from .front import keys

    key, line = keys.make(parsed.name)
    print(line, flush=True)
    print(f"The key of {parsed.name}, shown only now: {key}", file=sys.stderr)
    return 0


_COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "serve": _serve,
    "check": _check,
    "tune": _tune,
    "health": _health,
    "image": _image,
    "new-key": _new_key,
}


def _target(parsed: argparse.Namespace, chosen: settings.Settings) -> target.Target:
    named = parsed.target or chosen.entry_script
    if named is None and chosen.app_root is not None:
        return target.in_app_root(chosen.app_root)
    return target.find(named)


def _settings(parsed: argparse.Namespace, environ: dict[str, str]) -> settings.Settings:
    return settings.load(_flags(parsed), environ, parsed.config_file)


def _flags(parsed: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(parsed, name) for name in settings.ROWS if getattr(parsed, name, None) is not None}


class _Parser(argparse.ArgumentParser):
    """argparse, with our exit code and our way of saying what is wrong."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}. Try `{self.prog} --help`.")


class _ParseFlag(argparse.Action):
    """Checks a flag with its row of the settings table."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, value: Any, option: Any = None
    ) -> None:
        try:
            before, separator = getattr(namespace, self.dest, None), settings.ROWS[self.dest].separator
            text = f"{before}{separator}{value}" if before and separator else value
            setattr(namespace, self.dest, settings.parse_flag(self.dest, text))
        except ValueError as error:
            raise UsageError(f"{option} {value}: {error}. Try `{parser.prog} --help`.") from None


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="scoring-runtime", description="Serve a score.py or an ONNX model over HTTP.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"scoring-runtime {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    for name, text in (
        ("serve", "serve a target until told to stop"),
        ("check", "load a target, warm it, and say what it is"),
        (
            "tune",
            "find the settings under which an ONNX model answers most within a limit; a setting that is given is kept",
        ),
        ("health", "ask the server that runs here with these settings whether it lives"),
    ):
        command = commands.add_parser(name, help=text, description=text.capitalize() + ".", allow_abbrev=False)
        command.add_argument(
            "target", nargs="?", metavar="TARGET", help="a score.py, an .onnx file, or a folder with one of them"
        )
        command.add_argument("--config-file", metavar="F", help="a JSON file of settings")
        if name == "tune":
            _add_order(command)
        for setting, row in settings.ROWS.items():
            command.add_argument(
                settings.flag(setting),
                dest=setting,
                action=_ParseFlag,
                metavar=row.metavar,
                help=f"{row.help} [{', '.join(row.env)}]",
            )
    text = "look up a base image's successor, or look into an image"
    command = commands.add_parser("image", help=text, description=text.capitalize() + ".", allow_abbrev=False)
    whats = command.add_subparsers(dest="what", required=True, metavar="map|check", parser_class=_Parser)
    for what, text in (
        ("map", "say which image of this family takes the place of one that was used before"),
        ("check", "say whether an image holds what a custom base image must, and whether the server in it is intact"),
    ):
        part = whats.add_parser(what, help=text, description=text.capitalize() + ".", allow_abbrev=False)
        part.add_argument("name", metavar="IMAGE")
    text = "make an API key: its line for the file of --api-keys-file goes to stdout, the key itself to stderr"
    command = commands.add_parser("new-key", help=text, description=text.capitalize() + ".", allow_abbrev=False)
    command.add_argument("name", metavar="NAME", help="whose key it is")
    return parser


def _add_order(command: argparse.ArgumentParser) -> None:
    """What `tune` alone is told."""
    positive = _checked(checks.number(0.001, 3_600_000))
    command.add_argument(
        "--slo-p99-ms", required=True, type=positive, metavar="X", help="99 of 100 requests are answered within X ms"
    )
    command.add_argument(
        "--samples",
        action="append",
        default=[],
        metavar="PATH",
        help="requests to measure with: a file of JSON bodies, one a line, or a folder of bodies; may be given more than "
        "once (default: made-up ones)",
    )
    command.add_argument(
        "--budget-s",
        type=_checked(checks.seconds(5, 86400)),
        default=120.0,
        metavar="S",
        help="longest time of the whole search (default: 120)",
    )
    command.add_argument(
        "--out", default="tuned.json", metavar="FILE", help="the settings that were found (default: tuned.json)"
    )
    command.add_argument(
        "--report", metavar="PATH", help="folder, or .html file, of the page with the plot (default: beside --out)"
    )
    command.add_argument(
        "--providers",
        type=_checked(checks.provider_list),
        metavar="LIST",
        help="providers to try (default: all that work)",
    )
    command.add_argument(
        "--tolerance",
        type=_checked(checks.number(0, 1)),
        metavar="R",
        help="how far floats may be from the reference's: R of the value plus R / 10 of the largest one "
        "(default: by their type, 1e-5 for float32)",
    )


def _checked(check: Callable[[str], Any]) -> Callable[[str], Any]:
    """A check as argparse wants one: its text is what argparse prints."""

    def parse(text: str) -> Any:
        try:
            return check(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parse
