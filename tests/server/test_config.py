"""What the server is told: TLS in every case, and users that survive the way to the file and back."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

from pratipad_nb.server.config import ServerFiles, rendered_config
from pratipad_nb.settings import Credentials

FILES = ServerFiles(Path("/state/server"))
CREDENTIALS = Credentials(Path("/c/ca.pem"), Path("/c/cert.pem"), Path("/c/key.pem"))


def sections(text: str) -> dict[str, object]:
    include, *lines = text.splitlines()
    assert include == "include ./accounts.conf"
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
