"""The pages name files, tests, modules and headings that exist."""

import ast
import pkgutil
import re
from configparser import ConfigParser
from functools import cache
from pathlib import Path

import click
import generate_docs
import pytest
from test_layers import ORDER

from hpml_bench.cli import main
from hpml_bench.suite import registry

ROOT = Path(__file__).parents[1]
PAGES = [
    *sorted(ROOT.glob("docs/*.md")),
    *sorted(ROOT.glob("*.md")),
    *(
        ROOT / name
        for name in (
            "reports/README.md",
            "reports/reference/README.md",
            "benchmarks/tuning/README.md",
        )
    ),
    ROOT / "reports/reference/performance/README.md",
    *sorted(ROOT.glob("hpml_bench/assets/*/README.md")),
]
FOLDERS = {"reliability.md": "tests/launch/faults", "security.md": "tests/hostile"}
"""Where the tests lie that a page names without a folder."""
GENERATED = {
    "commands.md",
    "files.md",
    "metrics.md",
    "settings.md",
    "methods-support.md",
    "fake-cuda.md",
}
MOST_WORDS = {ROOT / "README.md": 900} | {
    page: 1200 for page in PAGES if page.parent == ROOT / "docs" and page.name not in GENERATED
}
"""Words of prose that a first-time reader may be given; an appendix holds what else a page has."""
NO_PROSE = re.compile(
    r"^#+ Appendix\b.*|^```.*?^```$|^(?:#|\||<!--| {4})[^\n]*", re.MULTILINE | re.DOTALL
)
"""An appendix to its end, a block of code, and a line of a heading, a table, a comment or
indented code.
"""
EXTERNAL = re.compile(r"^[a-z]+:")
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
PYTHON = re.compile(r"(?<![\w.])([\w*./-]*\w\.py)((?:(?:`, `)?::test_\w+)*)(?!\w)")
INSIDE = re.compile(
    r"(?<![\w./])((?:hpml_bench|tests|benchmarks|docs|templates|reports/reference)/(?:[\w*./-]*[\w*/-])?)"
)
TEST = re.compile(r"`(test_\w+)`")
MODULE = re.compile(r"\bhpml_bench((?:\.\w+)+)")
PLACEHOLDER = re.compile(r"\b[A-Z]{2,}\b")
"""What stands for a name of the reader's own, such as NAME in `methods/NAME.py`: only the folder
must exist.
"""


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives a page's headings."""
    headings = re.findall(r"^#+ (.+)$", text(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def files(name: str, folders: tuple[Path, ...]) -> list[Path]:
    """Return the files or folders of a name in the first of some folders that has any."""
    if PLACEHOLDER.search(name):
        name = PLACEHOLDER.split(name)[0].rpartition("/")[0]
    return next(
        (found for folder in folders if (found := list(folder.glob(name.rstrip("/") or ".")))), []
    )


@cache
def functions(file: Path) -> frozenset[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def broken_links(page: Path) -> list[str]:
    broken = []
    for link in filter(lambda link: not EXTERNAL.match(link), LINK.findall(text(page))):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    return broken


def missing_files(page: Path) -> list[str]:
    """Return the paths that a page names and that don't exist, and the tests that their files
    don't define.
    """
    folders = (ROOT, ROOT / "hpml_bench", ROOT / FOLDERS.get(page.name, "docs"))
    missing = [name for name in INSIDE.findall(text(page)) if not files(name, folders)]
    for name, tests in PYTHON.findall(text(page)):
        found = files(name, folders)
        missing += [] if found else [name]
        missing += [
            test
            for test in re.findall(r"test_\w+", tests)
            if found and test not in functions(found[0])
        ]
    return missing


def missing_tests(page: Path) -> list[str]:
    """Return what a page names like a test that is neither a test nor a metric nor a setting."""
    generated = {
        name
        for one in ("metrics.md", "settings.md")
        for name in TEST.findall(text(ROOT / "docs" / one))
    }
    known = generated.union(*(functions(file) for file in (ROOT / "tests").rglob("test_*.py")))
    return [name for name in TEST.findall(text(page)) if name not in known]


def missing_modules(page: Path) -> list[str]:
    """Return the dotted names of a page that are neither a module, nor defined in one, nor a
    group of entry points.
    """
    missing = []
    for dotted in MODULE.findall(text(page)):
        group = dotted.rpartition(".")[2] in registry.ONE or dotted == ".commands"
        try:
            pkgutil.resolve_name(f"hpml_bench{dotted}")
        except (ImportError, AttributeError):
            missing += [] if group else [f"hpml_bench{dotted}"]
    return missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_names_exists(page: Path) -> None:
    """Links, files, folders, tests and modules; where a name stands for one of the reader's own,
    its folder.
    """
    assert broken_links(page) == []
    assert missing_files(page) == []
    assert missing_tests(page) == []
    assert missing_modules(page) == []


@pytest.mark.parametrize("page", MOST_WORDS, ids=lambda page: page.name)
def test_a_page_is_short(page: Path) -> None:
    """Outside code, tables and its appendix a page has at most 1,200 words, README 900."""
    assert len(NO_PROSE.sub("", text(page)).split()) <= MOST_WORDS[page]


def commands() -> dict[str, click.Command]:
    """Return the commands of the package and of its groups by their words."""
    context, found = click.Context(main), dict[str, click.Command]()
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        assert command is not None
        found[name] = command
        for inner, of_group in getattr(command, "commands", {}).items():
            found[f"{name} {inner}"] = of_group
    return found


def options(command: click.Command) -> set[str]:
    """Return the options of a command as they are typed."""
    context = click.Context(command)
    return {
        word for one in command.get_params(context) for word in (*one.opts, *one.secondary_opts)
    }


def test_the_page_of_commands_begins_with_a_list_of_them() -> None:
    """A row for each, which leads to its options."""
    page = text(ROOT / "docs/commands.md")
    listed = re.findall(r"^\| \[`([a-z-]+)`\]\(#hpml-bench-\1\) \|", page, re.MULTILINE)
    assert listed == [name for name in commands() if " " not in name]


def test_the_page_of_commands_has_every_option() -> None:
    """docs/commands.md is made from the commands: run benchmarks/generate_docs.py after a
    change.
    """
    parts = re.split(r"^## `hpml-bench (.+)`$", text(ROOT / "docs/commands.md"), flags=re.MULTILINE)
    shown = dict(zip(parts[1::2], parts[2::2], strict=True))
    assert shown.keys() == commands().keys()
    for name, command in commands().items():
        listed = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", shown[name]))
        named = {word for word in options(command) if word.startswith("--")} - {"--help"}
        assert named <= listed, name


def wrong_options(page: Path) -> list[str]:
    """Return the options that a page gives to commands of ours, and they don't have."""
    known, wrong = commands(), []
    for call in re.findall(r"hpml-bench ([a-z-]+(?: save)?\b[^\n`|;#]*)", text(page)):
        # a second command of the line, and what follows another program's name, are others'
        first = call.partition("&&")[0]
        words = first.split()
        name = "baseline save" if words[0] == "baseline" else words[0]
        if name not in known:
            continue
        given = re.findall(r"(?<![\w-])--[a-z][\w-]*", first)
        wrong += [f"{name} {word}" for word in given if word not in options(known[name])]
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_gives_commands_options_that_they_have(page: Path) -> None:
    """In each line or code that begins with a command of ours."""
    assert wrong_options(page) == []


@pytest.mark.parametrize("name", ["metrics", "settings"])
def test_a_reference_page_is_up_to_date(name: str) -> None:
    """docs/ holds what benchmarks/generate_docs.py writes: run it after a change of a setting or
    a metric.
    """
    expected = getattr(generate_docs, f"{name}_page")()
    assert text(ROOT / "docs" / f"{name}.md") == expected


def test_the_table_of_packages_is_the_order_of_imports() -> None:
    """docs/architecture.md names every module and folder at the top of hpml_bench, in the order
    that imports have.
    """
    rows = re.findall(
        r"^\| `(\w+)(?:\.py|/)` \|", text(ROOT / "docs" / "architecture.md"), re.MULTILINE
    )
    paths = (ROOT / "hpml_bench").glob("[a-z_]*")
    top = [path.stem for path in paths if path.suffix == ".py" or any(path.glob("*.py"))]
    assert rows == [name for name in ORDER if name in top]
    assert set(rows) == set(top) - {"__init__"}


def test_a_wrong_name_is_found(tmp_path: Path) -> None:
    """The test's own eyes: a page of names that don't exist, each of which is told."""
    page = tmp_path / "security.md"
    page.write_text(
        "# A page\n[here](#a-page) [there](#nowhere) [gone](gone.md) [web](https://example.org)\n"
        "`error.py`, `hpml_bench/builtin/methods/NAME.py`, `hpml_bench/method/NAME.py`,"
        " `hpml_bench/stats/`\n"
        "`test_suites.py::test_suites_that_are_not_there`, `test_nothing_of_this_name`, "
        "`test_accuracy`\n"
        "`hpml_bench.system.errors.UserError`, `hpml_bench.system.errors.UserErrors`, "
        "`hpml_bench.builtin.methods`,"
        " `hpml_bench.sections`\n"
        "`hpml-bench run-all mine.yaml --seed 3 --retries 2`,"
        " `hpml-bench baseline save a --run 3`\n"
    )
    assert broken_links(page) == ["#nowhere", "gone.md"]
    assert set(missing_files(page)) == {
        "error.py",
        "hpml_bench/method/NAME.py",
        "hpml_bench/stats/",
        "test_suites_that_are_not_there",
    }
    assert missing_tests(page) == ["test_nothing_of_this_name"]
    assert wrong_options(page) == ["run-all --seed", "baseline save --run"]
    assert missing_modules(page) == ["hpml_bench.system.errors.UserErrors"]


# Environments: every test is run by README's command or by one that continuous integration runs
# after it

NOT_IN_CI = {"cluster_slow", "cuda", "fit"}
"""Markers of tests of many minutes, which are left out on purpose."""


def test_what_is_left_out_here_is_run_by_continuous_integration(
    pytestconfig: pytest.Config,
) -> None:
    """By `ci`, or an environment whose calls it does; where one leaves serial tests out, another
    call has them.
    """
    tox = ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini", encoding="utf-8")
    commands = tox["testenv:ci"]["commands"]
    for name in re.findall(r"\{\[testenv:([\w-]+)\]commands\}", commands):
        commands += "\n" + tox[f"testenv:{name}"]["commands"]
    called = {
        name
        for expression in re.findall(r'^pytest .*-m "([^"]+)"', commands, re.MULTILINE)
        for name in re.findall(r"\w+", re.sub(r"not \w+", "", expression))
    }
    conftest = pytestconfig.pluginmanager.get_plugin(str(ROOT / "tests/conftest.py"))
    assert set(conftest.APART) - NOT_IN_CI <= called
    for name, environment in tox.items():
        commands = environment.get("commands", "")
        if re.search(r"not \(?serial", commands):
            assert re.search(r"(?<!not )(?<!not \()serial", commands), name


def test_continuous_integration_runs_both() -> None:
    """README's command, word for word, then `ci`; with CI set, so that no skip passes for a
    test.
    """
    script = (ROOT / ".ci/run").read_text(encoding="utf-8")
    (command,) = re.findall(
        r"^    (python3 -m venv .*pip install tox.*)$", text(ROOT / "README.md"), re.MULTILINE
    )
    assert command in script.replace("install -q", "install")
    assert re.search(r"^export CI=1", script, re.MULTILINE)
    after = script.partition("tox -e tests ")[2]
    for key in ("commands", "commands_pre", "pass_env"):
        assert f"-x 'testenv:tests.{key}={{[testenv:ci]{key}}}'" in after, (
            "all of ci in the tests' environment"
        )
