"""Typos between two words: insertions, deletions, substitutions and swaps of neighbours."""


def typos(asked: str, found: str, *, most: int, prefix: bool) -> int | None:
    """How many make `asked` of `found` (or of a beginning of it), None if more than `most`.

    A typo in the first letter counts as two, as in Meilisearch.
    """
    if asked == found or (prefix and found.startswith(asked)):
        return 0
    if most == 0 or abs_shorter(asked, found, prefix=prefix) > most:
        return None
    least = _distance(asked, found, prefix=prefix, most=most)
    if least > most:
        return None
    if asked[:1] == found[:1]:
        return least
    return 2 if least == 1 and most == 2 else None


def abs_shorter(asked: str, found: str, *, prefix: bool) -> int:
    """The least number of typos that the lengths alone make necessary."""
    difference = len(asked) - len(found)
    return max(0, difference) if prefix else abs(difference)


def _distance(asked: str, found: str, *, prefix: bool, most: int) -> int:
    if prefix:
        found = found[: len(asked) + most]
    before: list[int] = []
    row = list(range(len(found) + 1))
    for at, letter in enumerate(asked, 1):
        older, before, row = before, row, [at]
        for there, other in enumerate(found, 1):
            cost = min(row[-1] + 1, before[there] + 1, before[there - 1] + (letter != other))
            if at > 1 and there > 1 and letter == found[there - 2] and asked[at - 2] == other:
                cost = min(cost, older[there - 2] + 1)
            row.append(cost)
        if min(row) > most:
            return most + 1
    return min(row) if prefix else row[-1]
