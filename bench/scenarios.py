"""Every scenario by name, in the order in which they run: memory first, while the edges are new."""

from . import channel, dm, faults, groups, idle, presence, resume

SCENARIOS = {
    scenario.name: scenario
    for scenario in [
        *idle.SCENARIOS,
        *dm.SCENARIOS,
        *groups.SCENARIOS,
        *resume.SCENARIOS,
        *presence.SCENARIOS,
        *channel.SCENARIOS,
        *faults.SCENARIOS,
    ]
}
