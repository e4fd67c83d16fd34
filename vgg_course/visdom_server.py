"""A visdom server on this machine alone: the files of its page, and running it.

``python -m vgg_course.visdom_server`` runs a server for all notebooks (``make visdom``); with ``--assets`` it only
fetches the files of its page, once, while the course is set up. This file needs no other of the course, for
``own_server.py`` starts it by its path.
"""

import argparse
import atexit
import contextlib
import errno
import importlib.metadata
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit


class _NoTorch:
    """visdom takes torch along where it finds it; a server has no use for it, and is there in a fifth of the time."""

    @staticmethod
    def find_spec(name: str, *_: object) -> None:
        if name == "torch":
            raise ImportError("this server does without torch")


if __name__ == "__main__":
    sys.meta_path.insert(0, _NoTorch)

import visdom  # noqa: E402

VERSION = importlib.metadata.version("visdom")

# What visdom's page loads besides its own code: npm package -> {file in the package: where the page looks for it}.
# visdom itself fetches these from CDNs at its first start; with a package index alone they come from npm.
_REACT_CSS = ("react-resizable@3.1.3", "react-grid-layout@2.2.3")
_FONTS = [f"fonts/glyphicons-halflings-regular.{kind}" for kind in ("eot", "woff2", "woff", "ttf", "svg")]
_MATHJAX = [
    *("MathJax.js", "config/Safe.js", "config/TeX-AMS-MML_HTMLorMML.js", "extensions/Safe.js"),
    *(f"jax/output/SVG/{name}" for name in ("jax.js", "config.js", "fonts/TeX/fontdata.js")),
    "jax/output/SVG/fonts/TeX/Size1/Regular/Main.js",
]
ASSETS: dict[str, dict[str, str]] = {
    "jquery@3.1.1": {"dist/jquery.min.js": "js/jquery.min.js"},
    "bootstrap@3.3.7": {f"dist/{name}": name for name in ("js/bootstrap.min.js", "css/bootstrap.min.css", *_FONTS)},
    "react@16.2.0": {"umd/react.production.min.js": "js/react-react.min.js"},
    "react-dom@16.2.0": {"umd/react-dom.production.min.js": "js/react-dom.min.js"},
    "react-modal@3.1.10": {"dist/react-modal.min.js": "js/react-modal.min.js"},
    "plotly.js-dist-min@2.11.1": {"plotly.min.js": "js/plotly-plotly.min.js"},
    "sjcl@1.0.7": {"sjcl.js": "js/sjcl.js"},
    "layout-bin-packer@1.4.0": {"dist/layout-bin-packer.js": "js/layout_bin_packer.js"},
    "d3@3.5.17": {"d3.min.js": "js/d3.v3.min.js"},
    "d3-selection-multi@1.0.1": {"build/d3-selection-multi.js": "js/d3-selection-multi.v1.js"},
    "save-svg-as-png@1.4.17": {"lib/saveSvgAsPng.js": "js/saveSvgAsPng.js"},
    "react-resizable@3.1.3": {"css/styles.css": "css/react-resizable-styles.css"},
    "react-grid-layout@2.2.3": {"css/styles.css": "css/react-grid-layout-styles.css"},
    "mathjax@3.2.2": {"es5/tex-mml-svg.js": "js/mathjax/3.2.2/es5/tex-mml-svg.js"},
}
if VERSION.startswith("0.2."):
    for _new in (*_REACT_CSS, "mathjax@3.2.2"):
        del ASSETS[_new]
    ASSETS["react-resizable@1.4.6"] = {"css/styles.css": "css/react-resizable-styles.css"}
    ASSETS["react-grid-layout@0.16.3"] = {"css/styles.css": "css/react-grid-layout-styles.css"}
    ASSETS["mathjax@2.7.5"] = {name: f"js/mathjax/2.7.5/{name}" for name in _MATHJAX}

# visdom's way for a user's own look: a style sheet beside the plots. In the low frame below a notebook's cell its head
# would take a fourth of the room. The link of each plot that sends the data to a company's server is never shown.
STYLE = """
html { background: #f4f4f4 }
.js-plot-link-container { display: none }
@media (max-height: 500px) { .navbar-form { display: none } }
"""
NPM_PATIENCE = 300  # seconds for 10 MB
LOCAL = ("localhost", "127.0.0.1", "::1")


# ------------------------------------------------------------------ the page's files


def assets_folder() -> Path:
    """Where the page's files belong: inside the virtual environment, so they go when it goes."""
    return Path(sys.prefix) / "share" / "vgg_course" / f"visdom-{VERSION}"


def _complete(static: Path) -> bool:
    wanted = [name for files in ASSETS.values() for name in files.values()]
    return all((static / name).is_file() and (static / name).stat().st_size for name in ["index.html", *wanted])


def find_assets() -> Path | None:
    """The folder with all files of the page: ours, or visdom's own if it has downloaded them. None: not there."""
    for static in (assets_folder() / "static", Path(visdom.__file__).parent / "static"):
        if _complete(static):
            return static
    return None


def install_assets() -> str:
    """Fetch the page's files into ``assets_folder()``: by visdom's own download, or else from npm. Says how.

    Raises ``RuntimeError`` with both reasons if neither works.
    """
    if find_assets():
        return f"the files of visdom's page are there: {find_assets()}"
    target = assets_folder()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:  # all or nothing: renamed when it is complete
        new = Path(folder) / "new"
        (new / "static").parent.mkdir()
        shutil.copytree(Path(visdom.__file__).parent / "static", new / "static")
        # In a process of its own, for the download knows no time limit.
        code = "import sys; from visdom.server.build import download_scripts; download_scripts(install_dir=sys.argv[1])"
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run([sys.executable, "-c", code, str(new)], capture_output=True, timeout=120, check=False)
        how = "by visdom's own download"
        if not _complete(new / "static"):
            _install_from_npm(new)
            how = "from npm"
        if not _complete(new / "static"):
            raise RuntimeError("npm has sent other files of visdom's page than expected")
        (new / "static" / "version.built").write_text(VERSION, encoding="utf-8")
        shutil.rmtree(target, ignore_errors=True)
        new.rename(target)
    return f"the files of visdom's page were fetched {how}: {target}"


def _install_from_npm(new: Path) -> None:
    """Unpack the npm packages of ``ASSETS`` into ``new/static``, and their licences into ``new/licenses``."""
    npm = shutil.which("npm")
    if npm is None:
        raise RuntimeError("visdom's download did not work and there is no npm: visdom's page stays out of reach")
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", "--silent", "--pack-destination", folder, *ASSETS]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=NPM_PATIENCE, check=False)
        except subprocess.TimeoutExpired:
            raise RuntimeError(
                f"visdom's download did not work, and npm was not done in {NPM_PATIENCE} s: try again later"
            ) from None
        if done.returncode:
            raise RuntimeError(f"visdom's download did not work, nor did npm: {(done.stderr.strip() or '?')[-300:]}")
        for package, files in ASSETS.items():
            name = package.replace("@", "-")
            with tarfile.open(Path(folder) / f"{name}.tgz") as archive:
                for member in archive.getmembers():
                    _, _, inner = member.name.partition("/")
                    if inner in files:
                        place = new / "static" / files[inner]
                    elif inner.upper().startswith(("LICEN", "COPYING", "README", "PACKAGE.JSON")):
                        place = new / "licenses" / name / Path(inner).name
                    else:
                        continue
                    place.parent.mkdir(parents=True, exist_ok=True)
                    if content := archive.extractfile(member):  # None: a folder
                        place.write_bytes(content.read())


def address() -> tuple[str, int, str]:
    """Where to look for a server, from ``VISDOM_SERVER`` and ``VISDOM_PORT``: (``http://host``, port, base URL)."""
    server = os.environ.get("VISDOM_SERVER", "").strip() or "http://localhost"
    parts = urlsplit(server if "//" in server else f"//{server}", scheme="http")
    try:
        port = int(os.environ.get("VISDOM_PORT", "").strip() or parts.port or 8097)
    except ValueError:
        port = 8097
    host = parts.hostname or "localhost"
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}", port, parts.path.rstrip("/")


# ------------------------------------------------------------------ the server


def _refuse_foreign(handler: Any) -> None:
    """Answer 403 to what another web site asks for through the user's browser, websockets included.

    A browser names the site that a request comes from in ``Origin``: it must be the host that was asked, ``Host``. And
    that must be this machine, for a foreign name that is made to lead to 127.0.0.1 is a known way around the first
    rule. A request that came through a proxy has the proxy's host, and so not our port. (Not in use on Colab, whose
    proxy names hosts of its own. No browser runs on its machine, so there is no other site in one.)
    """
    app, headers = handler.application, handler.request.headers
    origin, asked = headers.get("Origin"), headers.get("X-Forwarded-Host", headers.get("Host", ""))
    host = urlsplit(f"//{headers.get('Host', '')}")
    try:
        through_proxy = bool(app.base_url) and host.port != app.port
    except ValueError:  # not a port
        through_proxy = False
    foreign = origin is not None and urlsplit(origin).netloc.lower() != asked.lower()
    if foreign or not (through_proxy or host.hostname in LOCAL):
        handler.set_status(403)
        handler.finish("This server answers pages of its own only.")


def serve(
    port: int, folder: str, base_url: str = "", polling: bool = False, ready: Callable[[int], object] = print
) -> None:
    """Run a visdom server on 127.0.0.1 until the process ends; ``ready(port)`` is called when it listens.

    It keeps its plots in memory and in ``folder``. Raises ``OSError`` if the port is taken, ``RuntimeError`` if the
    files of its page are missing.
    """
    from visdom.server import app, run_server  # here: it takes a while, and only the server needs it
    from visdom.server.handlers import base_handlers, socket_handlers

    static = find_assets()
    if static is None:
        raise RuntimeError("the files of visdom's page are missing (python -m vgg_course.visdom_server --assets)")
    with socket.socket() as probe:  # visdom 0.3.0 would take another port without a word
        if sys.platform != "win32":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
    # Settings that visdom leaves to its tornado: where its files are, and not to start again when a file changes.
    app.tornado_settings.update(static_path=str(static), template_path=str(static), autoreload=False)
    # Every request passes our door. Behind it, 0.3.0's own rule for websockets would refuse those from a proxy.
    doors: list[Any] = [base_handlers.BaseHandler, base_handlers.BaseWebSocketHandler]
    for handler in doors if not polling else ():
        handler.prepare = _refuse_foreign
    sockets: list[Any] = [socket_handlers.SocketHandler, socket_handlers.VisSocketHandler]
    for handler in sockets:
        handler.check_origin = lambda *_: True
    Path(folder).mkdir(parents=True, exist_ok=True)
    if not (style := Path(folder) / "style.css").exists():  # who has one in this folder keeps it
        style.write_text(STYLE, encoding="utf-8")
    options = {"base_url": base_url, "env_path": folder, "use_frontend_client_polling": polling}
    run_server.start_server(port=port, bind_local=True, print_func=ready, **options)


def _end_with_parent(folder: str) -> None:
    """End this process when the one that holds the other end of its stdin is gone, however it went."""
    with contextlib.suppress(OSError):
        os.read(0, 1)
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


def main() -> None:
    """The command line: see the module."""
    parser = argparse.ArgumentParser(prog="python -m vgg_course.visdom_server", description=__doc__.split("\n")[0])
    parser.add_argument("--assets", action="store_true", help="fetch the files of the page, then end")
    parser.add_argument("--port", type=int, help="default: VISDOM_PORT, or 8097")
    parser.add_argument("--base-url", default="", help="the path under which a proxy shows it")
    parser.add_argument("--polling", action="store_true", help="for Colab: no websockets, any host's name")
    parser.add_argument("--folder", help="where it keeps plots that are saved by hand; default: a temporary one")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.assets:
        try:
            print(install_assets())
        except (RuntimeError, OSError) as error:  # a course without the live page still has the inline curve
            print(f"{error}. The loss is then drawn inline.", file=sys.stderr)
            sys.exit(1)
        return
    try:
        port = options.port or address()[1]
    except ValueError as error:
        sys.exit(f"no visdom server: VISDOM_SERVER is no address ({error})")
    folder, keep = options.folder or tempfile.mkdtemp(prefix="vgg_course_visdom_"), options.folder and not options.child
    if not keep:  # at the very end: visdom may save its pages once more when it ends
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    if options.child:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        threading.Thread(target=_end_with_parent, args=(folder,), daemon=True).start()
    else:
        for number in (signal.SIGTERM, getattr(signal, "SIGHUP", None)):  # the second: its terminal is closed
            if number and (number == signal.SIGTERM or signal.getsignal(number) is not signal.SIG_IGN):  # nohup's
                signal.signal(number, lambda *_: sys.exit(0))

    def ready(listening: int) -> None:
        if not options.child:
            print(f"visdom is ready: http://localhost:{listening}{options.base_url} (Ctrl-C ends it)", flush=True)
            return
        print("READY", listening, flush=True)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # nobody reads on, and a full pipe would stop it

    try:
        serve(port, folder, options.base_url, options.polling, ready)
    except KeyboardInterrupt:
        print("visdom has ended")
    except Exception as error:
        taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        reason = f"port {port} of 127.0.0.1 is taken (VISDOM_PORT asks for another)" if taken else error
        print(f"FAILED {reason}" if options.child else f"no visdom server: {reason}", flush=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
