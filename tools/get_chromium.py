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
LONGEST = 300  # seconds
HOW = "There is no Chromium: run 'apt-get install chromium', or let CHROMIUM name a Chromium or Chrome that is there."


def chromium() -> str:
    """Return the path of a Chromium or Chrome. Ends the program, saying what to do, where there is none."""
    if named := os.environ.get("CHROMIUM"):
        if not shutil.which(named):
            raise SystemExit(f"CHROMIUM is {named}, which is no program")
        return named
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if not path:
        raise SystemExit(HOW)
    return path


def install() -> None:
    """Install Debian's Chromium, if there is none and the user may; say what went wrong otherwise."""
    if os.environ.get("CHROMIUM") or any(map(shutil.which, NAMES)) or not shutil.which("apt-get") or os.geteuid():
        return
    for arguments in (["update", "-q"], ["install", "-y", "-q", "--no-install-recommends", *PACKAGES]):
        try:
            subprocess.run(["apt-get", *arguments], check=True, stdout=sys.stderr, timeout=LONGEST)
        except (subprocess.SubprocessError, OSError) as error:
            print(f"apt-get {arguments[0]}: {error}", file=sys.stderr)
            return


def main() -> None:
    install()
    print(chromium())


if __name__ == "__main__":
    main()
