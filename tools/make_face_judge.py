"""Make ddpm_course/assets/face_judge.safetensors, the classifier that judges faces, from the bundled training faces.

    python tools/make_face_judge.py

Some minutes. It learns each face's class and six of its parts, from real faces alone; each batch is moved by up to a
pixel and made a little noisy, as samples are. The weights are kept in bfloat16; they belong to the seed, the machine
and the number of threads. What is printed at the end is measured on faces that it never saw.
"""

import numpy as np
import torch
from make_judge import keep, teach
from torch import Tensor
from torch.nn import functional as F

from ddpm_course.data.faces import Faces, load_faces
from ddpm_course.data.sets import ASSETS, to_float
from ddpm_course.draws import Purpose, generator
from ddpm_course.judge.evaluation import extract
from ddpm_course.judge.face_judge import FaceJudge, load_face_judge, see_parts

PATH = ASSETS / "face_judge.safetensors"


def wobble(x: Tensor, random: np.random.Generator) -> Tensor:
    "A batch, moved by up to a pixel with its edge repeated, with noise of a fifth of the grey levels at most."
    row, column = random.integers(0, 3, 2)
    moved = F.pad(x, (1, 1, 1, 1), mode="replicate")[..., row : row + 16, column : column + 16]
    noise = torch.from_numpy(random.standard_normal(x.shape)).float()
    return moved + torch.from_numpy(random.uniform(0, 0.2, (len(x), 1, 1, 1))).float() * noise


def targets(judge: FaceJudge, faces: Faces) -> dict[str, Tensor]:
    "(N,) int64 of each part that the judge reads."
    known = {part: torch.from_numpy(faces.parts[part].astype(np.int64)) for part in judge.names}
    return {part: (y > 0).long() if judge.names[part] == ("none", "some") else y for part, y in known.items()}


def train_face_judge(faces: Faces, steps: int = 800, seed: int = 0) -> FaceJudge:
    "Teach a judge from faces, 100 a step."
    random = generator(seed, Purpose.LESSON)
    torch.manual_seed(seed)  # weights and dropout
    judge = FaceJudge()
    wanted, classes = targets(judge, faces), torch.as_tensor(faces.images.labels)

    def loss() -> Tensor:
        i = random.integers(0, len(classes), 100)
        features, logits = judge(wobble(to_float(faces.images.pixels[i]), random))
        value = F.cross_entropy(logits, classes[i])
        for part, found in judge.parts(features).items():
            value = value + F.cross_entropy(found, wanted[part][i])
        return value

    teach(judge, loss, steps)
    return judge


def main() -> None:
    judge, test = train_face_judge(load_faces("train")), load_faces("test")
    keep(judge, PATH)
    judge = load_face_judge()
    right = (extract(judge, test.images.pixels)[1].argmax(1).numpy() == test.images.labels).mean()
    print(f"{PATH.name}: {PATH.stat().st_size / 1e3:.0f} kB; class of held-out faces read right: {right:.3f}")
    for split in ("test", "unseen"):
        faces = load_faces(split)
        seen, known = see_parts(judge, faces.images.pixels), targets(judge, faces)
        for part, y in known.items():
            print(f"{split}: {part} {(seen.parts[part] == y.numpy()).mean():.3f}")


if __name__ == "__main__":
    main()
