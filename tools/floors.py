"""Print what the package requires, each at the oldest version that settings.ini allows: a constraints file for pip.

python tools/floors.py > floors.txt && pip install -c floors.txt -e .
"""

import configparser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def floors(requirements: str) -> list[str]:
    "`name>=version` as `name==version`; every requirement has a floor."
    return ["==".join(part.split(">=")[:2]) for part in requirements.split()]


if __name__ == "__main__":
    config = configparser.ConfigParser()
    config.read(ROOT / "settings.ini")
    print("\n".join(floors(config["DEFAULT"]["requirements"])))
