"""Quality against training time on the bundled digits: ours, diffusers' network and denoising-diffusion-pytorch's.

    pip install diffusers denoising-diffusion-pytorch
    python benchmarks/bench_quality.py [--seconds 60,120,240] [--out quality]

Every run begins from random weights and takes as many steps as fit into its seconds (20 are timed first). All go
through the same loop (`ddpm_course.run.training.fit`), which spares the peers their own loops' overhead, and are judged
alike: 500 digits, 25 ancestral steps, no guidance; their Fréchet distance to the training digits, beside that of 500
real digits from all others (a band: forty ways to choose them), and the share that is read as the class asked for, by
the judge that ships and by a second one of other seeds. Peers come twice:

    documented   network, rate, batch and average as in the project's own example (see PEERS); constant rate
    tuned        the same network with this package's objective, warm-up, decay to zero and average; rate and batch
                 are the best of results/quality_tried.json, by the held-out loss after 60 seconds

Writes OUT.json, with machine and versions, and OUT.png.
"""

import json
from pathlib import Path

import torch
from common import arguments, digits_and_judges, draw, draw_floor, floors, judged, keep, plain_digits, train
from torch import Tensor, nn

from ddpm_course.config import RunConfig
from ddpm_course.model import NETWORKS


class Diffusers(nn.Module):
    "UNet2DModel as the Hugging Face course builds it for class-conditional MNIST; the null label is one class more."

    def __init__(self, config: RunConfig):
        from diffusers import UNet2DModel

        super().__init__()
        torch.manual_seed(config.training.seed)
        down, up = ("DownBlock2D", *["AttnDownBlock2D"] * 2), (*["AttnUpBlock2D"] * 2, "UpBlock2D")
        classes = config.num_classes + 1
        self.net = UNet2DModel(
            config.data.size,
            1,
            1,
            down_block_types=down,
            up_block_types=up,
            block_out_channels=(32, 64, 64),
            layers_per_block=2,
            num_class_embeds=classes,
        )

    def forward(self, xt: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return self.net(xt, t, y).sample


class Lucidrains(nn.Module):
    "denoising-diffusion-pytorch's class-conditional Unet, of its README's width; three levels, as 16x16 allows."

    def __init__(self, config: RunConfig):
        from denoising_diffusion_pytorch.classifier_free_guidance import Unet

        super().__init__()
        torch.manual_seed(config.training.seed)
        self.null = config.num_classes
        self.net = Unet(dim=64, dim_mults=(1, 2, 4), channels=1, num_classes=self.null, cond_drop_prob=0.0)

    def forward(self, xt: Tensor, t: Tensor, y: Tensor) -> Tensor:
        "It wants dropped labels as a mask; ours arrive as one class more."
        kept = y != self.null
        return self.net(xt, t, y.where(kept, 0), cond_drop_prob=0.0, cond_keep_mask=kept)


PEER = "denoising-diffusion-pytorch"
NETWORKS |= {"diffusers": Diffusers, PEER: Lucidrains}
PLAIN = "--optimizer adamw --objective eps --decay constant --warmup 0"  # the default is v, warm-up, decay to zero
RUNS = {
    "ddpm_course": "",
    # Hugging Face's diffusion models class, unit 2: Adam, rate 1e-3, batch 128, no average, squared-cosine schedule
    "diffusers, documented": f"--network diffusers {PLAIN} --lr 1e-3 --batch 128 --ema 0",
    "diffusers, tuned": "--network diffusers --batch 32 --lr 4e-3 --optimizer muon",
    # its README: rate 8e-5, batch 32 in two slices, average of .995, cosine schedule, half the labels
    f"{PEER}, documented": f"--network {PEER} {PLAIN} --lr 8e-5 --batch 64 --accumulate 2 --label-drop 0.5",
    f"{PEER}, tuned": f"--network {PEER} --optimizer adamw --batch 16 --lr 1e-3",
}


def plot(lines: list[dict], floor: list[float], path: Path) -> None:
    import matplotlib.pyplot as plt

    colours = {"ddpm_course": "black", "diffusers": "#E69F00", PEER: "#0072B2"}
    fig, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for name in dict.fromkeys(line["name"] for line in lines):
        mine, (who, *how) = [line for line in lines if line["name"] == name], name.split(", ")
        style = {"color": colours[who], "ls": "--" if how == ["documented"] else "-", "marker": "o"}
        x = [line["seconds"] for line in mine]
        axes[0].plot(x, [line["judge"]["distance"] for line in mine], label=name, **style)
        axes[1].plot(x, [100 * line["judge"]["asked"] for line in mine], **style)
    draw_floor(axes[0], floor)
    axes[0].set(yscale="log", ylabel="Fréchet distance", xlabel="seconds of training")
    axes[1].set(ylabel="read as the class asked for, %", ylim=(0, 100), xlabel="seconds of training")
    fig.legend(loc="outside lower center", ncol=3, fontsize=8, frameon=False)
    draw(fig, path)


def main() -> None:
    args = arguments(__doc__, seconds="60,120,240", out="quality")
    (digits, judges), lines = digits_and_judges(), []
    for most in map(float, args.seconds.split(",")):  # in turn, so that a disturbed machine disturbs all
        for name, words in RUNS.items():
            model, found = train(words, most, digits)
            drawn, y = plain_digits(model, digits)
            found |= {who: judged(judge, digits, y, distance=drawn) for who, judge in judges.items()}
            lines.append({"name": name} | found)
            print(json.dumps(lines[-1]), flush=True)
    keep(lines, Path(f"{args.out}.json"), "torch", "diffusers", PEER)
    plot(lines, floors(digits["train"]), Path(f"{args.out}.png"))


if __name__ == "__main__":
    main()
