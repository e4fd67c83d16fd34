"""Open JupyterLab on notebooks/, with the arguments that this machine needs. More arguments are passed on."""

import os
import subprocess
import sys
from pathlib import Path

root = Path(__file__).resolve().parent.parent  # not notebooks/ itself, for their heads lead to the glossary beside it
command = [sys.executable, "-m", "jupyterlab", str(root), "--FileContentsManager.preferred_dir=notebooks"]
command.append("--ServerApp.answer_yes=True")  # Ctrl+C ends it without a question
if not any(argument.startswith("--ip") for argument in sys.argv):
    command += ["--ip", "localhost"]  # the live plots under the cells need the same host name as the page
if hasattr(os, "geteuid") and os.geteuid() == 0:
    command.append("--allow-root")  # a container: JupyterLab refuses to run as root otherwise
if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
    command.append("--no-browser")  # no screen here: JupyterLab prints its address instead
    print("No screen here: open the address that JupyterLab prints below.", flush=True)
command += sys.argv[1:]
if os.name == "posix":
    os.execv(command[0], command)  # JupyterLab takes this process's place, and so each signal that is meant for it
try:
    raise SystemExit(subprocess.call(command))
except KeyboardInterrupt:
    raise SystemExit(0) from None
