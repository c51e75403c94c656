"""Who may import whom, and the house rules for modules, checked on the source."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("bench", "broker", "client", "deploy", "edge", "search", "store", "tests", "workers")
MAX_LINES = 500

MAY_IMPORT = {
    "broker": (),
    "edge": ("broker",),
    "store": ("broker.events",),
    "search": ("broker.events",),
    "workers": ("broker", "store", "search"),
    "client": ("edge.frames", "edge.close_codes"),
}
"""What of ours each package may import besides itself; a name allows what is below it too."""

DRIVERS = {
    "nats": "broker",
    "opentelemetry": "broker",
    "httpcore2": "workers",
    **dict.fromkeys(("meilisearch", "tantivy"), "search"),
    **dict.fromkeys(("motor", "pymongo", "bson", "obstore", "pyarrow"), "store"),
}
"""Libraries that one package alone may know."""


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full dotted name of everything imported, relative imports resolved."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    for node in ast.walk(parsed(path)):
        match node:
            case ast.Import():
                for alias in node.names:
                    yield node.lineno, alias.name
            case ast.ImportFrom():
                above = parts[: len(parts) - node.level] if node.level else ()
                base = ".".join((*above, *([node.module] if node.module else [])))
                for alias in node.names:
                    yield node.lineno, f"{base}.{alias.name}"
            case ast.Call(func=ast.Name(id="__import__")):
                yield node.lineno, "__import__"
            case ast.Call(func=ast.Attribute(attr="import_module")):
                yield node.lineno, "importlib.import_module"


def below(name: str, parents: tuple[str, ...]) -> bool:
    return any(name == parent or name.startswith(f"{parent}.") for parent in parents)


def everything() -> list[Path]:
    found = [path for package in PACKAGES for path in modules(package)]
    assert len(found) > 50
    return found


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_packages_import_only_what_is_below_them(package: str) -> None:
    allowed = (package, *MAY_IMPORT[package])
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in modules(package)
        for line, name in imports(path)
        if below(name, PACKAGES) and not below(name, allowed)
    ]
    assert not wrong


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_nothing_is_imported_by_a_computed_name(package: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in modules(package)
        for line, name in imports(path)
        if name in ("__import__", "importlib.import_module")
    ]
    assert not wrong


@pytest.mark.parametrize("library", DRIVERS)
def test_one_package_alone_knows_a_driver(library: str) -> None:
    users = {
        path.relative_to(ROOT).parts[0]: f"{path.relative_to(ROOT)}:{line}"
        for path in everything()
        for line, name in imports(path)
        if below(name, (library,))
    }
    users.pop("tests", None)
    assert set(users) <= {DRIVERS[library]}, users


def test_the_drivers_are_found_where_they_are() -> None:
    """The rules above can only fail if imports are seen at all."""
    names = {name for path in everything() for _, name in imports(path)}
    assert {"nats.aio.client.Client", "broker.bus.Bus", "edge.frames.Ack"} <= names
    assert any(below(name, ("motor", "pymongo")) for name in names)


@pytest.mark.parametrize("package", PACKAGES)
def test_modules_have_at_most_500_lines(package: str) -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in modules(package)
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > MAX_LINES
    }
    assert not long


@pytest.mark.parametrize("package", PACKAGES)
def test_modules_have_a_docstring(package: str) -> None:
    bare = [
        str(path.relative_to(ROOT))
        for path in modules(package)
        if path.read_text(encoding="utf-8").strip() and not ast.get_docstring(parsed(path))
    ]
    assert not bare
