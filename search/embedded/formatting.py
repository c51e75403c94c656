"""What a hit shows: the attributes asked for, highlights, crops, and places of matches."""

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from .cropping import Match, window
from .matching import Matcher, Place
from .search_request import SearchRequest
from .words import fold

Span = tuple[int, int]


class Format(Struct, frozen=True):
    """What to do with one attribute."""

    highlight: bool = False
    crop: int | None = None


class Formatter:
    """Formats hits of one search."""

    def __init__(self, request: SearchRequest, matcher: Matcher, displayed: Sequence[str]):
        self._request = request
        self._matcher = matcher
        self._displayed = displayed
        self._formats = bool(request.attributes_to_highlight or request.attributes_to_crop)
        self._crops = dict(request.attributes_to_crop)

    def hit(self, document: dict[str, Any]) -> dict[str, Any]:
        """A document as a hit."""
        shown = picked(document, self._displayed)
        hit = picked(shown, self._request.attributes_to_retrieve)
        if self._formats:
            names = (
                *self._request.attributes_to_retrieve,
                *self._request.attributes_to_highlight,
                *self._crops,
            )
            formatted = picked(shown, names)
            if formatted:
                hit["_formatted"] = {
                    name: self._formatted(name, value) for name, value in formatted.items()
                }
        if self._request.show_matches_position:
            positions: dict[str, list[dict[str, Any]]] = {}
            for name, value in shown.items():
                self._positions(name, value, positions, ())
            hit["_matchesPosition"] = positions
        return hit

    def _formatted(self, name: str, value: Any) -> Any:
        highlight = _matches(name, self._request.attributes_to_highlight)
        crop = self._crops.get(name, self._crops.get("*"))
        return self._value(name, value, Format(highlight, crop))

    def _value(self, name: str, value: Any, form: Format) -> Any:
        match value:
            case str():
                return self._text(value, form)
            case bool() | None:
                return value
            case int() | float():
                return self._text(str(value), form)
            case list():
                return [self._value(name, item, Format(form.highlight)) for item in value]
            case dict():
                return {
                    key: self._formatted_inside(f"{name}.{key}", item, form)
                    for key, item in value.items()
                }
        return value

    def _formatted_inside(self, name: str, value: Any, form: Format) -> Any:
        if form.highlight:
            return self._value(name, value, form)
        return self._formatted(name, value)

    def _text(self, text: str, form: Format) -> str:
        if not form.highlight and form.crop is None:
            return text
        matches = self._matches(text)
        start, end = (0, len(text)) if form.crop is None else window(text, matches, form.crop)
        marker = self._request.crop_marker
        pieces = [marker if start > 0 else ""]
        at = start
        for first, last in self._spans(text, matches) if form.highlight else ():
            if first < at or last > end:
                continue
            pieces += [text[at:first], self._request.highlight_pre_tag]
            pieces += [text[first:last], self._request.highlight_post_tag]
            at = last
        pieces += [text[at:end], marker if end < len(text) else ""]
        return "".join(pieces)

    def _matches(self, text: str) -> list[Match]:
        """Where terms are in a text, in order; one for each place, the longest."""
        found = [
            (place, number)
            for number, places in enumerate(self._matcher.places(text))
            for place in places
        ]
        found.sort(key=lambda match: (match[0].start, -match[0].end, match[1]))
        return [
            match
            for before, match in zip([None, *found], found, strict=False)
            if before is None or before[0].start != match[0].start
        ]

    def _spans(self, text: str, matches: list[Match]) -> list[Span]:
        """What of a text is marked; what overlaps is one span."""
        joined: list[Span] = []
        for place, number in matches:
            first, last = self._span(text, place, number)
            if joined and first < joined[-1][1]:
                joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
            else:
                joined.append((first, last))
        return joined

    def _span(self, text: str, place: Place, number: int) -> Span:
        """Of a word that only begins with the term, the beginning."""
        term = self._matcher.terms[number]
        if term.kind == "run" and len(term.words) == 1 and term.prefix:
            return place.start, place.start + 1
        if place.exact or place.typos or not term.prefix or term.kind != "word":
            return place.start, place.end
        end = place.start
        while end < place.end and len(fold(text[place.start : end])) < len(term.text):
            end += 1
        return place.start, end

    def _positions(
        self,
        name: str,
        value: Any,
        found: dict[str, list[dict[str, Any]]],
        indices: tuple[int, ...],
    ) -> None:
        match value:
            case dict():
                for key, inner in value.items():
                    self._positions(f"{name}.{key}", inner, found, ())
            case list():
                for at, inner in enumerate(value):
                    self._positions(name, inner, found, (*indices, at))
            case str() | int() | float() if not isinstance(value, bool):
                text = str(value)
                for first, last in self._spans(text, self._matches(text)):
                    start = len(text[:first].encode())
                    place: dict[str, Any] = {
                        "start": start,
                        "length": len(text[first:last].encode()),
                    }
                    if indices:
                        place["indices"] = list(indices)
                    found.setdefault(name, []).append(place)


def picked(document: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The attributes of a document with these names; `a.b` is one inside `a`."""
    if "*" in names:
        return dict(document)
    direct = set(names)
    found: dict[str, Any] = {}
    for name, value in document.items():
        if name in direct:
            found[name] = value
            continue
        inside = [each[len(name) + 1 :] for each in names if each.startswith(f"{name}.")]
        if inside:
            part = _inside(value, inside)
            if part is not None:
                found[name] = part
    return found


def _inside(value: Any, names: Sequence[str]) -> Any:
    """The same for what an attribute holds: an object, or an array of them."""
    if isinstance(value, dict):
        return picked(value, names) or None
    if isinstance(value, list):
        parts = [part for item in value if (part := _inside(item, names)) is not None]
        return parts or None
    return None


def _matches(name: str, names: Sequence[str]) -> bool:
    return any(each in ("*", name) or name.startswith(f"{each}.") for each in names)
