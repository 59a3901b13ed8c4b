"""What the server is told: TLS in every case, and users that survive the way to the file and back."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pratipad_nb.errors import ServerError
from pratipad_nb.server.config import ServerFiles, parsed_users, rendered_config, rendered_users
from pratipad_nb.settings import Credentials
from pratipad_nb.transport.permissions import User

FILES = ServerFiles(Path("/state/server"))
CREDENTIALS = Credentials(Path("/c/ca.pem"), Path("/c/cert.pem"), Path("/c/key.pem"))


def sections(text: str) -> dict[str, object]:
    include, *lines = text.splitlines()
    assert include == "include ./users.conf"
    return dict(json.loads("{" + line + "}").popitem() for line in lines)


def test_there_is_no_configuration_without_mutual_tls() -> None:
    for port, sync in itertools.product((None, 4222), ("interval", "always")):
        found = sections(rendered_config(FILES, CREDENTIALS, port=port, sync=sync))  # type: ignore[arg-type]
        tls = found["tls"]
        assert isinstance(tls, dict)
        assert tls["verify_and_map"] is True
        assert tls["handshake_first"] is True
        assert tls["min_version"] == "1.2"
        assert not {"allow_non_tls", "http", "https", "monitor_port", "websocket", "no_auth_user"} & set(
            found
        )


def test_it_listens_on_this_computer_on_the_port_it_is_given() -> None:
    assert sections(rendered_config(FILES, CREDENTIALS, port=4333))["listen"] == "127.0.0.1:4333"
    assert sections(rendered_config(FILES, CREDENTIALS))["listen"] == "127.0.0.1:-1"


def test_paths_with_quotes_and_spaces_survive() -> None:
    files = ServerFiles(Path('/a "b"\\c $d'))
    assert sections(rendered_config(files, CREDENTIALS))["log_file"] == '/a "b"\\c $d/log'


def test_what_is_no_plain_character_is_written_as_its_bytes() -> None:
    config = rendered_config(ServerFiles(Path("/ü\n\x7f\udcff")), CREDENTIALS)
    assert r'"log_file": "/\xc3\xbc\x0a\x7f\xff/log"' in config


users = st.builds(
    User,
    identity=st.text(min_size=1),
    publish=st.lists(st.text(min_size=1), max_size=3).map(tuple),
    subscribe=st.lists(st.text(min_size=1), max_size=3).map(tuple),
    allow_responses=st.booleans(),
)


@given(listed=st.lists(users, max_size=5, unique_by=lambda user: user.identity))
def test_users_are_read_back_as_they_were_written(listed: list[User]) -> None:
    assert parsed_users(rendered_users(listed)) == {user.identity: user for user in listed}


def test_one_who_may_do_nothing_is_denied_everything() -> None:
    (_, written) = json.loads(rendered_users([User("urn:x")]))["authorization"]["users"]
    assert written["permissions"] == {"publish": {"deny": [">"]}, "subscribe": {"deny": [">"]}}


def test_an_empty_list_still_asks_for_a_user() -> None:
    assert len(json.loads(rendered_users([]))["authorization"]["users"]) == 1
    assert parsed_users(rendered_users([])) == {}


@given(data=st.binary() | st.recursive(st.none() | st.text(), st.lists).map(json.dumps).map(str.encode))
def test_any_bytes_are_users_or_a_server_error(data: bytes) -> None:
    with pytest.raises(ServerError, match=r"Delete users\.conf"):
        parsed_users(data)
