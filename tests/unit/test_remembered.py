"""A command with the home of a local site knows the site."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from deploy.remembered import LASTING, remember, with_remembered
from deploy.settings_load import load


def test_what_was_started_is_known_unless_something_else_is_set(tmp_path: Path) -> None:
    environ = {"HIKYAKU_HOME": str(tmp_path)}
    made = load(environ).settings
    remember(replace(made, site="tokyo", machines="0-31", link_listen="127.0.0.1:1", edge_port=81))
    loaded = with_remembered(load(environ))
    found = loaded.settings
    assert (found.site, found.machines, found.edge_port) == ("tokyo", "0-31", 81)
    assert found.link_listen == "127.0.0.1:1"
    assert loaded.sources["site"] == f"file {tmp_path / 'site.json'}"
    given = with_remembered(load({**environ, "HIKYAKU_SITE": "nara", "HIKYAKU_EDGE_PORT": "9"}))
    assert (given.settings.site, given.settings.edge_port) == ("nara", 9)
    lasting = with_remembered(load(environ), LASTING).settings
    assert (lasting.site, lasting.edge_port) == ("tokyo", made.edge_port)


@pytest.mark.parametrize("content", ["", "[]", '{"site": 3}', '{"edge_port": "x"}', "\x00"])
def test_what_cannot_be_understood_is_as_good_as_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / "site.json").write_text(content)
    loaded = load({"HIKYAKU_HOME": str(tmp_path)})
    assert with_remembered(loaded) == loaded
