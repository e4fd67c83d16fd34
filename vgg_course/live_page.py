"""A page of a visdom server, seen from Python: a client that cannot hang, and the page's frame below a cell."""

import base64
import contextlib
import hashlib
import html
import importlib
import importlib.util
import itertools
import json
import os
import platform
import queue
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote, urlsplit

import requests

from vgg_course import own_server
from vgg_course.visdom_server import LOCAL, address

TIMEOUT = (1.0, 3.0)  # seconds: to connect, and to answer

# ------------------------------------------------------------------ the client


class Page:
    """One environment on one visdom server, through visdom's HTTP interface.

    visdom's own client waits for good for a server that does not answer, prints a traceback when there is none, and
    takes any web page for a plot. Here every method raises ``ConnectionError``, in one line, when no visdom answers.
    """

    def __init__(self, server: str, port: int, base_url: str, env: str, ours: bool = False) -> None:
        self.address, self.base_url, self.ours = f"{server}:{port}", base_url, ours
        self.port, self.env = port, env.replace("/", "_")  # as visdom writes it
        self._versions = itertools.count(time.time_ns() // 1_000_000)  # after all of an earlier kernel; below 2**53
        self.session = requests.Session()
        # A proxy that the environment names for the web would be asked for localhost too.
        self.session.trust_env = urlsplit(server).hostname not in LOCAL

    @property
    def path(self) -> str:
        """The address of the page, without the host."""
        return f"{self.base_url}/env/{quote(self.env)}"

    @property
    def url(self) -> str:
        """The address of the page, for a browser on the same machine."""
        return self.address + self.path

    def _ask(self, endpoint: str, message: dict[str, Any]) -> str:
        body = json.dumps(message, allow_nan=False)  # NaN is no JSON: it would end the page
        # Windows tries a localhost of IPv6 first, where visdom does not listen, for a second at each connection.
        to = self.address.replace("//localhost:", "//127.0.0.1:") if sys.platform == "win32" else self.address
        try:
            answer = self.session.post(f"{to}{self.base_url}/{endpoint}", data=body, timeout=TIMEOUT)
            answer.raise_for_status()
            text: str = answer.text
            return text
        except (requests.RequestException, ValueError) as error:  # the second: a host's name that cannot be one
            response = getattr(error, "response", None)
            code = f" (HTTP {response.status_code})" if response is not None else ""
            raise ConnectionError(f"no visdom server answers at {self.address}{code}") from error

    def _need(self, right: bool) -> None:
        if not right:
            raise ConnectionError(f"what answers at {self.address} is no visdom server")

    def check(self) -> None:
        """Return if a visdom answers: it gives the list of its environments, which nothing else does.

        The environment is made where it is missing: 0.3.0 shows no page for one that does not exist.
        """
        try:
            names = json.loads(self._ask("env_state", {}))
        except ValueError:
            names = None
        self._need(isinstance(names, list) and all(isinstance(name, str) for name in names))
        if self.env not in names:
            self._ask(f"env/{quote(self.env)}", {"eid": self.env})

    def has(self, window: str) -> bool:
        """Whether the server shows this window: one that was started anew does not."""
        answer = self._ask("win_exists", {"eid": self.env, "win": window})
        self._need(answer in ("true", "false"))
        return answer == "true"

    def show(self, window: str, message: Mapping[str, Any]) -> None:
        """Draw a window, or put a new picture in its place: sending it twice changes nothing.

        The page of visdom 0.3.0 draws a plot anew only if its version has changed, so each message has another one.
        """
        version = next(self._versions)
        self._need(self._ask("events", {"eid": self.env, "win": window, "version": version, **message}) == window)

    def close(self, window: str) -> None:
        """Take a window away; none of that name is fine too."""
        if self.has(window):  # else a server that was started anew, without this environment, answers with an error
            self._ask("close", {"eid": self.env, "win": window})

    def revive(self) -> None:
        """Start the server again if it is our own and was killed."""
        if self.ours:
            with contextlib.suppress(RuntimeError):
                server = _own_server()
                self.port, self.base_url, self.address = server.port, server.base_url, f"http://localhost:{server.port}"


def _page(env: str) -> Page:
    """The page for ``env`` where the environment says to look, be there a server or not.

    Raises ``ConnectionError`` if it names no address at all.
    """
    try:
        return Page(*address(), env)
    except ValueError as error:
        raise ConnectionError(f"VISDOM_SERVER is no address ({error})") from None


def find(env: str) -> Page:
    """The page for ``env`` on the server at ``VISDOM_SERVER`` and ``VISDOM_PORT``.

    Raises ``ConnectionError`` if none answers in time.
    """
    page = _page(env)
    _in_time(page, page.check, 2 * sum(TIMEOUT))  # it sends two messages
    return page


def _in_time(page: Page, ask: Callable[[], object], seconds: float) -> None:
    """``ask`` a server. Raises ``ConnectionError`` for no answer, even from one that sends a byte now and then."""
    result: queue.Queue[str] = queue.Queue()  # what is wrong, or nothing

    def ask_it() -> None:
        try:
            ask()
            result.put("")
        except Exception as error:
            result.put(str(error) or repr(error))

    try:
        threading.Thread(target=ask_it, daemon=True).start()
    except RuntimeError as error:  # Python 3.12 starts none while it ends
        raise ConnectionError(str(error)) from None
    try:
        wrong = result.get(timeout=seconds)
    except queue.Empty:
        wrong = f"what is at {page.address} does not answer"
    if wrong:
        raise ConnectionError(wrong)


def choose(run: str, mode: str) -> tuple[str, Page | None, str]:
    """How to draw a run: ("page", "inline", "log" or "off"; the page; why)."""
    env, why = env_name(run), f"asked for {mode}"
    if mode in ("auto", "visdom"):
        try:
            return "page", find(env), "the visdom server that answers there"
        except ConnectionError as error:
            why = str(error)
        if mode == "visdom" or notebook():
            try:
                return "page", own_page(env), f"a visdom server of its own: {why}"
            except RuntimeError as error:
                why = f"{why}; no server of its own: {error}"
    if mode in ("log", "off"):
        return mode, None, why
    return ("inline" if notebook() else "log"), None, why


def send_once(env: str, endpoint: str, message: dict[str, Any]) -> None:
    """Send a message to the server at ``VISDOM_SERVER``. Raises ``ConnectionError`` if no visdom answers in time."""
    page = _page(env)

    def send() -> None:
        answer = page._ask(endpoint, message)
        page._need(not answer.lstrip("\ufeff \r\n").startswith("<"))  # a web page

    _in_time(page, send, sum(TIMEOUT))


def own_page(env: str) -> Page:
    """The page for ``env`` on this process's own server. Raises ``RuntimeError`` if that does not start."""
    server = _own_server()
    page = Page("http://localhost", server.port, server.base_url, env, ours=True)
    try:
        page.check()
    except ConnectionError as error:
        raise RuntimeError(str(error)) from error
    return page


def _own_server() -> own_server.OwnServer:
    if not notebook() or _colab() or importlib.util.find_spec("jupyter_server_proxy") is None:
        return own_server.own(polling=_colab())  # Colab's way to a port passes no websockets
    # Where jupyter-server-proxy shows a local port: an address that works from afar as well as here.
    return own_server.own(os.environ.get("JUPYTERHUB_SERVICE_PREFIX", "/") + "proxy/absolute/{port}")


def env_name(run: str) -> str:
    """The environment of a run, safe in addresses, file names and visdom's page; another one for each name.

    What those cannot carry becomes ``_``, long names are cut; a few digits then tell apart what became alike.
    """
    clean = "".join(c if c.isalnum() or c in " -_.()" or (ord(c) > 0x2100 and c.isprintable()) else "_" for c in run)
    clean = clean.encode()[:80].decode("utf-8", "ignore").strip()
    digits = hashlib.sha256(run.encode("utf-8", "surrogatepass")).hexdigest()[:6]
    return f"vgg_course/{clean if clean == run else f'{clean} {digits}'.strip()}"


def window_token() -> str:
    """What sets this process's windows apart from those of another with a run of the same name on the same server.

    A kernel started anew has the same token as before, if Jupyter tells it which notebook it belongs to.
    """
    who = (os.environ.get("JPY_SESSION_NAME") if notebook() else None) or os.getpid()
    here = os.environ.get("PWD", "")
    with contextlib.suppress(OSError):  # the folder may have been removed
        here = os.getcwd()
    return hashlib.sha256(f"{who} {here} {platform.node()}".encode("utf-8", "surrogatepass")).hexdigest()[:6]


# ------------------------------------------------------------------ below a notebook's cell


def notebook() -> Any:
    """IPython's shell if this is the kernel of a notebook, else None."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell if hasattr(shell, "kernel") else None


def _colab() -> bool:
    return "google.colab" in sys.modules


# The notebook's page looks for an address at which the browser gets an answer, before it opens a frame: there is
# never a blank one. The host must be the one in the address bar, or the frame is denied the storage that visdom needs.
FRAME = """
<div id="{id}" style="min-height: 24px; font-size: 90%">live plot: <a href="{url}" target="_blank">{url}</a></div>
<script>
(async () => {{
  const box = document.getElementById("{id}"), here = location.hostname;
  const direct = new URL({url_json}), isLocal = name => ["localhost", "127.0.0.1", "[::1]"].includes(name);
  if (isLocal(direct.hostname) && isLocal(here) && here !== "[::1]") direct.hostname = here;
  const proxied = new URL({path_json}, location.href);
  const inCode = location.protocol.startsWith("vscode"); // whose page may show a frame, but not ask
  for (const url of !{proxy_json} || inCode ? [direct] : isLocal(here) ? [direct, proxied] : [proxied, direct]) {{
    try {{
      const same = url.origin === location.origin;
      if (!inCode) {{
        const answer = await fetch(url, {{mode: same ? "same-origin" : "no-cors"}});
        if (same && !answer.ok) continue;
      }}
      const frame = document.createElement("iframe");
      Object.assign(frame, {{src: url.href, width: "100%", height: 400, title: "live plot of the training"}});
      frame.style.border = "1px solid #ddd";
      box.prepend(frame);
      return;
    }} catch (error) {{}}
  }}
  box.append(" (no answer there: its kernel has ended, or runs on another machine: see the README)");
}})();
</script>"""


def _frame(page: Page) -> str:
    values = {"url": page.url, "path": page.path, "proxy": "/proxy/absolute/" in page.path}
    as_json = {f"{key}_json": json.dumps(value).replace("<", "\\u003c") for key, value in values.items()}
    return FRAME.format(id=f"vgg-plot-{os.urandom(6).hex()}", url=html.escape(page.url), **as_json)


class Frame:
    """What stands below the cell: the page in a frame, or the curve as a picture. It goes along to later cells."""

    def __init__(self, page: Page | None) -> None:
        self.page = page
        self.display: Any = None  # IPython's handle
        self.cell: str | None = None
        self.follow()

    def follow(self) -> None:
        """Move below the cell that runs now, if it is another one than before."""
        shell = notebook()
        cell = shell.get_parent().get("header", {}).get("msg_id") if shell else None
        if cell is None or cell == self.cell:
            return
        moved, self.cell = self.display, cell
        if moved:
            note = "The plot is below a later cell."
            moved.update({"text/html": f"<i>{note}</i>", "text/plain": note}, raw=True)
        if self.page is None:
            self.display = self._new({"text/plain": "the plot comes with the first points"})
        elif _colab():
            try:
                colab = importlib.import_module("google.colab.output")
                colab.serve_kernel_port_as_iframe(self.page.port, path=self.page.path, height="400")
            except Exception as error:
                print(f"Colab does not show the page ({error}): the curve is below the cell")
                self.page, self.display = None, self._new({"text/plain": "the plot comes with the first points"})
        else:
            self.display = self._new({"text/html": _frame(self.page), "text/plain": f"live plot: {self.page.url}"})

    def show(self, image: bytes, text: str) -> None:
        """Put a PNG picture in the place of what is there; ``text`` is for those who do not see it."""
        metadata = {"image/png": {"alt": text}}
        data = {"image/png": base64.b64encode(image).decode(), "text/plain": text}
        if self.display:
            self.display.update(data, raw=True, metadata=metadata)
        else:
            self.display = self._new(data, metadata)

    @staticmethod
    def _new(data: dict[str, str], metadata: dict[str, Any] | None = None) -> Any:
        from IPython.display import DisplayHandle

        handle = DisplayHandle()
        handle.display(data, raw=True, metadata=metadata or {})
        return handle
