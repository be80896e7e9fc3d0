"""Make ddpm_course/assets/faces.npz: faces of 16x16 pixels in colour, drawn from parts that are all known.

    pip install dicebear-core==10.7 dicebear-styles==10.6 resvg_py==0.5 numpy pillow    # in an environment of its own
    python tools/make_faces.py [SHEET.png]          # the sheet shows 200 of them, to be looked at

About half a minute; the same bytes each time. The style is DiceBear's "Pixel Art" (CC0 1.0), drawn on a grid of 16x16.
A face is drawn from parts chosen at random: shapes among those of SHAPES, colours among those of COLOURS. Left out are
shapes that are hardly seen at this size, bald heads, half-shut eyes and bare shoulders; colours that are hard to tell
apart were replaced by others. Beards, which the style only shades, have the hair's colour.

Whoever wears a hat, glasses or a beard is of that class, all others are `long` or `short`, by their hair. Some parts
never meet, in training and test faces alike: HELD_OUT. What they look like together, 50 faces for each line, is a third
part of the file, `unseen`. No two faces of the file are equal.
"""

import io
import json
import random
import sys
from functools import partial
from importlib import resources
from pathlib import Path

import numpy as np
import resvg_py
from dicebear import Avatar, Style
from PIL import Image

PATH = Path(__file__).resolve().parent.parent / "ddpm_course/assets/faces.npz"
CLASSES = ("beard", "glasses", "hat", "long", "short")
COUNTS = {"train": 1000, "test": 200}  # faces of each class
UNSEEN = 50  # faces of each held-out combination

HELD_OUT = (  # "any": any but none
    {"glasses": "any", "hat": "any"},
    {"beard": "any", "glasses": "any"},
    {"beard": "any", "hat": "any"},
    {"hat": "any", "length": "long"},
    {"beard": "any", "length": "long"},
    {"glasses": "any", "background": "pink"},
    {"length": "long", "hair colour": "green"},
)

LONG = ("long02", "long03", "long04", "long07", "long09", "long13", "long17", "long18", "long21")
SHORT = ("short01", "short02", "short04", "short06", "short08", "short09", "short10", "short13", "short14", "short16")
SHORT += ("short17", "short22")
SHAPES = {  # part: its name in the style, and the shapes that are used
    "hair": ("hair", LONG + SHORT),
    "hat": ("hat", tuple(f"variant{k:02}" for k in range(1, 11))),
    "glasses": ("glasses", tuple(f"{kind}0{k}" for kind in ("dark", "light") for k in (1, 2, 3, 5, 6, 7))),
    "beard": ("beard", ("variant01", "variant05", "variant07", "variant08")),
    "mouth": ("mouth", ("happy06", "happy08", "happy09", "happy12", "sad01", "sad04", "sad05")),
    "eyes": ("eyes", ("variant01", "variant04", "variant06", "variant07", "variant08", "variant09")),
    "clothes": ("clothes", tuple(f"variant{k:02}" for k in (1, 2, 3, 5, 6, 8, 11, 12, 13, 14, 16, 23))),
}
COLOURS = {  # part: its name in the style, and name and value of each colour
    "skin": (
        "skin",
        {"1": "ffdbac", "2": "eac393", "3": "cb9e6e", "4": "b68655", "5": "a26d3d", "6": "8d5524"},  # light to dark
    ),
    "hair colour": (
        "hair",
        {
            "black": "28150a",
            "brown": "603a14",
            "blond": "e3c14d",
            "red": "bd1700",
            "blue": "009bbd",
            "green": "91cb15",
        },
    ),
    "hat colour": (
        "hat",
        {
            "blue": "2663a3",
            "grey": "989789",
            "green": "3d8a6b",
            "pink": "cc6192",
            "violet": "614f8a",
            "red": "a62116",
        },
    ),
    "glasses colour": ("glasses", {"black": "191919", "grey": "4b4b4b", "blue": "43677d", "red": "a04b5d"}),
    "mouth colour": ("mouth", {"brown": "c98276", "pink": "e35d6a", "red": "de0f0d"}),
    "eye colour": ("eyes", {"grey": "76778b", "blue": "5b7c8b", "brown": "876658"}),
    "clothes colour": (
        "clothing",
        {
            "blue": "428bca",
            "navy": "03396c",
            "green": "00b159",
            "red": "d11141",
            "coral": "ff6f69",
            "yellow": "ffc425",
        },
    ),
    "background": (
        "background",
        {
            "sky": "b6e3f4",
            "violet": "c0aede",
            "pink": "ffbfcf",
            "cream": "ffefb8",
            "mint": "b9e8c4",
        },
    ),
}
LENGTHS = ("short", "long")
MAY_LACK = ("hat", "glasses", "beard", "hat colour", "glasses colour")  # 0 means none
NAMES = {part: ("none",) * (part in MAY_LACK) + tuple(all) for part, (_, all) in (SHAPES | COLOURS).items()}
NAMES["length"] = LENGTHS

Face = dict[str, str]


def held_out(face: Face) -> list[Face]:
    "Those of HELD_OUT that a face shows."

    def shows(combination: Face) -> bool:
        return all(face[p] != "none" if wanted == "any" else face[p] == wanted for p, wanted in combination.items())

    return [combination for combination in HELD_OUT if shows(combination)]


def throw(dice: random.Random, worn: tuple[str, ...], lengths: tuple[str, ...]) -> Face:
    "A face of random parts that wears of hat, glasses and beard what is asked for."
    face = {part: dice.choice(list(all)) for part, (_, all) in (SHAPES | COLOURS).items()}
    face["length"] = dice.choice(lengths)
    face["hair"] = dice.choice(LONG if face["length"] == "long" else SHORT)
    for part in ("hat", "glasses", "beard"):
        if part not in worn:
            face |= {name: "none" for name in (part, f"{part} colour") if name in face}
    return face


def of_class(dice: random.Random, name: str) -> Face:
    "A face of a class, without what is held out."
    lengths = (name,) if name in LENGTHS else LENGTHS
    while held_out(face := throw(dice, (name,), lengths)):
        pass
    return face


def of_combination(dice: random.Random, combination: Face) -> Face:
    "A face with this held-out combination, and no other."
    worn = tuple(part for part, wanted in combination.items() if wanted == "any")
    while held_out(face := throw(dice, worn, LENGTHS)) != [combination]:
        pass
    return face


def pixel_art() -> Style:
    "The style, with beards in the hair's colour."
    spec = json.loads((resources.files("dicebear_styles") / "pixel-art.json").read_text(encoding="utf-8"))
    for beard in spec["components"]["beard"]["variants"].values():
        mask = beard["elements"][0]["children"][0]
        del mask["attributes"]["opacity"]
        beard["elements"] = [mask]
    return Style(spec)


def draw(style: Style, face: Face) -> np.ndarray:
    "(16, 16, 3) uint8."
    chosen: dict[str, object] = {"seed": "all is chosen", "accessoriesProbability": 0}
    for part, (theirs, _) in SHAPES.items():
        chosen[f"{theirs}Probability"] = 100 * (face[part] != "none")
        chosen[f"{theirs}Variant"] = [face[part]]
    for part, (theirs, values) in COLOURS.items():
        chosen[f"{theirs}Color"] = [values[face[part]]] if face[part] != "none" else []
    svg = Avatar(style, {name: value for name, value in chosen.items() if value not in (["none"], [])}).to_string()
    png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=16, height=16))
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def sheet(images: np.ndarray, path: str, columns: int = 20, zoom: int = 4) -> None:
    rows = images.reshape(-1, columns, 16, 16, 3).transpose(0, 2, 1, 3, 4).reshape(-1, columns * 16, 3)
    Image.fromarray(rows).resize((columns * 16 * zoom, len(rows) * zoom), Image.Resampling.NEAREST).save(path)


def main() -> None:
    dice, style, seen = random.Random(0), pixel_art(), set()
    plan = [  # split, label, how to throw a face
        (split, label, partial(of_class, dice, name))
        for split, count in enumerate(COUNTS.values())
        for label, name in enumerate(CLASSES)
        for _ in range(count)
    ]
    plan += [(len(COUNTS), k, partial(of_combination, dice, c)) for k, c in enumerate(HELD_OUT) for _ in range(UNSEEN)]
    images, faces = [], []
    for _, _, thrown in plan:
        while (image := draw(style, face := thrown())).tobytes() in seen:
            pass
        seen.add(image.tobytes())
        images.append(image)
        faces.append(face)

    pixels = np.stack(images)
    palette, indices = np.unique(pixels.reshape(-1, 3), axis=0, return_inverse=True)
    assert len(palette) <= 256, len(palette)
    about = {
        "what": 'faces of 16x16 pixels in the style "Pixel Art" by DiceBear, CC0 1.0',
        "source": "https://www.figma.com/community/file/1198754108850888330",
        "made by": "tools/make_faces.py",
        "classes": CLASSES,
        "splits": (*COUNTS, "unseen"),
        "names": NAMES,
        "held out": HELD_OUT,
    }
    np.savez_compressed(
        PATH,
        images=indices.reshape(pixels.shape[:3]).astype(np.uint8),
        palette=palette,
        labels=np.uint8([label for _, label, _ in plan]),
        split=np.uint8([split for split, _, _ in plan]),
        parts=np.uint8([[all.index(face[part]) for part, all in NAMES.items()] for face in faces]),
        about=np.frombuffer(json.dumps(about).encode(), np.uint8),
    )
    print(f"{PATH.name}: {PATH.stat().st_size / 1e6:.2f} MB, {len(images)} faces, {len(palette)} colours")
    if len(sys.argv) > 1:
        chosen = np.linspace(0, len(images) - 1, 200).astype(int)
        sheet(pixels[chosen], sys.argv[1])


if __name__ == "__main__":
    main()
