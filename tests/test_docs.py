"""The pages say what is: settings, commands, routes, files and links that they name exist."""

import json
import re
import runpy
from pathlib import Path

import pytest

import scoring_runtime
from scoring_runtime import cli, providers, sealing, settings
from scoring_runtime.errors import StartError
from scoring_runtime.front import routes

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = Path(scoring_runtime.__file__).parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
PAGES = sorted(
    page for pattern in ("*.md", "docs/*.md", "benchmarks/*.md", "examples/**/*.md") for page in ROOT.glob(pattern)
)
SOURCE = "\n".join(path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py")))


def test_the_page_of_settings_is_fresh():
    rendered = runpy.run_path(str(ROOT / "docs" / "render_settings.py"))["render"]()

    assert (ROOT / "docs" / "settings.md").read_text(encoding="utf-8") == rendered, "run: make docs"


def test_the_page_of_reliability_is_fresh():
    results = json.loads((ROOT / "benchmarks" / "results" / "reliability.json").read_text(encoding="utf-8"))
    rendered = runpy.run_path(str(ROOT / "docs" / "render_reliability.py"))["render"](results)

    assert (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8") == rendered, "run: make docs"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path):
    text = page.read_text(encoding="utf-8")
    targets = [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match(r"[a-z]+:", target)]

    for target in targets:
        name, _, anchor = target.partition("#")
        linked = (page.parent / name).resolve() if name else page
        assert linked.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in anchors(linked), f"{page.name} links to {target}"


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    explicit = re.findall(r'<a id="([^"]+)"></a>', page.read_text(encoding="utf-8"))
    return {*explicit} | {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_make_targets_exist(page: Path):
    named = re.findall(r"(?:^    |`|^\$ )make ([a-z-]+)", page.read_text(encoding="utf-8"), re.MULTILINE)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")

    assert set(named) <= set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))


def test_the_page_of_providers_has_all_options_and_what_a_server_wants_of_them():
    text = (ROOT / "docs" / "providers.md").read_text(encoding="utf-8")
    for provider in providers.PROVIDERS.values():
        assert f"`{provider.name}`" in text
        listed = re.search(rf"^- \*\*{provider.name}\*\*: ((?:.+\n(?:  .+\n)*))", text, re.MULTILINE)
        names = set(re.findall(r"`(\w+)`", listed[1])) if listed else set()
        assert names == provider.options, provider.name
        for option, value in provider.defaults.items():
            assert f"| `{provider.name}.{option}` | `{value}` |" in text


@pytest.mark.parametrize(
    "page", ["README.md", "docs/architecture.md", "docs/settings.md", "docs/providers.md", "CHANGELOG.md"]
)
def test_flags_and_variables_exist(page: str):
    text = (ROOT / page).read_text(encoding="utf-8")
    flags = {settings.flag(name) for name in settings.ROWS} | set(re.findall(r'"(--\w[\w-]*)"', SOURCE)) | {"--help"}
    variables = {variable for row in settings.ROWS.values() for variable in row.env}

    assert set(re.findall(r"(?<![\w-])--[a-z][\w-]*", text)) <= flags
    for variable in re.findall(r"\b(?:SCORING|AZUREML|AML|WORKER|SERVICE|GUNICORN)_\w+", text):
        assert variable in variables or variable in SOURCE, variable


def test_commands_exist(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sealing, "restart_isolated", lambda arguments: None)
    named = set(re.findall(r"scoring-runtime ([a-z]+)", README))

    assert named >= {"serve", "check"}
    for command in named:
        with pytest.raises(SystemExit) as ended:
            cli.main([command, "--help"])
        assert ended.value.code == 0
    assert "TARGET" in capsys.readouterr().out


def test_every_route_stands_in_the_readme():
    table = re.findall(r"^\| `[A-Z]+ (/[^` ]*)`", README, re.MULTILINE)

    assert set(table) == {path.decode() for path in (*routes.ROUTES, *routes.MODELS)}


def test_every_exit_code_stands_in_the_readme():
    table = re.search(r"^\| exit code .*?\n\n", README, re.MULTILINE | re.DOTALL)
    assert table is not None
    codes = {int(code) for code in re.findall(r"^\| (\d+) \|", table[0], re.MULTILINE)}

    assert codes == {0} | {error.exit_code for error in all_start_errors()}


def all_start_errors() -> list[type[StartError]]:
    found = [StartError]
    for error in found:
        found.extend(error.__subclasses__())
    return found


def test_every_file_stands_in_the_architecture():
    listed = set(re.findall(r"^\| `([\w/]+\.py)` \|", ARCHITECTURE, re.MULTILINE))
    modules = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if path.read_text().strip()}
    modules -= {path for path in modules if path.endswith("__init__.py")} | {"__main__.py"}

    assert listed == modules


def test_every_file_that_the_architecture_names_exists():
    named = re.findall(r"`((?:\w+/)*\w+\.py)`", ARCHITECTURE)

    missing = {name for name in named if name != "score.py" and not (PACKAGE / name).is_file()}
    assert missing == {"gunicorn.conf.py"} & set(named)
