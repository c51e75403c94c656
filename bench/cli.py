"""`make bench`: measure a running stack, its own or a given one, and say what it reaches.

See `docs/bench.md` for what each figure means and how it is taken.
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from . import http
from .campaign import Campaign
from .plot import write_plot
from .report import show, write_json
from .scenario import Target
from .scenarios import SCENARIOS

RESULTS = Path(__file__).parent / "results"
PLAIN_WIDTH = 110


def main(argv: list[str] | None = None) -> int:
    """Run the bench; 0 when every goal measured was reached, 1 when not, 2 on wrong use."""
    options = _options(argv)
    console = Console()
    if not console.is_terminal:
        console = Console(width=max(console.width, PLAIN_WIDTH))
    try:
        campaign = Campaign(
            [SCENARIOS[name] for name in options.scenarios or SCENARIOS],
            _given_target(options),
            console,
            runs=options.runs,
            quick=options.quick,
            patience_s=options.patience * 60,
            folder=options.out,
        )
    except ValueError as error:
        console.print(str(error), style="red", markup=False)
        return 2
    interrupted = _run(campaign)
    report = campaign.report
    show(report, console)
    console.print(
        f"written: {write_json(report, options.out)} and {write_plot(report, options.out)}"
    )
    if interrupted:
        console.print("interrupted: this is what was measured before", style="red")
        return 130
    return 0 if report.passed() else 1


def _run(campaign: Campaign) -> bool:
    """Run to the end, or until Ctrl-C: then true."""
    try:
        asyncio.run(campaign.run())
    except KeyboardInterrupt:
        return True
    return False


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("scenarios", nargs="*", metavar="scenario", help=", ".join(SCENARIOS))
    parser.add_argument("--runs", type=int, default=1, help="runs of each; the median is quoted")
    parser.add_argument("--quick", action="store_true", help="short measurements, to see it work")
    parser.add_argument(
        "--patience",
        type=float,
        default=0,
        metavar="MINUTES",
        help="time in all to wait for a quiet machine and to repeat runs that others disturbed",
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for JSON and plot")
    parser.add_argument(
        "--url", action="append", help="an edge of a running stack; give it once for each edge"
    )
    parser.add_argument("--secret", help="the running stack's HIKYAKU_JWT_SECRET")
    parser.add_argument("--pid", type=int, help="the running supervisor, for CPU and memory")
    options = parser.parse_args(argv)
    unknown = [name for name in options.scenarios if name not in SCENARIOS]
    if unknown:
        parser.error(f"no scenario {', '.join(unknown)}; there are {', '.join(SCENARIOS)}")
    if bool(options.url) != bool(options.secret):
        parser.error("--url and --secret go together")
    if options.runs < 1:
        parser.error("--runs must be 1 or more")
    return options


def _given_target(options: argparse.Namespace) -> Target | None:
    if not options.url:
        return None
    edges = tuple(http.loopback_address(url) for url in options.url)
    return Target(edges=edges, secret=options.secret, supervisor=options.pid)


if __name__ == "__main__":
    sys.exit(main())
