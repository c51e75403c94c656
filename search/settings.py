"""The settings of an index, as data, and what of them a server lacks."""

from typing import Any

Settings = dict[str, Any]

MOST_HITS = 1000
"""Further down than this nobody pages."""

_UNORDERED = ("filterableAttributes", "sortableAttributes", "displayedAttributes")


def settings(locales: tuple[str, ...]) -> Settings:
    """What an index must be set to; `locales` are ISO 639-3 codes, none leaves it to the server.

    Among messages that fit as well, the newest by the log comes first. Numbers (of tickets, of
    telephones) are found only as they were written.
    """
    return {
        "searchableAttributes": ["content"],
        "filterableAttributes": ["chat", "from", "at", "seq"],
        "sortableAttributes": ["at", "seq"],
        "displayedAttributes": ["id", "edited", "content"],
        "rankingRules": ["words", "typo", "proximity", "sort", "exactness", "seq:desc"],
        "typoTolerance": {
            "enabled": True,
            "minWordSizeForTypos": {"oneTypo": 5, "twoTypos": 9},
            "disableOnNumbers": True,
        },
        "pagination": {"maxTotalHits": MOST_HITS},
        "localizedAttributes": (
            [{"attributePatterns": ["content"], "locales": list(locales)}] if locales else None
        ),
    }


def missing(wanted: Settings, present: Settings) -> Settings:
    """Those of the wanted settings that are not as they should be."""
    return {
        name: value for name, value in wanted.items() if not _fits(name, value, present.get(name))
    }


def _fits(name: str, wanted: Any, present: Any) -> bool:
    """Whether it is as wanted; what a server adds of its own to an object does not count."""
    if isinstance(wanted, dict):
        return isinstance(present, dict) and all(
            _fits(each, value, present.get(each)) for each, value in wanted.items()
        )
    if name in _UNORDERED:
        return isinstance(present, list) and sorted(map(str, present)) == sorted(wanted)
    return bool(wanted == present)
