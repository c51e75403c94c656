"""Reads a process's metrics."""

from prometheus_client.parser import text_string_to_metric_families


def sample(text: str, name: str, **labels: str) -> float:
    """The value of `hikyaku_<name>` with just these labels."""
    found = [
        each.value
        for family in text_string_to_metric_families(text)
        for each in family.samples
        if each.name == f"hikyaku_{name}" and each.labels == labels
    ]
    assert len(found) == 1, (name, labels, found)
    return found[0]


def above(text: str, name: str, bound: str) -> float:
    """How many values of a histogram without labels were above one of its bounds."""
    return sample(text, f"{name}_count") - sample(text, f"{name}_bucket", le=bound)
