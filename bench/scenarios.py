"""Every scenario by name, in the order in which they run: memory first, while the edges are new."""

from . import channel, dm, faults, groups, idle, past, presence, resume

SCENARIOS = {
    scenario.name: scenario
    for scenario in [
        *idle.SCENARIOS,
        *dm.SCENARIOS,
        *groups.SCENARIOS,
        *resume.SCENARIOS,
        *past.SCENARIOS,
        *presence.SCENARIOS,
        *channel.SCENARIOS,
        *faults.SCENARIOS,
    ]
}
