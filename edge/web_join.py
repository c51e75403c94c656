"""Many modules as one script and many style sheets as one, so that a page needs few answers.

Sources stay standard modules and run as they are, too. What is joined behaves the same: each module
is a function that runs once, after those that it imports. Only what the client's sources use is
known; all else is an error when the edge starts, not one in a browser.
"""

import posixpath
import re

_IMPORT = re.compile(r"^import (?:\{([^}]*)\} from )?'([^']+)';\n", re.MULTILINE)
_SHARE = re.compile(r"^export \* from '([^']+)';\n", re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function|class|const) (\w+))", re.MULTILINE)
_UNKNOWN = re.compile(r"^(?:import|export)\b.*|^.*\bimport\.meta\b.*", re.MULTILINE)
_STYLE = re.compile(r"""^@import url\("([^"]+)"\);\n""", re.MULTILINE)


class _Script:
    """A script while it grows."""

    def __init__(self, sources: dict[str, str], entry: str):
        self._sources = sources
        self._folder = posixpath.dirname(entry)
        self._exports: dict[str, list[str]] = {}
        self._begun: set[str] = set()
        self.order: list[str] = []
        self.parts: list[str] = []

    def add(self, name: str, *, wrap: bool = True) -> None:
        """Append a module, behind all that it imports.

        Raises `ValueError` for what cannot be joined, with the module's name.
        """
        if name in self._exports:
            return
        if name in self._begun:
            raise ValueError(f"{name} imports itself by way of others")
        if name not in self._sources:
            raise ValueError(f"{name} is imported, but there is no such file")
        self._begun.add(name)
        source = self._sources[name]
        own = _EXPORT.findall(source)
        passed_on = [_beside(name, address) for address in _SHARE.findall(source)]
        for target in passed_on:
            self.add(target)
        text = _IMPORT.sub(lambda found: self._imported(name, found), source)
        text = _EXPORT.sub("", _SHARE.sub("", text))
        self._check(name, text)
        if wrap:
            given = ", ".join([*own, *(f"...{_variable(target)}" for target in passed_on)])
            text = f"const {_variable(name)} = (() => {{\n{text}return {{ {given} }};\n}})();\n"
        self._exports[name] = own + [each for target in passed_on for each in self._exports[target]]
        self.order.append(name)
        self.parts.append(f"// {name}\n{text}")

    def _imported(self, importer: str, found: re.Match[str]) -> str:
        names = [each.strip() for each in (found[1] or "").split(",") if each.strip()]
        target = _beside(importer, found[2])
        self.add(target)
        if missing := set(names) - set(self._exports[target]):
            raise ValueError(f"{importer}: {target} exports no {', '.join(sorted(missing))}")
        return f"const {{ {', '.join(names)} }} = {_variable(target)};\n" if names else ""

    def _check(self, name: str, text: str) -> None:
        for found in _UNKNOWN.finditer(text):
            # Addresses are relative to the script that all is joined to.
            if "import.meta" not in found[0] or posixpath.dirname(name) != self._folder:
                raise ValueError(f"{name}: cannot join {found[0].strip()!r}")


def script(sources: dict[str, str], entry: str) -> tuple[str, list[str]]:
    """The module `entry` with all that it imports in it, and the names of what is in it.

    `sources` are texts by their paths, with `/` between folders. Raises `ValueError`, with the
    file's name, for imports in a circle or of what is not there, and for statements that are not
    known here.
    """
    joined = _Script(sources, entry)
    joined.add(entry, wrap=False)
    return "".join(joined.parts), joined.order


def style(sources: dict[str, str], entry: str) -> tuple[str, list[str]]:
    """The style sheet `entry` with its `@import` rules replaced by what they name.

    Returns what is in it, too. Raises `ValueError` for a rule that names no file.
    """
    names = [entry]

    def imported(found: re.Match[str]) -> str:
        target = _beside(entry, found[1])
        if target not in sources:
            raise ValueError(f"{entry}: there is no {target}")
        names.append(target)
        return sources[target]

    return _STYLE.sub(imported, sources[entry]), names


def _beside(name: str, address: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(name), address))


def _variable(name: str) -> str:
    return "$" + re.sub(r"\W", "_", name.removesuffix(".js"))
