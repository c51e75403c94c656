"""Every scenario by name, in the order in which they run: memory first, while the edges are new.

Those that run on the same kind of stack stand together.
"""

from . import channel, dm, faults, groups, idle, past, persist_faults, presence, resume, search

SCENARIOS = {
    scenario.name: scenario
    for scenario in sorted(
        [
            *idle.SCENARIOS,
            *dm.SCENARIOS,
            *groups.SCENARIOS,
            *resume.SCENARIOS,
            *past.SCENARIOS,
            *search.SCENARIOS,
            *presence.SCENARIOS,
            *channel.SCENARIOS,
            *faults.SCENARIOS,
            *persist_faults.SCENARIOS,
        ],
        key=lambda scenario: not scenario.without,
    )
}
