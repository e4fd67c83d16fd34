"""Our own server: where it listens, whom it answers, and the files of its page."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import requests
from ports import free_port
from servers import PATIENTLY, ROOT, WAIT, eventually, needs_page, posix

from vgg_course import live_page, own_server, visdom_server
from vgg_course.tracking import LossTracker

psutil = pytest.importorskip("psutil")
MEASURED = True  # the server's code runs in processes of its own


@pytest.mark.parametrize(
    ("server", "port", "wanted"),
    [
        (None, None, ("http://localhost", 8097, "")), ("", "", ("http://localhost", 8097, "")),
        ("http://there:9000/visdom/", None, ("http://there", 9000, "/visdom")),
        ("there", "81", ("http://there", 81, "")),
        ("https://[::1]", "x", ("https://[::1]", 8097, "")),
    ],
)  # fmt: skip
def test_where_the_environment_says_to_look(server, port, wanted, monkeypatch):
    for name, value in (("VISDOM_SERVER", server), ("VISDOM_PORT", port)):
        monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)
    assert visdom_server.address() == wanted


@needs_page
@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no second loopback address")
def test_our_server_listens_on_the_loopback_address_only_and_needs_no_torch():
    port = LossTracker("local", mode="visdom")._page.port
    addresses = {
        tuple(c.laddr) for c in psutil.Process(own_server._own.process.pid).net_connections() if c.status == "LISTEN"
    }
    assert addresses == {("127.0.0.1", port)}
    maps = Path(f"/proc/{own_server._own.process.pid}/maps").read_text(encoding="utf-8")
    assert "numpy" in maps and "libtorch" not in maps  # which would take most of the time of its start


def test_without_torch_is_as_if_there_were_none():
    """No ``None`` in its place: scipy 1.18 asks what is in ``sys.modules["torch"]``, and failed on that."""
    code = "import runpy, sys\nsys.argv = ['it', '--help']\ntry: runpy.run_path(sys.path.pop(), run_name='__main__')\n"
    code += "except SystemExit: print('torch' in sys.modules, 'visdom' in sys.modules)"
    command = [sys.executable, "-c", f"import sys; sys.path.append({visdom_server.__file__!r})\n{code}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines()[-1:] == ["False True"], done.stdout + done.stderr


@needs_page
def test_a_server_that_does_not_start_says_why_and_leaves_nothing():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        unlucky = own_server.OwnServer("", False, port)
        with pytest.raises(RuntimeError, match=f"port {port} of 127.0.0.1 is taken"):
            unlucky.wait_until_ready()
    late = own_server.OwnServer("", False)
    with pytest.raises(RuntimeError, match="it was not ready in 0.1 s"):
        late.wait_until_ready(0.1)
    for server in (unlucky, late):
        assert server.process.poll() is not None and not Path(server.folder).exists()


@needs_page
def test_the_stop_button_while_it_starts_leaves_nothing(monkeypatch):
    started = []

    def stopped(self, timeout):
        raise KeyboardInterrupt

    class Server(own_server.OwnServer):
        def wait_until_ready(self, *_):
            started.append(self)
            with monkeypatch.context() as button:
                button.setattr(own_server.queue.Queue, "get", stopped)
                super().wait_until_ready()

    monkeypatch.setattr(own_server, "OwnServer", Server)
    with pytest.raises(KeyboardInterrupt):
        own_server.own()
    (server,) = started
    assert server.process.poll() is not None and not Path(server.folder).exists()


def test_where_no_process_can_be_had_no_folder_stays(monkeypatch, tmp_path):
    monkeypatch.setattr(own_server.tempfile, "mkdtemp", lambda prefix: str(tmp_path / "of the server"))
    (tmp_path / "of the server").mkdir()

    def too_many(*_, **__):
        raise BlockingIOError("no more processes")

    monkeypatch.setattr(own_server.subprocess, "Popen", too_many)
    with pytest.raises(BlockingIOError):
        own_server.OwnServer("", False)
    assert list(tmp_path.iterdir()) == []


@needs_page
def test_a_folder_for_saved_plots_is_made_and_keeps_its_own_look(tmp_path):
    """It is asked for by name, so it may be anybody's."""
    for own_look in (False, True):
        folder = tmp_path / f"plots {own_look}"
        if own_look:
            folder.mkdir()
            (folder / "style.css").write_text("mine", encoding="utf-8")
        command = [sys.executable, "-m", "vgg_course.visdom_server", "--port", str(free_port()), "--folder", folder]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
            assert any("visdom is ready" in line for line in process.stdout)
            process.terminate()
        look = (folder / "style.css").read_text(encoding="utf-8")
        assert look == ("mine" if own_look else visdom_server.STYLE)


def test_a_server_that_is_asked_for_at_no_address_is_one_line(monkeypatch):
    monkeypatch.setenv("VISDOM_SERVER", "http://[::1")
    monkeypatch.delenv("VISDOM_PORT", raising=False)
    monkeypatch.setattr(sys, "argv", ["visdom_server"])
    with pytest.raises(SystemExit, match=r"no visdom server: VISDOM_SERVER is no address \(Invalid IPv6"):
        visdom_server.main()


def test_files_of_the_page_that_cannot_be_kept_are_one_line(monkeypatch, capsys):
    def no_room():
        raise PermissionError("[Errno 13] Permission denied: 'share'")

    monkeypatch.setattr(visdom_server, "install_assets", no_room)
    monkeypatch.setattr(sys, "argv", ["visdom_server", "--assets"])
    with pytest.raises(SystemExit, match="1"):
        visdom_server.main()
    assert capsys.readouterr().err.endswith("Permission denied: 'share'. The loss is then drawn inline.\n")


@needs_page
def test_a_killed_server_whose_port_is_taken_comes_back_at_another():
    first = own_server.own()
    first.process.kill()
    first.process.wait()
    with socket.create_server(("127.0.0.1", first.port)):
        second = own_server.own()
        assert second.port != first.port and own_server.own() is second
        live_page.Page("http://localhost", second.port, "", "anything").check()


@needs_page
def test_a_fork_does_not_end_the_server_of_its_parent(monkeypatch):
    server = own_server.own()
    monkeypatch.setattr(server, "pid", os.getpid() + 1)  # as a fork sees it
    server.stop()
    assert server.process.poll() is None
    assert own_server.own() is not server  # it starts one of its own
    monkeypatch.undo()
    server.stop()
    assert server.process.poll() is not None


@needs_page
def test_at_the_end_of_a_script_our_server_outlives_the_last_message():
    code = f"""{PATIENTLY}
from vgg_course import own_server
from vgg_course.tracking import LossTracker
start = own_server.OwnServer.__init__
def noted(self, *arguments):
    print("a server starts", flush=True)
    start(self, *arguments)
own_server.OwnServer.__init__ = noted
tracker = LossTracker("end", mode="visdom")
tracker(0, {{"loss": 1.0}})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert done.returncode == 0 and done.stderr == ""
    first, second = done.stdout.splitlines()  # no other server, and no word of one that does not answer
    assert first == "a server starts" and second.startswith("plot of 'end': http://localhost:")


@posix
@needs_page
def test_a_server_that_hangs_is_no_page_and_is_ended_all_the_same(impatient):
    server = own_server.own()
    server.process.send_signal(signal.SIGSTOP)
    with pytest.raises(RuntimeError, match="no visdom server answers"):
        live_page.own_page("vgg_course/hangs")
    server.stop()
    assert server.process.returncode == -signal.SIGKILL and not Path(server.folder).exists()


@posix
@needs_page
def test_ctrl_c_ends_the_server_for_all_notebooks(tmp_path):
    command = [sys.executable, "-m", "vgg_course.visdom_server", "--port", str(free_port())]
    process = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "TMPDIR": str(tmp_path)}, stdout=subprocess.PIPE, text=True
    )
    try:
        eventually(lambda: "visdom is ready" in process.stdout.readline())
        assert [path for path in tmp_path.iterdir() if path.name.startswith("vgg_course_visdom_")]
        process.send_signal(signal.SIGINT)
        assert "visdom has ended" in process.communicate(timeout=WAIT)[0] and process.returncode == 0
        assert not list(tmp_path.iterdir())
    finally:
        process.kill()
        process.communicate()


@needs_page
def test_foreign_pages_are_refused():
    websocket = pytest.importorskip("websocket")
    tracker = LossTracker("door", mode="visdom")
    port = tracker._page.port
    own, foreign = f"http://localhost:{port}", "http://evil.example"
    for path in ("socket", "vis_socket"):
        for origin in (foreign, "http://localhost:1", "null"):
            with pytest.raises(websocket.WebSocketBadStatusException, match="403"):
                websocket.create_connection(f"ws://localhost:{port}/{path}", origin=origin, timeout=60)
        websocket.create_connection(f"ws://localhost:{port}/{path}", origin=own, timeout=60).close()
    for headers in ({"Origin": foreign}, {"Host": f"evil.example:{port}"}, {"Origin": foreign, "Host": "evil.example"}):
        assert requests.post(f"{own}/env_state", json={}, headers=headers, timeout=60).status_code == 403
        assert requests.get(f"{own}/", headers=headers, timeout=60).status_code == 403
    assert requests.post(f"{own}/env_state", json={}, headers={"Origin": own}, timeout=60).status_code == 200


@needs_page
def test_the_page_has_all_its_files_and_their_licences():
    page = LossTracker("files", mode="visdom")._page
    text = requests.get(page.url, timeout=60).text
    static = visdom_server.find_assets()
    names = [name for files in visdom_server.ASSETS.values() for name in files.values()]
    assert "js/plotly-plotly.min.js" in text
    for name in names:
        answer = requests.get(f"{page.address}/static/{name}", timeout=60)
        assert answer.status_code == 200 and answer.content == (static / name).read_bytes()
    if static == visdom_server.assets_folder() / "static" and (static.parent / "licenses").exists():
        for package in visdom_server.ASSETS:
            assert list((static.parent / "licenses" / package.replace("@", "-")).iterdir())
    assert visdom_server.install_assets().endswith(str(static))  # a second time: nothing to do


@pytest.fixture
def empty_environment(monkeypatch, tmp_path):
    """As if the page's files had never been fetched, with visdom's own download out of reach."""
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "prefix"))
    for proxy in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(proxy, "http://127.0.0.1:9")
    pristine = tmp_path / "visdom" / "static"
    pristine.mkdir(parents=True)
    (pristine / "index.html").write_text("a page", encoding="utf-8")
    monkeypatch.setattr(visdom_server.visdom, "__file__", str(pristine.parent / "__init__.py"))
    return tmp_path


def stand_in_for_npm(folder: Path, monkeypatch, leave_out: str = "") -> None:
    """A program ``npm`` whose packages hold what is asked for; those named in ``leave_out`` are empty."""
    code = f"""#!{sys.executable}
import io, sys, tarfile
sys.path.insert(0, {str(ROOT)!r})
from vgg_course.visdom_server import ASSETS
folder = sys.argv[sys.argv.index("--pack-destination") + 1]
for package in sys.argv[sys.argv.index(folder) + 1:]:
    with tarfile.open(f"{{folder}}/{{package.replace('@', '-')}}.tgz", "w:gz") as archive:
        for name in [] if package == {leave_out!r} else [*ASSETS[package], "LICENSE", "../../outside", "other.js"]:
            member = tarfile.TarInfo(f"package/{{name}}")
            member.size = len(name.encode())
            archive.addfile(member, io.BytesIO(name.encode()))
        folder_of_licences = tarfile.TarInfo("package/LICENSES")
        folder_of_licences.type = tarfile.DIRTYPE
        archive.addfile(folder_of_licences)
"""
    (folder / "bin").mkdir()
    (folder / "bin" / "npm").write_text(code, encoding="utf-8")
    (folder / "bin" / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder / "bin"), prepend=os.pathsep)


@posix
def test_the_pages_files_come_from_npm_where_visdoms_download_fails(empty_environment, monkeypatch):
    stand_in_for_npm(empty_environment, monkeypatch)
    assert "fetched from npm" in visdom_server.install_assets()
    static = visdom_server.find_assets()
    assert (
        static == visdom_server.assets_folder() / "static"
        and (static / "index.html").read_text(encoding="utf-8") == "a page"
    )
    for package, files in visdom_server.ASSETS.items():
        assert all((static / place).read_text(encoding="utf-8") == name for name, place in files.items())
        licences = static.parent / "licenses" / package.replace("@", "-")
        assert [path.name for path in licences.iterdir()] == ["LICENSE"]  # and no folder
    assert not [path for path in empty_environment.rglob("*") if path.name in ("outside", "other.js")]
    assert [path.name for path in static.parents[1].iterdir()] == [static.parent.name]  # nothing half done
    assert "are there" in visdom_server.install_assets()


def test_the_pages_files_come_by_visdoms_own_download_where_it_works(empty_environment, monkeypatch, capsys):
    """A stand-in for the network: visdom's download, in its process, has put all files where it was told to."""

    def download(command, **_):
        assert "download_scripts" in command[2]
        for files in visdom_server.ASSETS.values():
            for place in files.values():
                file = Path(command[3]) / "static" / place
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text("from a CDN", encoding="utf-8")

    monkeypatch.setattr(visdom_server.subprocess, "run", download)
    monkeypatch.setattr(sys, "argv", ["visdom_server", "--assets"])
    visdom_server.main()
    assert "fetched by visdom's own download" in capsys.readouterr().out
    static = visdom_server.find_assets()
    assert static == visdom_server.assets_folder() / "static"
    assert (static / "version.built").read_text(encoding="utf-8") == visdom_server.VERSION


@posix
def test_without_the_pages_files_the_reason_is_told(empty_environment, monkeypatch):
    run = subprocess.run  # without visdom's download, which fails in six seconds, as in the test of npm above
    monkeypatch.setattr(subprocess, "run", lambda command, **how: command[0] != sys.executable and run(command, **how))
    with monkeypatch.context() as without_npm:
        without_npm.setenv("PATH", str(empty_environment))
        with pytest.raises(RuntimeError, match="there is no npm"):
            visdom_server.install_assets()
    stand_in_for_npm(empty_environment, monkeypatch, leave_out="sjcl@1.0.7")
    with pytest.raises(RuntimeError, match="other files"):
        visdom_server.install_assets()
    (empty_environment / "bin" / "npm").write_text("#!/bin/sh\necho no such registry >&2\nexit 1\n", encoding="utf-8")
    with pytest.raises(RuntimeError, match="nor did npm: no such registry"):
        visdom_server.install_assets()
    (empty_environment / "bin" / "npm").write_text("#!/bin/sh\nexec sleep 60\n", encoding="utf-8")
    monkeypatch.setattr(visdom_server, "NPM_PATIENCE", 0.5)
    with pytest.raises(RuntimeError, match=r"npm was not done in 0\.5 s"):
        visdom_server.install_assets()
    assert visdom_server.find_assets() is None and not list(visdom_server.assets_folder().parent.iterdir())
    with pytest.raises(RuntimeError, match=r"the files of visdom's page are missing \(python -m .* --assets\)"):
        visdom_server.serve(free_port(), str(empty_environment))
    monkeypatch.setattr(sys, "argv", ["visdom_server", "--assets"])
    with pytest.raises(SystemExit):
        visdom_server.main()
