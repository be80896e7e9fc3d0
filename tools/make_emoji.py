"""Make ddpm_course/assets/emoji.npz, colour images at 16x16, from the emoji of two artists.

    npm pack emoji-datasource-google@16.0.0 emoji-datasource-twitter@16.0.0     # and unpack each: GOOGLE, TWITTER
    python tools/make_emoji.py GOOGLE/package TWITTER/package

Six classes of what their table calls subcategories; every skin tone, on white. Of each class every tenth emoji is held
out in all its tones and by both artists, so that no image held out is another one in other colours. (Some flags
have two names: three that are held out are also trained on.)
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

PATH = Path(__file__).resolve().parent.parent / "ddpm_course/assets/emoji.npz"
CLASSES = {
    "animal": "animal-mammal animal-bird animal-reptile animal-marine animal-bug cat-face monkey-face",
    "face": "face-smiling face-affection face-tongue face-hand face-neutral-skeptical face-sleepy face-unwell face-hat "
    "face-glasses face-concerned",
    "flag": "country-flag subdivision-flag",
    "hand": "hand-fingers-open hand-fingers-partial hand-single-finger hand-fingers-closed hands hand-prop",
    "person": "person person-role",
    "sign": "keycap alphanum av-symbol arrow zodiac religion warning transport-sign",
}


def files(package: Path, kinds: list[str]) -> Iterator[tuple[str, Path]]:
    "The emoji's name and the file of each of its skin tones, in the table's order."
    artist = next(package.glob("img/*")).name
    for emoji in json.loads((package / "emoji.json").read_text(encoding="utf-8")):
        tones = emoji.get("skin_variations", {})  # of two people, "A-B": left out
        for drawn in [emoji, *(tones[tone] for tone in sorted(tones) if "-" not in tone)]:
            file = package / "img" / artist / "64" / drawn["image"]
            if emoji["subcategory"] in kinds and drawn.get(f"has_img_{artist}") and file.exists():
                yield emoji["short_name"], file


def picture(file: Path) -> np.ndarray:
    "(16, 16, 3) uint8, on white."
    drawn = Image.open(file).convert("RGBA")
    paper = Image.new("RGBA", drawn.size, "white")
    paper.alpha_composite(drawn)
    return np.asarray(paper.convert("RGB").resize((16, 16), Image.Resampling.LANCZOS))


def main() -> None:
    packages = [Path(name) for name in sys.argv[1:]] or sys.exit(__doc__)
    images, labels, held_out = [], [], []
    for label, kinds in enumerate(CLASSES.values()):
        for package in packages:
            names: list[str] = []
            for name, file in files(package, kinds.split()):
                names += [name] * (name not in names)
                images.append(picture(file))
                labels.append(label)
                held_out.append(names.index(name) % 10 == 9)
    np.savez_compressed(
        PATH, images=np.stack(images), labels=np.uint8(labels), held_out=np.array(held_out), classes=list(CLASSES)
    )
    print(f"{PATH.name}: {PATH.stat().st_size / 1e6:.2f} MB, {len(images)} images, {sum(held_out)} of them held out")


if __name__ == "__main__":
    main()
