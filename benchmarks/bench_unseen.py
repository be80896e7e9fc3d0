"""Twenty sick runs that the doctor was not written for, and three healthy ones: what `ddpm doctor` says of each.

    python benchmarks/bench_unseen.py make FOLDER [--only NAME] [--seed N]
    python benchmarks/bench_unseen.py judge FOLDER [--only NAME]

`make` writes each run into FOLDER/NAME/run, beside it its pictures, its plugin and the run that it was mixed up with,
and trains for about a minute each; what is there already is made anew. `judge` asks `ddpm doctor` as a user would and
writes results/unseen.json. Whoever wrote `CASES` had not read the doctor. One line a run:

    name, kind   setting, data, code, file, or control
    cause        the one thing that is wrong with it, written down before the doctor was asked
    right        the cause counts as named by a finding that has one of these words, or whose check is in `checks`
    findings     what the doctor found, in its order: check, how sure it is, what it says; after these, those that it
                 takes for consequences of others
    score        right first, right among others, silent, or wrong, and then whether its first finding was certain;
                 of a control: healthy, or false alarm
"""

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np
from common import keep
from PIL import Image

from ddpm_course.data.faces import load_faces
from ddpm_course.data.sets import ImageSet, load_digits

OUT = Path(__file__).parent / "results/unseen.json"


@dataclass(frozen=True)
class Case:
    kind: str
    cause: str
    right: str = ""  # an expression that names the cause
    checks: tuple[str, ...] = ()  # names of the doctor's checks that do
    words: str = ""  # for `ddpm train`, beside data, plugin, seed and folder
    data: Callable[[Path, int], None] | None = None  # writes the folder of pictures
    plugin: str = ""
    other: str | None = None  # a second run is trained, with these words
    after: Callable[[Path], None] | None = None  # what happens to the case's folder when all is trained


# -- pictures ---------------------------------------------------------------------------------------------------------


def digits(split: str) -> ImageSet:
    return load_digits(split, 28)


def faces(split: str) -> ImageSet:
    return load_faces(split).images


def in_order(images: ImageSet, *parts: str) -> Iterator[tuple[int, Image.Image, Path]]:
    "The number, the picture and the place, without the end of its name, of each, one folder a class."
    for k, (pixels, name) in enumerate(zip(images.pixels, (images.classes[y] for y in images.labels))):
        yield k, Image.fromarray(pixels.transpose(1, 2, 0).squeeze()), Path(*parts, name, f"{k:05}")


def write(picture: Image.Image, path: Path, end: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(f"{path}{end}.png")


def blue_third(folder: Path, seed: int) -> None:
    swapped = np.random.default_rng(seed).random(5000) < 1 / 3
    for k, picture, path in in_order(faces("train"), folder):
        write(Image.fromarray(np.asarray(picture)[..., ::-1]) if swapped[k] else picture, path)


def divided(folder: Path, seed: int) -> None:
    for _, picture, path in in_order(digits("train"), folder):
        write(Image.fromarray((np.asarray(picture) / 255).round().astype(np.uint8)), path)


def mirrored_twins(folder: Path, seed: int) -> None:
    for _, picture, path in in_order(faces("train"), folder):
        write(picture, path)
        write(picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT), path, "_flip")


def white_ink(folder: Path, seed: int) -> None:
    for _, picture, path in in_order(digits("train"), folder):
        if int(path.parent.name) >= 5:
            full = Image.new("L", picture.size, 255)
            picture = Image.merge("LA", (full, picture))
        write(picture, path)


def next_class_in_test(folder: Path, seed: int) -> None:
    test = digits("test")
    for _, picture, path in in_order(digits("train"), folder, "train"):
        write(picture, path)
    for _, picture, path in in_order(ImageSet(test.pixels, (test.labels + 1) % 10, test.classes), folder, "test"):
        write(picture, path)


def both_splits(folder: Path, seed: int) -> None:
    for split in ("train", "test"):
        for _, picture, path in in_order(digits(split), folder, split):
            write(picture, path)


def all_faces(folder: Path, seed: int) -> None:
    for _, picture, path in in_order(faces("train"), folder):
        write(picture, path)


def without_classes(folder: Path, seed: int) -> None:
    for _, picture, path in in_order(digits("train")):
        write(picture, folder / path.name)


# -- plugins ----------------------------------------------------------------------------------------------------------

BETAS = """
import torch
from ddpm_course import SCHEDULES, Schedule


def mine(T):
    return Schedule(torch.linspace(0.0001**0.5, 0.02**0.5, T, dtype=torch.float64))


SCHEDULES["mine"] = mine
"""

SIGN = """
from ddpm_course import OBJECTIVES, Objective


def solve(v, xt, signal, sigma):
    return signal * xt + sigma * v, sigma * xt + signal * v


OBJECTIVES["velocity"] = Objective(target=lambda x0, eps, signal, sigma: signal * eps - sigma * x0, solve=solve)
"""

ROOT = """
from ddpm_course import CRITERIA
from ddpm_course.losses import diffusion_losses
from ddpm_course.simple import Simple


class Mine(Simple):
    def losses(self, model, batch):
        signal, sigma = model.schedule.scales(batch.t, like=batch.x0)
        xt = signal * batch.x0 + sigma**2 * batch.eps
        out = model.answer(xt, batch.t, batch.y)
        return diffusion_losses(out, xt, batch.x0, batch.eps, (signal, sigma), model.objective)


CRITERIA["mine"] = Mine
"""

TANH = """
from torch import nn
from ddpm_course import NETWORKS
from ddpm_course.model import unet


class Bounded(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x, t, y=None):
        return self.inner(x, t, y).tanh()


NETWORKS["bounded"] = lambda config: Bounded(unet(config))
"""

MATRICES = """
import torch
from ddpm_course import EMAS, Average


class Matrices(Average):
    @torch.no_grad()
    def update(self, network, step):
        decay = min(self.training.ema, (1 + step) / (10 + step))
        for mine, theirs in zip(self.network.parameters(), network.parameters()):
            if theirs.ndim > 1:
                mine.lerp_(theirs, 1 - decay)


EMAS["matrices"] = Matrices
"""


# -- what happens to files --------------------------------------------------------------------------------------------


def newest(run: Path) -> Path:
    return max((run / "checkpoints").glob("step_*"))


def sealed(checkpoint: Path, **facts: object) -> None:
    "Make meta.json describe the files that are there."
    meta = json.loads((checkpoint / "meta.json").read_text()) | facts
    meta["files"] = {name: sha256((checkpoint / name).read_bytes()).hexdigest() for name in meta["files"]}
    (checkpoint / "meta.json").write_text(json.dumps(meta, indent=2))


def other_log(case: Path) -> None:
    shutil.copy(case / "other/metrics.jsonl", case / "run/metrics.jsonl")


def other_average(case: Path) -> None:
    shutil.copy(newest(case / "other") / "ema.safetensors", newest(case / "run"))
    sealed(newest(case / "run"))


def other_schedule(case: Path) -> None:
    for file in [case / "run/config.json", *(case / "run/checkpoints").glob("*/meta.json")]:
        file.write_text(file.read_text().replace('"schedule": "cosine"', '"schedule": "linear"'))


def old_weights(case: Path) -> None:
    last, first = newest(case / "run"), min((case / "run/checkpoints").glob("step_*"))
    for name in ("model.safetensors", "ema.safetensors", "optimizer.pt"):
        shutil.copy(first / name, last / name)
    sealed(last)


def inverted_test(case: Path) -> None:
    for path in (case / "data/test").glob("*/*.png"):
        Image.fromarray(255 - np.asarray(Image.open(path))).save(path)


# -- all runs ---------------------------------------------------------------------------------------------------------

COLOUR = "--preset faces16 --log-every 10 --save-every 200 --grid-every 0"
CASES = {
    "tiny-clip": Case(
        "setting",
        "gradients are clipped to a norm of 1e-7, so that Adam's moves vanish beside its epsilon",
        r"(larger|higher|bigger|without|raise) (--)?clip|clip(s|ped|ping)? .*(all|every|always|nearly|most|%|times)"
        r"|--clip .*(small|low|tiny)|cut to --clip",
        words="--optimizer adamw --lr 2e-3 --clip 1e-7",
    ),
    "decayed": Case(
        "setting",
        "weight decay of 10 pulls all weights to zero faster than they can learn",
        r"weight.?decay|weights (shrink|are pulled|decay)",
        words="--optimizer adamw --lr 2e-3 --weight-decay 10",
    ),
    "labels-dropped": Case(
        "setting",
        "labels are dropped nearly always (0.95), as if the number were the share that is kept",
        r"label.?drop|labels? (is|are|were) (nearly always |mostly |often )?dropped|drops? (too many |most )?labels",
        words="--label-drop 0.95",
    ),
    "dropout": Case(
        "setting",
        "dropout of 0.8 leaves the network too little to learn with",
        r"dropout",
        words="--dropout 0.8",
    ),
    "batch-of-two": Case(
        "setting",
        "a batch of two pictures with the learning rate of 64: 1,300 pictures are seen, with noisy gradients",
        r"--batch|batch(es)? (is|are|of|too|size)|(small|larger|bigger) batch|noisy gradients?|epoch",
        words="--batch 2",
    ),
    "blue-third": Case(
        "data",
        "a third of the pictures have red and blue swapped (read by OpenCV)",
        r"\bBGR\b|\bRGB\b|red and blue|blue and red|swapped channels|order of (the )?channels"
        r"|channels? (are |is )?(swapped|mixed|in another order)",
        words=COLOUR,
        data=blue_third,
    ),
    "divided-by-255": Case(
        "data",
        "pixels were divided by 255 before they were saved as bytes: all are 0 or 1, and pictures look black",
        r"black|dark|contrast|blank|scaled? twice|normali[sz]ed twice|divided|0 (to|or|and) 1\b|range of (the )?pixels"
        r"|constant|(pixel|brightness|value)s? .*(narrow|hardly|range)|(narrow|small|tiny) range",
        data=divided,
    ),
    "mirrored-twins": Case(
        "data",
        "flipped copies were written before the split: each held-out picture is the mirror image of one trained on",
        r"(mirror|flip).*(held.?out|train|cop|twin)|(held.?out|train|cop|twin).*(mirror|flip)|near(ly|.)?(doubles|twins"
        r"|copies|duplicates|equal)|leak",
        words=COLOUR,
        data=mirrored_twins,
    ),
    "white-ink": Case(
        "data",
        "digits 5 to 9 are white ink on transparent ground, which becomes white: their pictures are blank",
        r"blank|empty|transparen|\balpha\b|(one|single|no) (colour|value)|constant|equal pictures|doubles|identical",
        data=white_ink,
    ),
    "test-labels": Case(
        "data",
        "the classes of the held-out pictures are shifted by one against those trained on",
        r"(label|class).*(held.?out|test)|(held.?out|test).*(label|class)",
        data=next_class_in_test,
    ),
    "unsquared": Case(
        "code",
        "the schedule is the scaled linear one without its square: betas are roots, and most steps are pure noise",
        r"schedule|(pure|only|nothing but) noise|alpha.?bar|\babar|\bbetas?\b|\bSNR\b",
        words="--schedule mine",
        plugin=BETAS,
    ),
    "sign-of-v": Case(
        "code",
        "the objective's solve has a wrong sign: x0 = signal x_t + sigma v",
        r"objective|\bsolve\b|\bsign\b|target",
        words="--objective velocity",
        plugin=SIGN,
    ),
    "no-root": Case(
        "code",
        "the loss adds noise times 1 - abar, without the square root, which is less noise than samplers begin from",
        r"(less|more|another|other|wrong|amount of|too little|too much) noise|noise (is )?(less|more|other|wrong)"
        r"|square root|forward process",
        words="--loss mine",
        plugin=ROOT,
    ),
    "tanh": Case(
        "code",
        "the network ends in a tanh, and what it is asked for is often beyond [-1, 1]",
        r"tanh|bounded|saturat|(answer|output)s?.*(within|inside|beyond|range|limit|\[-1, 1\])|last (layer|activation)",
        words="--network bounded",
        plugin=TANH,
    ),
    "half-average": Case(
        "code",
        "the average takes in matrices only: biases and the scales of norms stay as they were at the start",
        r"average|\bEMA\b",
        words="--average matrices",
        plugin=MATRICES,
    ),
    "other-log": Case(
        "file",
        "metrics.jsonl is that of another run, with another objective, optimizer and learning rate",
        r"metrics|\blog\b.*(another|other|not of|differ|does not)|(another|other) run",
        other="--optimizer adamw --lr 5e-4 --objective eps",
        after=other_log,
    ),
    "other-average": Case(
        "file",
        "ema.safetensors in the last checkpoint comes from another run with other classes",
        r"average|\bEMA\b|(another|other) run",
        other="--data data",
        after=other_average,
    ),
    "other-schedule": Case(
        "file",
        "the schedule was changed to linear in config.json and meta.json after a training with cosine",
        r"schedule",
        after=other_schedule,
    ),
    "old-weights": Case(
        "file",
        "the last checkpoint, step 650, holds the weights of step 130: a wrongly restored backup",
        r"checkpoint.*(older|old|another|not the|wrong)|(older|earlier|old|previous) (weights|step)"
        r"|(loss|log).*(not those|worse than|than the log)"
        r"|(worse|larger|higher) than (in )?the log|weights.*(log|step)",
        words="--save-every 130 --keep 5",
        after=old_weights,
    ),
    "inverted-test": Case(
        "file",
        "after training the held-out pictures were exported again as black on white",
        r"invert|negative|(held.?out|test).*(differ|other|unlike|bright|from training)"
        r"|(differ|unlike|bright).*(held.?out|test)",
        data=both_splits,
        after=inverted_test,
    ),
    "control-x0": Case(
        "control",
        "none: digits with objective x0 and a linear schedule",
        words="--objective x0 --schedule linear",
    ),
    "control-faces": Case("control", "none: faces in colour", words=f"{COLOUR} --steps 900", data=all_faces),
    "control-flat": Case(
        "control",
        "none: a flat folder of digits, without classes, T = 500",
        words="--T 500 --ema 0.99",
        data=without_classes,
    ),
}


def ddpm(case: Path, *words: str) -> subprocess.CompletedProcess:
    "The command, in the folder of a case; decoded pictures are kept beside all cases."
    kept = os.environ | {"DDPM_CACHE": str(case.parent / ".cache")}
    command = [sys.executable, "-m", "ddpm_course", *words, "--device", "cpu"]
    return subprocess.run(command, cwd=case, env=kept, capture_output=True, text=True)


def train(case: Path, out: str, words: str, seed: int) -> None:
    steps = [] if "--steps" in words else ["--steps", "650"]
    done = ddpm(case, "train", "--out", out, "--seed", str(seed), *steps, *shlex.split(words))
    (case / f"{out}.txt").write_text(done.stdout + done.stderr)
    if done.returncode:
        raise SystemExit(f"{case.name}: {done.stderr.strip()}")


def make(case: Case, folder: Path, seed: int) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    words = case.words
    if case.data:
        case.data(folder / "data", seed)
        words += " --data data"
    if case.plugin:
        (folder / "mine.py").write_text(case.plugin.lstrip())
        words += " --plugin mine.py"
    train(folder, "run", words, seed)
    if case.other is not None:
        if "--data" in case.other:
            shifted_classes(folder / "data")
        train(folder, "other", case.other, seed + 1)
    if case.after:
        case.after(folder)


def shifted_classes(folder: Path) -> None:
    "Digits for the other run: the same pictures, each three classes on."
    train = digits("train")
    for _, picture, path in in_order(ImageSet(train.pixels, (train.labels + 3) % 10, train.classes), folder):
        write(picture, path)


def ask(case: Case, folder: Path) -> list[dict]:
    "What the doctor found, in its order; where it could not look, why."
    out = folder / "doctor.json"
    out.unlink(missing_ok=True)
    plugin = ["--plugin", "mine.py"] if case.plugin else []
    done = ddpm(folder, "doctor", "run", "--out", out.name, *plugin)
    (folder / "doctor.txt").write_text(done.stdout + done.stderr)
    if done.returncode not in (0, 3):
        return [{"check": "refused", "sure": "certain", "says": (done.stderr or done.stdout).strip()}]
    ill = {name: found for name, found in json.loads(out.read_text()).items() if found["ill"]}
    return [
        {"check": name, "sure": found["sure"], "says": f"{found['looked']}: {found['found']}; {found['do']}"}
        | ({"follows": found["follows"]} if found["follows"] else {})
        for name, found in sorted(ill.items(), key=lambda item: bool(item[1]["follows"]))
    ]


def names_cause(case: Case, finding: dict) -> bool:
    said = f"{finding['check']}: {finding['says']}"
    return finding["check"] in case.checks or bool(re.search(case.right, said, re.IGNORECASE))


def score(case: Case, findings: list[dict]) -> str:
    if case.kind == "control":
        return "false alarm" if findings else "healthy"
    if not findings:
        return "silent"
    right = [names_cause(case, finding) for finding in findings]
    if any(right):
        return "right first" if right[0] else "right among others"
    return "wrong, certain" if findings[0]["sure"].startswith("certain") else "wrong"


def judge(name: str, folder: Path) -> dict:
    case = CASES[name]
    findings = ask(case, folder / name)
    about = {"name": name, "kind": case.kind, "cause": case.cause, "right": case.right, "checks": case.checks}
    return about | {"findings": findings, "score": score(case, findings)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=("make", "judge"))
    parser.add_argument("folder", type=lambda text: Path(text).resolve())
    parser.add_argument("--only", choices=CASES)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    names = [args.only] if args.only else list(CASES)
    if args.verb == "make":
        for name in names:
            make(CASES[name], args.folder / name, args.seed)
            print(name, flush=True)
        return
    lines = []
    for line in map(partial(judge, folder=args.folder), names):
        lines.append(line)
        first = ", ".join(finding["check"] for finding in line["findings"][:3])
        print(f"{line['name']:16}{line['kind']:9}{line['score']:22}{first}", flush=True)
    if not args.only:
        for verdict in sorted({line["score"] for line in lines}):
            print(f"{sum(line['score'] == verdict for line in lines):3} {verdict}")
        keep(lines, OUT, "torch")


if __name__ == "__main__":
    main()
