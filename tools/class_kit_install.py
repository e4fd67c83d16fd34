"""Install the course from this folder, without a network: `python install.py`. Standard library only."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

KIT = Path(__file__).resolve().parent
VENV = KIT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
LONGEST = 90  # characters of KIT on Windows: the packages have paths of up to 160 more, and 260 is the end


def main() -> None:
    found = re.search(r"python(\d+\.\d+)", KIT.name)  # a folder that is unpacked twice may end in " 2"
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if found and found[1] != here:
        right = f"py -{found[1]}" if os.name == "nt" else f"python{found[1]}"
        raise SystemExit(f"install: this kit is for Python {found[1]}, but this is Python {here}: {right} install.py")
    if os.name == "nt" and len(str(KIT)) > LONGEST:
        raise SystemExit(f"install: Windows takes no path as long as those in {KIT} would be: move it to C:\\vgg, say")
    print(f"making {VENV}", flush=True)
    made = subprocess.run([sys.executable, "-m", "venv", str(VENV)], capture_output=True, text=True)
    if made.returncode:
        raise SystemExit(f"install: {(made.stderr or made.stdout).strip().splitlines()[-1]} (Debian: python3-venv)")
    print("installing from wheels (a minute or two)", flush=True)
    wheels = (KIT / "wheels").as_uri()  # in which a blank is %20: pip takes a path with a blank for two
    offline = {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": wheels, "PIP_CONFIG_FILE": os.devnull}
    pip = [str(BIN / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run([*pip, "vgg_course[lab]"], env=offline, capture_output=True, text=True)
    if done.returncode:
        told = [line for line in done.stderr.splitlines() if line.startswith(("ERROR", "HINT"))] or [done.stderr[-300:]]
        raise SystemExit("install: " + "\n".join(told))
    if (KIT / "visdom_page").is_dir():  # the files of the live plot's page
        shutil.copytree(KIT / "visdom_page", VENV / "share" / "vgg_course", dirs_exist_ok=True)
    print("done. Start with:")
    if Path.cwd() != KIT:
        print(f'    cd "{KIT}"' if os.name == "nt" else f"    cd {shlex.quote(str(KIT))}")
    # From there, so that no blank is in it: PowerShell takes a quoted path for a text, not for a command.
    print(f"    {(BIN / 'python').relative_to(KIT)} {Path('tools', 'lab.py')}")


if __name__ == "__main__":
    main()
