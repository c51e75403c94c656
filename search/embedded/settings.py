"""Settings of an index: defaults, what may be set, and reading them from a request."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from .errors import ApiError

SHOWN = 200
"""Longer values are cut where errors show them."""

RANKING_RULES = ("words", "typo", "proximity", "attribute", "sort", "exactness")
_KNOWN_RULES = (*RANKING_RULES, "attributeRank", "wordPosition")
_CUSTOM_RULE = re.compile(r"^(.+):(asc|desc)$", re.DOTALL)

DEFAULTS: dict[str, Any] = {
    "displayedAttributes": ["*"],
    "searchableAttributes": ["*"],
    "filterableAttributes": [],
    "sortableAttributes": [],
    "rankingRules": list(RANKING_RULES),
    "stopWords": [],
    "nonSeparatorTokens": [],
    "separatorTokens": [],
    "dictionary": [],
    "synonyms": {},
    "distinctAttribute": None,
    "proximityPrecision": "byWord",
    "typoTolerance": {
        "enabled": True,
        "minWordSizeForTypos": {"oneTypo": 5, "twoTypos": 9},
        "disableOnWords": [],
        "disableOnAttributes": [],
        "disableOnNumbers": False,
    },
    "faceting": {"maxValuesPerFacet": 100, "sortFacetValuesBy": {"*": "alpha"}},
    "pagination": {"maxTotalHits": 1000},
    "embedders": {},
    "searchCutoffMs": None,
    "localizedAttributes": None,
    "facetSearch": True,
    "prefixSearch": "indexingTime",
}

_FIXED = (
    "nonSeparatorTokens",
    "separatorTokens",
    "dictionary",
    "synonyms",
    "distinctAttribute",
    "proximityPrecision",
    "faceting",
    "embedders",
    "searchCutoffMs",
)
"""Settings that this server shows but cannot change."""

ROUTES = {re.sub("([A-Z])", lambda found: "-" + found[1].lower(), name): name for name in DEFAULTS}
"""The path below `/settings` of each setting."""


def code_of(name: str) -> str:
    """The code of an error in a setting."""
    return "invalid_settings_" + re.sub("([A-Z])", lambda found: "_" + found[1].lower(), name)


def check(given: Any) -> dict[str, Any]:
    """The changes that a request asks for; a value None resets. Raises `ApiError`."""
    if not isinstance(given, dict):
        raise ApiError(
            "bad_request", f"Invalid value type: expected an object, but found {kind(given)}"
        )
    for name in given:
        if name not in DEFAULTS:
            known = ", ".join(f"`{each}`" for each in DEFAULTS)
            raise ApiError("bad_request", f"Unknown field `{name}`: expected one of {known}")
    return {name: check_one(name, value) for name, value in given.items()}


def check_one(name: str, value: Any, *, at: str | None = None) -> Any:
    """The value of one setting, checked; None resets. `at` is where the request has it."""
    if value is None:
        return None
    if name in _FIXED:
        if value == DEFAULTS[name] or (name == "faceting" and isinstance(value, dict)):
            return value
        raise ApiError(code_of(name), f"This server cannot change `{name}`.")
    where = f".{name}" if at is None else at
    return _CHECKS[name](value, where, code_of(name))


def merged(settings: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Settings after changes."""
    result = dict(settings)
    for name, value in changes.items():
        default = DEFAULTS[name]
        if value is None:
            result[name] = default
        elif isinstance(default, dict) and name != "synonyms":
            result[name] = _merged_object(default, result[name], value)
        else:
            result[name] = value
    return result


def _merged_object(default: dict[str, Any], old: dict[str, Any], new: dict[str, Any]) -> Any:
    result = dict(old)
    for key, value in new.items():
        if value is None:
            result[key] = default.get(key)
        elif isinstance(value, dict) and isinstance(default.get(key), dict):
            result[key] = _merged_object(default[key], old[key], value)
        else:
            result[key] = value
    return result


def kind(value: Any) -> str:
    """What a JSON value is, as errors say it."""
    shown = msgspec.json.encode(value).decode("utf-8", "replace")
    shown = shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}…"
    match value:
        case None:
            return "null"
        case bool():
            what = "a boolean"
        case int():
            what = "a positive integer" if value >= 0 else "a negative integer"
        case float():
            what = "a number"
        case str():
            what = "a string"
        case list():
            what = "an array"
        case _:
            what = "an object"
    return f"{what}: `{shown}`"


def wrong(where: str, expected: str, value: Any, code: str) -> ApiError:
    """The error of a value of the wrong type."""
    place = f" at `{where}`" if where else ""
    return ApiError(
        code, f"Invalid value type{place}: expected {expected}, but found {kind(value)}"
    )


def _names(value: Any, where: str, code: str) -> list[str]:
    if not isinstance(value, list):
        raise wrong(where, "an array", value, code)
    for number, item in enumerate(value):
        if not isinstance(item, str):
            raise wrong(f"{where}[{number}]", "a string", item, code)
    return list(dict.fromkeys(value))


def _sorted_names(value: Any, where: str, code: str) -> list[str]:
    return sorted(_names(value, where, code))


def _exact_names(value: Any, where: str, code: str) -> list[str]:
    names = _sorted_names(value, where, code)
    for name in names:
        if "*" in name:
            raise ApiError(code, f"{where}: this server knows no patterns like `{name}` here.")
        if name.startswith("_geo"):
            raise ApiError(code, f"{where}: this server has no geo search.")
    return names


def _with_wildcard(value: Any, where: str, code: str) -> list[str]:
    names = _names(value, where, code)
    return ["*"] if "*" in names else names


def _rules(value: Any, where: str, code: str) -> list[str]:
    names = _names(value, where, code)
    for number, name in enumerate(names):
        if name not in _KNOWN_RULES and _CUSTOM_RULE.match(name) is None:
            raise ApiError(
                code,
                f"Invalid value at `{where}[{number}]`: `{name}` ranking rule is invalid. Valid"
                " ranking rules are words, typo, sort, proximity, attribute, exactness and custom"
                " ranking rules.",
            )
    return names


def custom_rule(rule: str) -> tuple[str, bool] | None:
    """Attribute and whether descending, of a rule like `seq:desc`."""
    found = _CUSTOM_RULE.match(rule)
    return (found[1], found[2] == "desc") if found else None


def _object(
    value: Any, where: str, code: str, checks: Mapping[str, Callable[[Any, str, str], Any]]
) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise wrong(where, "an object", value, code)
    for name in value:
        if name not in checks:
            known = ", ".join(f"`{each}`" for each in checks)
            raise ApiError(
                code, f"Unknown field `{name}` inside `{where}`: expected one of {known}"
            )
    return {
        name: None if inner is None else checks[name](inner, f"{where}.{name}", code)
        for name, inner in value.items()
    }


def _boolean(value: Any, where: str, code: str) -> bool:
    if not isinstance(value, bool):
        raise wrong(where, "a boolean", value, code)
    return value


def _whole(value: Any, where: str, code: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise wrong(where, "a positive integer", value, code)
    return value


def _small(value: Any, where: str, code: str) -> int:
    if _whole(value, where, code) > 255:
        raise ApiError(code, f"Invalid value at `{where}`: value: `{value}` is too large to be"
                             " deserialized, maximum value authorized is `255`")  # fmt: skip
    return int(value)


def _word_sizes(value: Any, where: str, code: str) -> dict[str, Any]:
    sizes = _object(value, where, code, {"oneTypo": _small, "twoTypos": _small})
    one, two = sizes.get("oneTypo"), sizes.get("twoTypos")
    if one is not None and two is not None and one > two:
        raise ApiError(
            code,
            f"Invalid value at `{where}`: `minWordSizeForTypos` setting is invalid. `oneTypo` and"
            " `twoTypos` fields should be between `0` and `255`, and `twoTypos` should be greater"
            f" or equals to `oneTypo` but found `oneTypo: {one}` and twoTypos: {two}`.",
        )
    return sizes


def _typos(value: Any, where: str, code: str) -> dict[str, Any]:
    checks = {
        "enabled": _boolean,
        "minWordSizeForTypos": _word_sizes,
        "disableOnWords": _sorted_names,
        "disableOnAttributes": _sorted_names,
        "disableOnNumbers": _boolean,
    }
    return _object(value, where, code, checks)


def _pagination(value: Any, where: str, code: str) -> dict[str, Any]:
    return _object(value, where, code, {"maxTotalHits": _not_zero})


def _not_zero(value: Any, where: str, code: str) -> int:
    if _whole(value, where, code) == 0:
        raise ApiError(
            code,
            f"Invalid value at `{where}`: a non-zero integer value lower than"
            " `18446744073709551615` was expected, but found a zero",
        )
    return int(value)


def _locales(value: Any, where: str, code: str) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        raise wrong(where, "an array", value, code)
    checks = {"attributePatterns": _names, "locales": _names}
    return [_object(each, f"{where}[{at}]", code, checks) for at, each in enumerate(value)]


def _prefixes(value: Any, where: str, code: str) -> str:
    if value not in ("indexingTime", "disabled"):
        raise ApiError(
            code,
            f"Unknown value `{value}` at `{where}`: expected one of `indexingTime`, `disabled`",
        )
    return str(value)


_CHECKS: dict[str, Callable[[Any, str, str], Any]] = {
    "displayedAttributes": _with_wildcard,
    "searchableAttributes": _with_wildcard,
    "filterableAttributes": _exact_names,
    "sortableAttributes": _exact_names,
    "rankingRules": _rules,
    "stopWords": _sorted_names,
    "typoTolerance": _typos,
    "pagination": _pagination,
    "localizedAttributes": _locales,
    "facetSearch": _boolean,
    "prefixSearch": _prefixes,
}
