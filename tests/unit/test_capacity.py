"""Capacity against numbers worked out by hand, and figures against the pages they come from."""

import json
from pathlib import Path

import pytest

from deploy.capacity import OPTIONS, Load, assumed, plan
from deploy.capacity_figures import FIGURES
from deploy.cli import main
from deploy.errors import UserError

ROOT = Path(__file__).parents[2]


def test_figures_are_those_of_the_pages() -> None:
    for name, each in FIGURES.items():
        assert each.quote in (ROOT / each.where).read_text(), name
        assert each.value > 0


def test_fifty_million_users() -> None:
    """50,000,000 x 40 / 86,400 = 23,148 a second; a tenth of them online with 1.2 devices."""
    found = plan(Load(dau=50_000_000, messages_per_day=40))
    assert found.messages_a_day == 2_000_000_000
    assert found.messages_average == pytest.approx(23_148.15, abs=0.01)
    assert found.messages_peak == pytest.approx(69_444.44, abs=0.01)
    assert found.deliveries_peak == pytest.approx(277_777.78, abs=0.01)
    assert found.connections == 6_000_000
    # 6 million at 100,000 a site; by messages 69,444 / 4,900 would be 15.
    assert found.sites == 60
    assert found.site_messages_peak == pytest.approx(1_157.41, abs=0.01)
    # 60 million devices x 10 / 86,400 x 3.
    assert found.connects_peak == pytest.approx(20_833.33, abs=0.01)


def test_storage() -> None:
    """A million messages a day: 500 B in the log and 400 B in MongoDB, three copies of each."""
    found = plan(Load(dau=10_000, messages_per_day=100))
    assert found.log_day == 1.5e9
    assert found.log_held == 10.5e9
    assert found.mongo_day == 1.2e9
    assert found.mongo_held == 36e9
    assert found.search_day == 670e6
    assert found.search_held == pytest.approx(20.1e9)
    assert found.archive_year == pytest.approx(FIGURES["archive_bytes"].value * 365e6)
    # One message in 20 has 300 kB.
    assert found.files_day == 15e9
    assert found.files_year == 5.475e12


def test_one_copy_and_fewer_days() -> None:
    found = plan(Load(dau=10_000, messages_per_day=100, replicas=1, log_days=1, hot_days=2))
    assert (found.log_day, found.log_held) == (0.5e9, 0.5e9)
    assert found.mongo_held == 2.4e9
    assert (found.site_nats_servers, found.site_mongod_servers) == (1, 3)


def test_a_site_of_a_hundred_thousand_connections() -> None:
    """864 messages for 100 a second; by hand: what each edge reads, and what all share."""
    load = Load(
        dau=100_000,
        messages_per_day=864,
        online=1,
        devices=1,
        peak=1,
        deliveries=10,
        connects_per_day=8.64,
    )
    found = plan(load)
    assert found.messages_peak == 1000
    assert found.deliveries_peak == 10_000
    assert found.connects_peak == pytest.approx(10)
    assert found.sites == 1
    # Reading 1,000 x 5 us = 0.005 of a core on each edge. Shared: 1,000 x 34 us + 9,000 x 4.8 us
    # + 10 x 0.77 ms = 0.034 + 0.0432 + 0.0077 = 0.0849: two edges, for one may die.
    assert found.site_edges == 2
    assert found.site_edge_cores == pytest.approx((0.0849 + 2 * 0.005) / 0.5)
    assert found.site_nats_cores == pytest.approx(0.054)
    assert found.site_mongod_cores == pytest.approx(0.054)
    # persist 18 us, search and pushes 187 - 107 us.
    assert found.site_worker_cores == pytest.approx(0.196)
    assert found.site_edge_memory == 1.34e9
    assert found.site_nats_memory == 1000 * 120 * 258
    assert found.site_servers == 3
    # Up: 1,000 frames of 340 B, half of the pings (100,000 / 30 x 40 B), 50 files of 300 kB.
    assert found.inward_bits == pytest.approx(8 * (340_000 + 133_333.33 + 15_000_000), rel=1e-6)
    assert found.outward_bits == pytest.approx(8 * (3_400_000 + 133_333.33 + 150_000_000), rel=1e-6)


def test_many_messages_make_sites_by_messages() -> None:
    found = plan(Load(dau=1000, messages_per_day=864_000, peak=1, busy=0.5))
    # 10,000 a second, and a site takes 4,900.
    assert found.sites == 3


def test_more_edges_where_one_is_not_enough() -> None:
    load = Load(dau=100_000, messages_per_day=864, peak=1, deliveries=1000, busy=0.5)
    # 0.034 + 999,000 x 4.8 us = 4.8 cores, 0.495 on each edge, and some connects.
    assert plan(load).site_edges == 10


def test_nobody_says_anything() -> None:
    found = plan(Load(dau=1, messages_per_day=0))
    assert (found.sites, found.site_edges, found.site_servers) == (1, 2, 3)


def test_every_assumption_is_an_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["capacity", "--dau", "50000000", "--messages-per-day", "40"]) == 0
    said = capsys.readouterr().out
    for each in OPTIONS:
        assert each.option in said
    assert "messages a second, average                            23,148" in said
    assert all(each.what in said for each in FIGURES.values())


def test_json_has_all_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["capacity", "--json", "--dau", "1000", "--peak", "5"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["assumptions"]["peak"] == 5
    assert told["plan"]["messages_a_day"] == 40_000
    assert told["figures"]["connect_ms"]["value"] == 0.77


def test_what_cannot_be_assumed_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="dau"):
        assumed({"dau": 0})
    assert main(["capacity", "--busy", "2"]) == 2
    assert "busy" in capsys.readouterr().err
