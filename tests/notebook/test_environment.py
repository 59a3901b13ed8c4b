"""What the notebook takes from environment variables."""

from pathlib import Path

import pytest

from pratipad_nb.notebook.environment import surroundings
from pratipad_nb.session.defaults import Defaults, defaults, set_defaults


@pytest.fixture(autouse=True)
def untouched():
    before = defaults()
    set_defaults(Defaults())
    yield
    set_defaults(before)


def test_nothing_said_changes_nothing():
    assert surroundings({}) == Defaults()


def test_the_folder_the_server_and_the_certificates_are_taken():
    found = surroundings(
        {"PRATIPAD_HOME": "/srv/state", "PRATIPAD_SERVER": "tls://host:4222", "PRATIPAD_CERTS": "/srv/certs"}
    )
    assert found == Defaults(Path("/srv/state"), "tls://host:4222", Path("/srv/certs"))


def test_folders_are_made_whole_so_that_a_change_of_directory_changes_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    found = surroundings({"PRATIPAD_HOME": "~/state", "PRATIPAD_CERTS": "certs"})
    assert (found.home, found.certs) == (tmp_path / "state", tmp_path / "certs")


def test_an_empty_variable_says_nothing():
    set_defaults(Defaults(server="tls://host:1"))
    assert surroundings({"PRATIPAD_HOME": "", "PRATIPAD_SERVER": ""}) == Defaults(server="tls://host:1")
