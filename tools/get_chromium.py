"""Find or install Chromium for the browser tests, and print its path.

    python tools/get_chromium.py

CHROMIUM names one that is there. Otherwise it is looked for on the PATH, and installed by apt-get where that is
allowed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PACKAGES = ("chromium", "fonts-dejavu-core")
LONGEST = 300  # seconds that a call of apt-get may take
ATTEMPTS = 2
HOW = "There is no Chromium: run 'apt-get install chromium', or let CHROMIUM name a Chromium or Chrome that is there."


def chromium() -> str:
    """Return the path of a Chromium or Chrome. Ends the program, saying what to do, where there is none."""
    if named := os.environ.get("CHROMIUM"):
        if not shutil.which(named):
            raise SystemExit(f"CHROMIUM is {named}, which is no program")
        return named
    path = _on_path()
    if not path:
        raise SystemExit(HOW)
    return path


def install() -> None:
    """Install Debian's Chromium if there is none and the user may, with a second attempt; print what went wrong."""
    if os.environ.get("CHROMIUM") or _on_path() or not shutil.which("apt-get") or os.geteuid():
        return
    for _ in range(ATTEMPTS):
        _apt_get("update", "-q")  # where this fails, the lists of packages that are there may do
        if _apt_get("install", "-y", "-q", "--no-install-recommends", *PACKAGES):
            return


def _on_path() -> str | None:
    return next(filter(None, map(shutil.which, NAMES)), None)


def _apt_get(*arguments: str) -> bool:
    """Run apt-get, its output on stderr, and return whether it succeeded."""
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    try:
        subprocess.run(["apt-get", *arguments], check=True, stdout=sys.stderr, timeout=LONGEST, env=environment)
    except (subprocess.SubprocessError, OSError) as error:
        print(f"apt-get {arguments[0]}: {error}", file=sys.stderr)
        return False
    return True


def main() -> None:
    install()
    print(chromium())


if __name__ == "__main__":
    main()
