"""Invitations, and the files that tell NATS of other sites."""

from pathlib import Path

import pytest
from cryptography import x509

from deploy import links
from deploy.errors import UserError
from deploy.settings import Settings
from deploy.site_links import PREFIX, Invite, _checked, _invite_of, _text


def test_an_invitation_is_one_word() -> None:
    invite = Invite(
        site="tokyo",
        to="osaka",
        address="tokyo.example:7422",
        password="x y",
        machines=(0, 31),
        ca="PEM",
    )
    text = _text(invite)
    assert text.startswith(PREFIX)
    assert len(text.split()) == 1
    assert _invite_of(f"  {text}\n") == invite


@pytest.mark.parametrize("text", ["", "nonsense", PREFIX, PREFIX + "e30", PREFIX + "é"])
def test_half_an_invitation_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="no whole invitation"):
        _invite_of(text)


@pytest.mark.parametrize(
    ("own", "name", "why"),
    [
        ("tokyo", "tokyo", "name of this site"),
        ("tokyo", "o.saka", "no name for a linked site"),
        ("tokyo", "o" * 25, "no name for a linked site"),
        ("local", "osaka", "HIKYAKU_SITE"),
    ],
)
def test_names_of_sites(own: str, name: str, why: str) -> None:
    with pytest.raises(UserError, match=why):
        _checked(Settings(site=own), name)


def test_the_files_say_who_may_speak_as_whom(tmp_path: Path) -> None:
    folder = tmp_path / "links"
    listen, address = "0.0.0.0:7422", "chat.tokyo.example:7423"
    links.ensure(folder, "tokyo", '"secret"', listen=listen, address=address)
    found = links.read(folder)
    found.accepted["osaka"] = "pw1"
    found.dialed["kyoto"] = links.Dialed(address="kyoto.example:7422", password="pw2", ca="PEM")
    links.write(folder, found)
    users = (folder / "users.conf").read_text()
    assert 'user: federation, password: "secret"' in users
    assert 'publish: ["fed.*.osaka.>"], subscribe: ["fed.osaka.>"]' in users
    nodes = (folder / "leafnodes.conf").read_text()
    assert 'listen: "0.0.0.0:7422"' in nodes
    assert '"tls://tokyo:pw2@kyoto.example:7422"' in nodes
    assert f'ca_file: "{folder}/kyoto.ca.pem"' in nodes
    assert f'cert_file: "{folder}/server.pem"' in nodes
    assert (folder / "kyoto.ca.pem").read_text() == "PEM"
    for each in folder.iterdir():
        assert each.stat().st_mode & 0o077 == 0, "they hold passwords"
    authority = links.authority(folder)
    links.ensure(folder, "tokyo", '"other"', listen=listen)
    assert links.authority(folder) == authority, "who was invited has it"
    links.ensure(folder, "tokyo", '"other"')
    assert links.read(folder).accepted == {"osaka": "pw1"}
    assert "listen:" not in (folder / "leafnodes.conf").read_text()


def test_in_a_container_the_server_puts_the_password_in(tmp_path: Path) -> None:
    environ = {"HIKYAKU_SITE": "tokyo", "HIKYAKU_LINK_LISTEN": "0.0.0.0:7422"}
    links.main(str(tmp_path), environ)
    assert (
        "{user: federation, password: $NATS_RELAY_PASSWORD}"
        in (tmp_path / "users.conf").read_text()
    )
    nodes = (tmp_path / "leafnodes.conf").read_text()
    assert 'listen: "0.0.0.0:7422"' in nodes
    assert 'cert_file: "/links/server.pem"' in nodes, "as the server sees the folder"


def test_the_certificate_has_what_others_find_the_site_by(tmp_path: Path) -> None:
    address = "chat.tokyo.example:7422"
    links.ensure(tmp_path, "tokyo", '"x"', listen="[fd00::1]:7422", address=address)
    found = x509.load_pem_x509_certificate((tmp_path / "server.pem").read_bytes())
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert set(names.get_values_for_type(x509.DNSName)) == {"chat.tokyo.example", "localhost"}
    assert {str(each) for each in names.get_values_for_type(x509.IPAddress)} == {
        "127.0.0.1",
        "fd00::1",
    }
    found.verify_directly_issued_by(
        x509.load_pem_x509_certificate(links.authority(tmp_path).encode())
    )
