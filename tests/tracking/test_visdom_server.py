"""Our own server: where it listens, whom it answers, and the files of its page."""

import os
import sys
from pathlib import Path

import pytest
import requests
from servers import ROOT, needs_page, posix

from vgg_course import own_server, visdom_server
from vgg_course.tracking import LossTracker

psutil = pytest.importorskip("psutil")


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
def test_our_server_listens_on_the_loopback_address_only():
    port = LossTracker("local", mode="visdom")._page.port
    addresses = {
        tuple(c.laddr) for c in psutil.Process(own_server._own.process.pid).net_connections() if c.status == "LISTEN"
    }
    assert addresses == {("127.0.0.1", port)}


@needs_page
def test_foreign_pages_are_refused():
    websocket = pytest.importorskip("websocket")
    tracker = LossTracker("door", mode="visdom")
    port = tracker._page.port
    own, foreign = f"http://localhost:{port}", "http://evil.example"
    for path in ("socket", "vis_socket"):
        for origin in (foreign, "http://localhost:1", "null"):
            with pytest.raises(websocket.WebSocketBadStatusException, match="403"):
                websocket.create_connection(f"ws://localhost:{port}/{path}", origin=origin, timeout=9)
        websocket.create_connection(f"ws://localhost:{port}/{path}", origin=own, timeout=9).close()
    for headers in ({"Origin": foreign}, {"Host": f"evil.example:{port}"}, {"Origin": foreign, "Host": "evil.example"}):
        assert requests.post(f"{own}/env_state", json={}, headers=headers, timeout=9).status_code == 403
        assert requests.get(f"{own}/", headers=headers, timeout=9).status_code == 403
    assert requests.post(f"{own}/env_state", json={}, headers={"Origin": own}, timeout=9).status_code == 200


@needs_page
def test_the_page_has_all_its_files_and_their_licences():
    page = LossTracker("files", mode="visdom")._page
    text = requests.get(page.url, timeout=9).text
    static = visdom_server.find_assets()
    names = [name for files in visdom_server.ASSETS.values() for name in files.values()]
    assert "js/plotly-plotly.min.js" in text
    for name in names:
        answer = requests.get(f"{page.address}/static/{name}", timeout=9)
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
    (pristine / "index.html").write_text("a page")
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
"""
    (folder / "bin").mkdir()
    (folder / "bin" / "npm").write_text(code)
    (folder / "bin" / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder / "bin"), prepend=os.pathsep)


@posix
def test_the_pages_files_come_from_npm_where_visdoms_download_fails(empty_environment, monkeypatch):
    stand_in_for_npm(empty_environment, monkeypatch)
    assert "fetched from npm" in visdom_server.install_assets()
    static = visdom_server.find_assets()
    assert static == visdom_server.assets_folder() / "static" and (static / "index.html").read_text() == "a page"
    for package, files in visdom_server.ASSETS.items():
        assert all((static / place).read_text() == name for name, place in files.items())
        assert (static.parent / "licenses" / package.replace("@", "-") / "LICENSE").exists()
    assert not [path for path in empty_environment.rglob("*") if path.name in ("outside", "other.js")]
    assert [path.name for path in static.parents[1].iterdir()] == [static.parent.name]  # nothing half done
    assert "are there" in visdom_server.install_assets()


@posix
def test_without_the_pages_files_the_reason_is_told(empty_environment, monkeypatch):
    with monkeypatch.context() as without_npm:
        without_npm.setenv("PATH", str(empty_environment))
        with pytest.raises(RuntimeError, match="there is no npm"):
            visdom_server.install_assets()
    stand_in_for_npm(empty_environment, monkeypatch, leave_out="sjcl@1.0.7")
    with pytest.raises(RuntimeError, match="other files"):
        visdom_server.install_assets()
    (empty_environment / "bin" / "npm").write_text("#!/bin/sh\necho no such registry >&2\nexit 1\n")
    with pytest.raises(RuntimeError, match="nor did npm: no such registry"):
        visdom_server.install_assets()
    assert visdom_server.find_assets() is None and not list(visdom_server.assets_folder().parent.iterdir())
    monkeypatch.setattr(sys, "argv", ["visdom_server", "--assets"])
    with pytest.raises(SystemExit):
        visdom_server.main()
