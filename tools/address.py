"""Where the repository and the site are: `git_url` in settings.ini, and nowhere else.

    python tools/address.py       # print both; while the setting is empty or a placeholder, exit code 1

README.md, CITATION.cff, the site and the wheel take the address from here. While it is empty they name none.
"""

import configparser
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FORM = r"https://github\.com/(?!owner/|your|example)([\w-]+)/([\w.-]+)"


def address(settings: Path = ROOT / "settings.ini") -> tuple[str, str]:
    "The repository's address, and that of its GitHub Pages; two empty texts while the setting is empty."
    config = configparser.ConfigParser()
    config.read(settings, encoding="utf-8")
    repository = config["DEFAULT"]["git_url"].strip()
    found = re.fullmatch(FORM, repository, re.I)
    if repository and not found:
        sys.exit(f"git_url in settings.ini must be https://github.com/OWNER/NAME, with a real owner, not {repository}")
    return (repository, f"https://{found[1].lower()}.github.io/{found[2]}/") if found else ("", "")


if __name__ == "__main__":
    print("\n".join(address()))
    if not address()[0]:
        sys.exit("git_url in settings.ini is empty: a release needs the repository's address")
