"""Reading the settings: environment first, then the TOML file, then the defaults.

Everything wrong is reported at once, each with the name of the setting, the value (but never that
of a secret), what is expected and where the value came from.
"""

import difflib
import tomllib
from collections.abc import Mapping, Set
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta, Struct

from .errors import SettingsError
from .settings import Settings
from .settings_check import problems_of

PREFIX = "HIKYAKU_"
CONFIG = "HIKYAKU_CONFIG"
TEST_PREFIX = "HIKYAKU_TEST_"


class Field(Struct, frozen=True, kw_only=True):
    """One setting as it is documented."""

    name: str
    type: Any
    default: Any
    sentence: str
    expected: str
    secret: bool

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return PREFIX + self.name.upper()


class Loaded(Struct, frozen=True, kw_only=True):
    """Settings, and for each name where its value came from."""

    settings: Settings
    sources: dict[str, str]


class _Given(Struct, frozen=True):
    value: Any
    source: str


def load(environ: Mapping[str, str], *, unused: Set[str] = frozenset()) -> Loaded:
    """Read and check the settings. Raises `SettingsError` with all problems.

    What settings must satisfy together is not checked where it concerns those in `unused`, which
    the process does not need.
    """
    problems: list[str] = []
    given = _from_file(environ.get(CONFIG, ""), problems)
    given.update(_from_environment(environ, problems))
    values = {}
    for name, value in given.items():
        try:
            values[name] = _convert(FIELDS[name], value)
        except ValueError as error:
            problems.append(str(error))
    settings = Settings(**values)
    sources = {name: given[name].source if name in given else "default" for name in FIELDS}
    problems += [
        f"{FIELDS[name].variable}: {problem} ({_where(sources[name])})"
        for name, problem in problems_of(settings, wrong=(given.keys() - values.keys()) | unused)
    ]
    if problems:
        raise SettingsError(problems)
    return Loaded(settings=settings, sources=sources)


def _from_file(path: str, problems: list[str]) -> dict[str, _Given]:
    if not path:
        return {}
    try:
        content = tomllib.loads(Path(path).expanduser().read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"{CONFIG}: cannot read {path}: {_reason(error)}")
        return {}
    except tomllib.TOMLDecodeError as error:
        problems.append(f"{CONFIG}: {path} is not valid TOML: {error}")
        return {}
    for name in content.keys() - FIELDS.keys():
        hint = _did_you_mean(name, list(FIELDS))
        problems.append(f"{name}: there is no such setting{hint} (from the file {path})")
    return {name: _Given(content[name], f"file {path}") for name in content if name in FIELDS}


def _from_environment(environ: Mapping[str, str], problems: list[str]) -> dict[str, _Given]:
    """An empty variable counts as unset."""
    by_variable = {field.variable: field for field in FIELDS.values()}
    given = {}
    for variable, value in environ.items():
        if not variable.startswith(PREFIX) or variable == CONFIG:
            continue
        if variable in by_variable:
            if value:
                given[by_variable[variable].name] = _Given(value, "environment")
        elif not variable.startswith(TEST_PREFIX):
            hint = _did_you_mean(variable, [*by_variable, CONFIG])
            problems.append(f"{variable}: there is no such setting{hint} (from the environment)")
    return given


def _convert(field: Field, given: _Given) -> Any:
    value = given.value
    if get_origin(_bare(field.type)) is tuple and isinstance(value, str):
        value = [part for part in (part.strip() for part in value.split(",")) if part]
    try:
        return msgspec.convert(value, field.type, strict=given.source != "environment")
    except msgspec.ValidationError:
        shown = "its value" if field.secret else repr(given.value)
        raise ValueError(
            f"{field.variable}: {shown} does not fit: expected {field.expected}"
            f" ({_where(given.source)})"
        ) from None


def _where(source: str) -> str:
    return source if source == "default" else f"from the {source}"


def _did_you_mean(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else "it is not UTF-8"


def _bare(annotated: Any) -> Any:
    return annotated.__origin__ if hasattr(annotated, "__metadata__") else annotated


def _fields() -> dict[str, Field]:
    hints = get_type_hints(Settings, include_extras=True)
    defaults = Settings()
    fields = {}
    own = list(Settings.__annotations__)
    for name in [*own, *(each for each in Settings.__struct_fields__ if each not in own)]:
        metas: list[Meta] = list(hints[name].__metadata__)
        described = next(meta for meta in metas if meta.description)
        fields[name] = Field(
            name=name,
            type=hints[name],
            default=getattr(defaults, name),
            sentence=described.description or "",
            expected=_expected(_bare(hints[name]), metas),
            secret=bool(described.extra and described.extra.get("secret")),
        )
    return fields


def _expected(kind: Any, metas: list[Meta]) -> str:
    if get_origin(kind) is Literal:
        return " or ".join(str(choice) for choice in get_args(kind))
    if get_origin(kind) is tuple:
        return "values separated by commas (in TOML also a list of strings)"
    if isinstance(kind, UnionType) or kind not in (int, float, str):
        raise TypeError(f"a setting cannot be of type {kind}")
    low = next((meta.ge for meta in metas if meta.ge is not None), None)
    high = next((meta.le for meta in metas if meta.le is not None), None)
    text = {int: "a whole number", float: "a number", str: "text"}[kind]
    if low is not None or high is not None:
        text += f" from {low} to {high}"
    pattern = next((meta.pattern for meta in metas if meta.pattern), None)
    if pattern:
        text += f" that matches {pattern}"
    elif any(meta.min_length for meta in metas):
        text += " that is not empty"
    return text


FIELDS = _fields()
"""Every setting by name: those of `Settings` itself, then those of its parts."""
