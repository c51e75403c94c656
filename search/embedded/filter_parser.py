"""Filters as text (`chat IN [a, b] AND seq > 5`) to a tree, by Meilisearch's grammar.

A filter in the form of arrays is an AND of its items; an item that is an array is an OR.
"""

import re
from collections.abc import Callable
from typing import Any, NoReturn

import msgspec
from msgspec import Struct

from .errors import ApiError

MAX_DEPTH = 200
"""Nesting, counted as Meilisearch does: a parenthesis counts four, a NOT one."""


class Compare(Struct, frozen=True):
    """`op` is one of `=`, `!=`, `>`, `>=`, `<`, `<=`."""

    field: str
    op: str
    value: str


class Between(Struct, frozen=True):
    """`field low TO high`."""

    field: str
    low: str
    high: str


class In(Struct, frozen=True):
    """`field IN [values]`."""

    field: str
    values: tuple[str, ...]


class Has(Struct, frozen=True):
    """`state` is one of `EXISTS`, `NULL`, `EMPTY`."""

    field: str
    state: str


class Not(Struct, frozen=True):
    """What does not match the inner condition."""

    inner: "Condition"


class And(Struct, frozen=True):
    """What matches all."""

    all: tuple["Condition", ...]


class Or(Struct, frozen=True):
    """What matches any."""

    any: tuple["Condition", ...]


Condition = Compare | Between | In | Has | Not | And | Or

_KEYWORDS = frozenset(
    (
        *("AND", "OR", "IN", "NOT", "TO", "EXISTS", "IS", "NULL", "EMPTY", "CONTAINS"),
        *("STARTS", "WITH", "_geoRadius", "_geoBoundingBox"),
    )
)
_SPACE = re.compile(r"\s*")
_WORD = re.compile(r"(?:[^\W_]|[_.-])+")
_OPERATOR = re.compile(r"<=|>=|!=|<|>|=")
_QUOTED = {quote: re.compile(rf"(?:[^\\{quote}]|\\.)*", re.DOTALL) for quote in "'\""}
_ERROR_WORD = re.compile(r"[^\s()=<>!]*")
_GEO = re.compile(r"_geo\w*")
_IN = re.compile(r"(NOT\s+)?IN(?![\w.-])\s*")
_TO = re.compile(r"TO\s+")
_STATES = (
    (re.compile(r"IS\s+NULL"), "NULL", False),
    (re.compile(r"IS\s+NOT\s+NULL"), "NULL", True),
    (re.compile(r"IS\s+EMPTY"), "EMPTY", False),
    (re.compile(r"IS\s+NOT\s+EMPTY"), "EMPTY", True),
    (re.compile(r"EXISTS"), "EXISTS", False),
    (re.compile(r"NOT\s+EXISTS"), "EXISTS", True),
)
_EXPERIMENTAL = re.compile(r"(?:NOT\s+)?(?:CONTAINS|STARTS WITH)")
_ESCAPE = re.compile(r"\\(u\{[0-9A-Fa-f]{1,6}\}|u[0-9A-Fa-f]{4}|x[0-9A-Fa-f]{2}|.?)", re.DOTALL)
_ESCAPES = {
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "'": "'",
    '"': '"',
    "\\": "\\",
    "/": "/",
}
_OPERATIONS = (
    "`=`, `!=`, `>=`, `>`, `<=`, `<`, `IN`, `NOT IN`, `TO`, `EXISTS`, `NOT EXISTS`, `IS NULL`,"
    " `IS NOT NULL`, `IS EMPTY`, `IS NOT EMPTY`"
)


def parse(given: Any, *, code: str = "invalid_search_filter") -> Condition | None:
    """The tree of a filter, None for an empty one. Raises `ApiError` with `code`."""
    if isinstance(given, str):
        return _Parser(given, code).parse()
    if not isinstance(given, list):
        raise ApiError(code, f"Invalid syntax for the filter parameter: `expected String, Array, "
                             f"found: {_shown(given)}`.")  # fmt: skip
    found: list[Condition] = []
    for item in given:
        if isinstance(item, list):
            for inner in item:
                _check_text(inner, "String", code)
            found += _some([_Parser(inner, code).parse() for inner in item], Or)
        else:
            _check_text(item, "String, [String]", code)
            found += _some([_Parser(item, code).parse()], Or)
    return next(iter(_some(found, And)), None)


def _some(
    found: list[Condition] | list[Condition | None], join: Callable[[Any], Condition]
) -> list[Condition]:
    """What is there, joined into one if there are several."""
    there = [each for each in found if each is not None]
    return there if len(there) < 2 else [join(tuple(there))]


def _check_text(given: Any, expected: str, code: str) -> None:
    if not isinstance(given, str):
        raise ApiError(code, f"Invalid syntax for the filter parameter: `expected {expected}, "
                             f"found: {_shown(given)}`.")  # fmt: skip


def _shown(given: Any) -> str:
    return msgspec.json.encode(given).decode()[:200]


class _Parser:
    def __init__(self, text: str, code: str):
        self._text = text
        self._code = code
        self._at = 0

    def parse(self) -> Condition | None:
        if not self._text.strip():
            return None
        found = self._or(0)
        self._space()
        if self._at < len(self._text):
            rest = self._text[self._at :]
            raise self._error(
                f"Found unexpected characters at the end of the filter: `{rest}`."
                " You probably forgot an `OR` or an `AND` rule.",
                rest,
            )
        return found

    def _error(self, what: str, span: str, at: int | None = None) -> ApiError:
        column = (self._at if at is None else at) + 1
        place = f"{column}:{column + len(span)} {self._text}"
        return ApiError(self._code, f"{what}\n{place}")

    def _next(self) -> str:
        return self._text[self._at : self._at + 1]

    def _space(self) -> None:
        found = _SPACE.match(self._text, self._at)
        self._at = found.end() if found else self._at

    def _took(self, pattern: re.Pattern[str]) -> bool:
        found = pattern.match(self._text, self._at)
        if found is None:
            return False
        self._at = found.end()
        return True

    def _took_word(self, word: str) -> bool:
        self._space()
        found = _WORD.match(self._text, self._at)
        if found is None or found[0] != word:
            return False
        self._at = found.end()
        self._space()
        return True

    def _check_depth(self, depth: int) -> int:
        if depth > MAX_DEPTH:
            raise self._error(
                "The filter exceeded the maximum depth limit."
                " Try rewriting the filter so that it contains fewer nested conditions.",
                self._text[self._at :],
            )
        return depth + 1

    def _or(self, depth: int) -> Condition:
        deeper = self._check_depth(depth)
        found = [self._and(deeper)]
        while self._took_word("OR"):
            found.append(self._and(deeper))
        return _some(found, Or)[0]

    def _and(self, depth: int) -> Condition:
        deeper = self._check_depth(depth)
        found = [self._not(deeper)]
        while self._took_word("AND"):
            found.append(self._not(deeper))
        return _some(found, And)[0]

    def _not(self, depth: int) -> Condition:
        deeper = self._check_depth(depth)
        if self._took_word("NOT"):
            inner = self._not(deeper)
            return inner.inner if isinstance(inner, Not) else Not(inner)
        return self._primary(deeper)

    def _primary(self, depth: int) -> Condition:
        deeper = self._check_depth(depth)
        self._space()
        if self._next() == "(":
            opened = self._at
            self._at += 1
            inner = self._or(deeper)
            self._space()
            if self._next() != ")":
                rest = self._text[opened:]
                raise self._error(
                    f"Expression `{rest}` is missing the following closing delimiter: `)`.",
                    rest,
                    opened,
                )
            self._at += 1
            return inner
        return self._condition()

    def _condition(self) -> Condition:
        begin = self._at
        field = self._value()
        found = _OPERATOR.match(self._text, self._at)
        if found:
            self._at = found.end()
            return Compare(field, found[0], self._value())
        body = _IN.match(self._text, self._at)
        if body:
            self._at = body.end()
            inner = In(field, self._values())
            return Not(inner) if body[1] else inner
        for pattern, state, negated in _STATES:
            if self._took(pattern):
                return Not(Has(field, state)) if negated else Has(field, state)
        if _EXPERIMENTAL.match(self._text, self._at):
            raise ApiError(
                "feature_not_enabled",
                "Using `CONTAINS` or `STARTS WITH` in a filter requires enabling the `contains"
                " filter` experimental feature, which this server does not have.",
            )
        return self._between(field, begin)

    def _between(self, field: str, begin: int) -> Condition:
        after = self._at
        self._space()
        if _WORD.match(self._text, self._at) or self._next() in ("'", '"'):
            try:
                low = self._value()
            except ApiError:
                low = None
            if low is not None and self._took(_TO):
                return Between(field, low, self._value())
        self._at = after
        rest = self._text[begin:]
        where = f"at `{rest}`" if rest.strip() else "but instead got nothing"
        raise self._error(f"Was expecting an operation {_OPERATIONS} {where}.", rest, begin)

    def _values(self) -> tuple[str, ...]:
        if self._next() != "[":
            raise self._error("Expected `[` after `IN` keyword.", self._text[self._at :])
        self._at += 1
        found: list[str] = []
        while True:
            self._space()
            if self._next() == "]":
                self._at += 1
                return tuple(found)
            if not self._next():
                raise self._error(
                    "Expected matching `]` after the list of field names given to `IN[`", ""
                )
            word = _WORD.match(self._text, self._at)
            if word and word[0] in _KEYWORDS:
                rest = self._text[self._at :]
                raise self._error(
                    "Expected only comma-separated field names inside `IN[..]` but instead found"
                    f" `{rest}`, which is a keyword. To use `{rest}` as a field name or a value,"
                    " surround it by quotes.",
                    rest,
                )
            if word is None and self._next() not in "'\"":
                self._not_in_list()
            found.append(self._value())
            if self._next() == ",":
                self._at += 1
            elif self._next() not in ("]", ""):
                self._not_in_list()

    def _not_in_list(self) -> NoReturn:
        rest = self._text[self._at :]
        raise self._error(
            "Expected only comma-separated field names inside `IN[..]` but instead found"
            f" `{rest}`.",
            rest,
        )

    def _value(self) -> str:
        self._space()
        begin = self._at
        quote = self._text[begin : begin + 1]
        if quote in _QUOTED and quote:
            return self._quoted(quote, begin)
        geo = _GEO.match(self._text, begin)
        if geo and self._text[geo.end() : geo.end() + 1] == "(":
            raise self._error(
                f"`{geo[0]}` cannot be used here: this server has no geo search.", geo[0], begin
            )
        word = _WORD.match(self._text, begin)
        if word is None or word[0] in _KEYWORDS:
            self._unexpected(begin, keyword=word is not None)
        self._at = word.end()
        self._space()
        return word[0]

    def _unexpected(self, begin: int, *, keyword: bool) -> NoReturn:
        found = _ERROR_WORD.match(self._text, begin)
        got = found[0] if found else ""
        if not got:
            what = "Was expecting a value but instead got nothing."
        elif keyword:
            what = (
                f"Was expecting a value but instead got `{got}`, which is a reserved keyword. To"
                f" use `{got}` as a field name or a value, surround it by quotes."
            )
        else:
            what = f"Was expecting a value but instead got `{got}`."
        raise self._error(what, got, begin)

    def _quoted(self, quote: str, begin: int) -> str:
        found = _QUOTED[quote].match(self._text, begin + 1)
        end = found.end() if found else begin + 1
        if self._text[end : end + 1] != quote:
            rest = self._text[begin:]
            raise self._error(
                f"Expression `{rest}` is missing the following closing delimiter: `{quote}`.",
                rest,
                begin,
            )
        self._at = end + 1
        self._space()
        return _ESCAPE.sub(self._unescaped, self._text[begin + 1 : end])

    def _unescaped(self, found: re.Match[str]) -> str:
        escape = found[1]
        if escape in _ESCAPES:
            return _ESCAPES[escape]
        if escape[:1] in ("u", "x") and len(escape) > 1:
            number = int(escape[1:].strip("{}"), 16)
            if number < 0xD800 or 0xDFFF < number <= 0x10FFFF:
                return chr(number)
        raise self._error(f"Malformed value: `{found[0]}`.", found[0], found.start())
