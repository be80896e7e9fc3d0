"""Make ddpm_course/assets/judge.safetensors, the classifier that judges digits, from the bundled training images.

    python tools/make_judge.py

About half a minute. The weights are kept in bfloat16.
"""

import torch
from safetensors.torch import save_file

from ddpm_course.data.sets import ASSETS, load_digits
from ddpm_course.judge.evaluation import extract, load_judge, train_judge

PATH = ASSETS / "judge.safetensors"


def main() -> None:
    judge, test = train_judge(load_digits("train", 16)), load_digits("test", 16)
    save_file(
        {name: w.to(torch.bfloat16) if w.is_floating_point() else w for name, w in judge.state_dict().items()}, PATH
    )
    _, logits = extract(load_judge(), test.pixels)
    right = (logits.argmax(1).numpy() == test.labels).mean()
    print(f"{PATH.name}: {PATH.stat().st_size / 1e3:.0f} kB, {right:.3f} of the {len(test)} held-out digits right")


if __name__ == "__main__":
    main()
