"""A state folder with its server: one for all flows of a process, from the first to the last."""

import asyncio
import os
import shlex
import subprocess
import threading

import psutil
import pytest

from pratipad_nb import AsyncDevice, AsyncFlow, Device, Flow, FlowOptions
from pratipad_nb.errors import FlowError, ServerError, SettingsError
from pratipad_nb.session import asynchronous
from pratipad_nb.session.site import Site
from pratipad_nb.transport.parties import Party


def same(payload):
    return payload


def servers():
    return [process.pid for process in psutil.Process().children() if process.name() == "nats-server"]


def test_flows_of_one_folder_share_a_server_that_stops_with_the_last(tmp_path):
    folder = tmp_path / "state"
    first, second = (Flow("Push ~> same ~> Output", name=name, home=folder) for name in ("one", "two"))
    with first:
        running = servers()
        with second:
            assert servers() == running
            assert first.endpoint.url == second.endpoint.url
        assert servers() == running
    assert servers() == []


async def test_flows_that_start_at_the_same_moment_share_one_too(tmp_path):
    flows = [AsyncFlow("Push ~> same ~> Output", name=f"f{n}", home=tmp_path / "state") for n in range(6)]
    await asyncio.gather(*(flow.start() for flow in flows))
    assert len(servers()) == 1
    assert len({flow.endpoint.url for flow in flows}) == 1
    await asyncio.gather(*(flow.stop() for flow in flows))
    assert servers() == []


def test_two_folders_have_two_servers_and_know_nothing_of_each_other(tmp_path):
    with (
        Flow("Push ~> same ~> Output", name="one", home=tmp_path / "a") as one,
        Flow("Push ~> same ~> Output", name="two", home=tmp_path / "b") as two,
    ):
        assert len(servers()) == 2
        assert one.endpoint.url != two.endpoint.url
        with Device("d").connect(one) as device:
            device.push(1).wait(10)
        assert two.stats().received == 0


def test_the_last_one_to_let_go_stops_the_server_though_he_is_cancelled_and_the_next_waits_for_it(tmp_path):
    """As when a flow's thread is closed before its flow is: nobody else would stop the server any more."""
    folder = tmp_path / "state"

    async def let_go():
        site = await Site.acquire(folder, "interval")
        releasing = asyncio.create_task(site.release())
        await asyncio.sleep(0)
        releasing.cancel()
        await asyncio.wait({releasing})
        assert releasing.cancelled()
        again = await Site.acquire(folder, "interval")
        assert again is not site
        assert len(servers()) == 1
        await again.release()

    asyncio.run(let_go())
    assert servers() == []
    assert "pratipad server" not in [thread.name for thread in threading.enumerate()]


@pytest.mark.parametrize("bound", [0.3, 30.0])
def test_a_processor_that_is_stuck_keeps_no_stop_from_ending_the_server_and_is_named(
    tmp_path, caplog, monkeypatch, bound
):
    """Also where closing it takes longer than all of the closing may."""
    monkeypatch.setattr(asynchronous, "_CLOSE_SECONDS", bound)
    stuck, begun = threading.Event(), threading.Event()

    def sticks(payload):
        begun.set()
        stuck.wait(30)
        return payload

    options = FlowOptions(drain_seconds=0.2, hang_seconds=0.6)
    names = {"same": same, "sticks": sticks}
    flow = Flow(
        "Push ~> [same, sticks] ~> Output", name="slow", home=tmp_path, namespace=names, options=options
    )
    with Device("d").connect(flow.start()) as device:
        device.push(1).wait(10)
    begun.wait(5)
    flow.stop()
    assert servers() == []
    assert Site._open == {}
    assert flow.state == "stopped"
    assert "flow 'slow' was not drained within 0.2 s" in caplog.text
    assert "1 message in flight, and 0 frames at its input. Processors" in caplog.text
    assert "still at work: processor sticks has been in its call since" in caplog.text
    assert ". What isn't done is left to the next start" in caplog.text
    stuck.set()
    with flow:
        assert flow.take(1)[0].payload == 1


@pytest.mark.parametrize("own", ["node_modules/", None])
def test_a_folder_of_the_users_is_a_state_folder_without_a_file_of_his_changed(tmp_path, own):
    project = tmp_path / "project"
    project.mkdir(mode=0o755)
    (project / "main.py").write_text("print(1)")
    if own is not None:
        (project / ".gitignore").write_text(own)
    before = {path.name: path.read_text() for path in project.iterdir()}
    with Flow("Push ~> same ~> Output", home=project):
        pass
    after = {path.name: path for path in project.iterdir()}
    assert {name: after[name].read_text() for name in before} == before
    assert set(after) - set(before) == {"pki", "server"}
    assert all((after[name] / ".gitignore").read_text() == "*\n" for name in ("pki", "server"))


def test_the_state_folder_is_private_and_ignores_itself_in_git(tmp_path):
    with Flow("Push ~> same ~> Output", home=tmp_path / "project" / ".pratipad"):
        folder = tmp_path / "project" / ".pratipad"
        assert (folder / ".gitignore").read_text() == "*\n"
        assert folder.stat().st_mode & 0o077 == 0


async def test_a_state_folder_that_others_may_write_is_refused_with_the_command_that_mends_it(tmp_path):
    home = tmp_path / "a state"
    await (await Site.acquire(home, "interval")).release()
    for part, mode in ((".", 0o720), ("pki", 0o702), ("pki/authority", 0o777), ("server", 0o1777)):
        (home / part).chmod(mode)
        with pytest.raises(
            SettingsError, match=rf"may be written by other users \(mode {mode:04o}\)"
        ) as refused:
            await Site.acquire(home, "interval")
        subprocess.run(shlex.split(str(refused.value).partition("Run: ")[2]), check=True)
    await (await Site.acquire(home, "interval")).release()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a folder away")
async def test_a_state_folder_of_another_user_is_refused_and_one_below_such_a_folder_is_not(tmp_path):
    theirs = tmp_path / "clone"
    theirs.mkdir(mode=0o777)
    os.chown(theirs, 12345, 12345)
    with pytest.raises(SettingsError, match=r"belongs to the user 12345, .*sudo chown -R root .*clone"):
        await Site.acquire(theirs, "interval")
    theirs.chmod(0o1777)
    await (await Site.acquire(theirs / ".pratipad", "interval")).release()


async def test_a_site_that_can_not_be_opened_can_be_acquired_once_it_can(tmp_path):
    blocked = tmp_path / "state"
    blocked.write_text("in the way")
    for _ in range(2):
        with pytest.raises(ServerError, match=r"state folder .*state can't be written.*PRATIPAD_HOME"):
            await Site.acquire(blocked, "interval")
    blocked.unlink()
    site = await Site.acquire(blocked, "interval")
    assert len(servers()) == 1
    await site.release()
    assert servers() == []


async def test_a_device_that_was_let_in_once_needs_no_new_certificate(home):
    async with AsyncFlow("Push ~> same ~> Output", name="lets-in", home=home) as flow:
        first = await flow.endpoint_for("device", "room1")
        made = first.credentials.certificate.stat().st_mtime_ns
        assert await flow.endpoint_for("device", "room1") == first
        async with await AsyncDevice("room1").connect(flow) as device:
            await (await device.push("in"))
        assert first.credentials.certificate.stat().st_mtime_ns == made


async def test_on_a_server_of_others_only_who_runs_it_lets_devices_in(tmp_path, home):
    site = await Site.acquire(home, "interval")  # stands for that server
    try:
        credentials = (await site.endpoint_for(Party("elsewhere", "edge"))).credentials
        for name in ("authority", "certificate", "key"):
            kept = tmp_path / {"authority": "ca.pem", "certificate": "cert.pem", "key": "key.pem"}[name]
            kept.write_bytes(getattr(credentials, name).read_bytes())
        async with AsyncFlow(
            "Push ~> same ~> Output", name="elsewhere", server=site.url, certs=tmp_path
        ) as flow:
            with pytest.raises(FlowError, match=r"the device 'room1' needs a certificate.*certs=FOLDER"):
                await flow.endpoint_for("device", "room1")
    finally:
        await site.release()
