"""Limits of size and shape, read from the source text: nothing is imported."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("controlplane", "reconcilers", "schemas")
LONGEST_FUNCTION = 70
LONGEST_FILE = 600
MOST_PARAMETERS = 5
DEEPEST_NESTING = 4
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "base", "manager", "managers"}
FIVE_FILES = {"__init__.py", "model.py", "plan.py", "backend.py", "reconciler.py"}
# Put together here so that this file doesn't hold what it looks for.
UNFINISHED = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X", "NotImplemented" + "Error")) + r")\b")
MACHINE_PATH = re.compile("/(" + "|".join(("wo" + "rk", "ro" + "ot", "fa" + "rm")) + ")/")
NESTING = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Try, ast.TryStar, ast.Match)
Function = ast.FunctionDef | ast.AsyncFunctionDef


def files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def place(path: Path, node: ast.AST | None = None) -> str:
    name = str(path.relative_to(ROOT))
    return name if node is None else f"{name}:{getattr(node, 'lineno', 1)} {getattr(node, 'name', '')}".rstrip()


def functions(path: Path) -> Iterator[Function]:
    return (node for node in ast.walk(tree(path)) if isinstance(node, Function))


def depth(node: ast.AST) -> int:
    """Nested blocks below a node; `elif` and inner functions begin no new level."""
    deepest = 0
    for field, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or isinstance(child, Function | ast.ClassDef | ast.Lambda):
                continue
            is_elif = isinstance(node, ast.If) and field == "orelse" and isinstance(child, ast.If) and len(value) == 1
            deepest = max(deepest, depth(child) + (isinstance(child, NESTING) and not is_elif))
    return deepest


def positional(function: Function) -> int:
    names = [argument.arg for argument in (*function.args.posonlyargs, *function.args.args)]
    return len(names) - (names[:1] in (["self"], ["cls"]))


def documented(node: ast.Module | ast.ClassDef | Function) -> bool:
    return bool(ast.get_docstring(node))


def public_definitions(node: ast.Module | ast.ClassDef) -> Iterator[ast.ClassDef | Function]:
    for child in node.body:
        if isinstance(child, ast.ClassDef | Function) and not child.name.startswith("_"):
            yield child
            if isinstance(child, ast.ClassDef):
                yield from public_definitions(child)


def of_type_checking(node: ast.If) -> bool:
    return "TYPE_CHECKING" in ast.unparse(node.test)


def own_imports(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.walk(node):
        names = [alias.name for alias in child.names] if isinstance(child, ast.Import) else []
        names += [child.module or "."] if isinstance(child, ast.ImportFrom) else []
        if any(name.partition(".")[0] in PACKAGES for name in names):
            yield child


def test_no_function_is_longer_than_the_limit():
    long = [
        f"{place(path, function)}: {function.end_lineno - function.lineno + 1} lines"
        for path in files(*PACKAGES, "tests")
        for function in functions(path)
        if function.end_lineno is not None and function.end_lineno - function.lineno + 1 > LONGEST_FUNCTION
    ]
    assert long == []


def test_no_file_is_longer_than_the_limit():
    sizes = {place(path): len(path.read_text(encoding="utf-8").splitlines()) for path in files(*PACKAGES, "tests")}
    assert {name: lines for name, lines in sizes.items() if lines > LONGEST_FILE} == {}


def test_no_function_takes_more_positional_parameters_than_the_limit():
    wide = [
        f"{place(path, function)}: {positional(function)}"
        for path in files(*PACKAGES)
        for function in functions(path)
        if positional(function) > MOST_PARAMETERS
    ]
    assert wide == []


def test_no_function_is_nested_deeper_than_the_limit():
    deep = [
        f"{place(path, function)}: {depth(function)} levels"
        for path in files(*PACKAGES)
        for function in functions(path)
        if depth(function) > DEEPEST_NESTING
    ]
    assert deep == []


def test_no_module_or_package_has_a_name_that_says_nothing():
    vague = [place(path) for path in files(*PACKAGES) if VAGUE_NAMES & {path.stem, path.parent.name}]
    assert vague == []


def test_a_package_says_what_belongs_there_and_exports_nothing():
    faults = []
    for path in files(*PACKAGES):
        if path.name != "__init__.py":
            continue
        if not documented(tree(path)):
            faults.append(f"{place(path)}: no docstring")
        imports = (ast.Import, ast.ImportFrom)
        faults += [f"{place(path, node)}: imports" for node in ast.walk(tree(path)) if isinstance(node, imports)]
        faults += [
            f"{place(path, node)}: __all__"
            for node in ast.walk(tree(path))
            if isinstance(node, ast.Name) and node.id == "__all__"
        ]
    assert faults == []


def test_every_folder_with_modules_is_a_package():
    folders = {path.parent for path in files(*PACKAGES)}
    assert [place(folder) for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []


def test_every_module_and_every_public_function_and_class_has_a_docstring():
    silent = [
        place(path, node)
        for path in files(*PACKAGES)
        for node in (tree(path), *public_definitions(tree(path)))
        if not documented(node)
    ]
    assert silent == []


def test_our_own_modules_are_imported_at_the_top_and_not_for_typing_only():
    """But for the modules `choice`: they load the one implementation that the configuration chose."""
    hidden = []
    for path in files(*PACKAGES):
        for node in ast.walk(tree(path)):
            late = isinstance(node, Function) and path.stem != "choice"
            if late or (isinstance(node, ast.If) and of_type_checking(node)):
                hidden += [place(path, found) for found in own_imports(node)]
    assert hidden == []


def test_no_exception_is_swallowed():
    swallowed = [
        place(path, handler)
        for path in files(*PACKAGES, "tests")
        for handler in ast.walk(tree(path))
        if isinstance(handler, ast.ExceptHandler)
        and (handler.type is None or ast.unparse(handler.type) in ("Exception", "BaseException"))
        and all(isinstance(statement, ast.Pass | ast.Continue) for statement in handler.body)
    ]
    assert swallowed == []


@pytest.mark.parametrize("pattern", [UNFINISHED, MACHINE_PATH], ids=["unfinished", "machine path"])
def test_the_source_holds_no_unfinished_marks_and_no_paths_of_a_machine(pattern: re.Pattern[str]):
    found = [
        f"{place(path)}:{number}"
        for path in files(*PACKAGES, "tests")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if pattern.search(line)
    ]
    assert found == []


def test_tests_are_not_skipped_and_not_expected_to_fail():
    marks = re.compile(r"pytest\.(mark\.)?(sk" + r"ip|xf" + r"ail)|importor" + "skip")
    assert [place(path) for path in files("tests") if marks.search(path.read_text(encoding="utf-8"))] == []


def test_the_folder_of_every_reconciler_has_the_same_five_files():
    folders = [path for path in (ROOT / "reconcilers").iterdir() if path.is_dir() and path.name != "__pycache__"]
    missing = {folder.name: FIVE_FILES - {path.name for path in folder.iterdir()} for folder in folders}
    assert folders
    assert {name: files for name, files in missing.items() if files} == {}


def test_the_glue_of_every_reconciler_is_short():
    sizes = {
        place(path): len(path.read_text(encoding="utf-8").splitlines())
        for path in (ROOT / "reconcilers").glob("*/reconciler.py")
    }
    assert {name: lines for name, lines in sizes.items() if lines > 60} == {}


def test_only_the_backend_of_a_reconciler_does_io():
    clients = {"redis", "pymemcache", "aiohttp", "socket", "asyncio", "time", "random", "os", "subprocess", "structlog"}
    found = []
    for path in (ROOT / "reconcilers").glob("*/*.py"):
        imported = {
            name.partition(".")[0]
            for node in ast.walk(tree(path))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names])
        }
        if path.stem in ("model", "plan", "reconciler") and imported & clients:
            found.append(f"{place(path)}: {sorted(imported & clients)}")
    assert found == []
