"""The file of page 10 in one piece: run it in a folder of your choice, or compare it with your own."""

import copy
import math
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.utils import save_image

from ddpm_course.data.sets import load_digits

T = 1000
NULL = 10


def alpha_bars(T):
    "The cosine schedule: alpha-bar at the indices 0 to T - 1, (T,)."
    t = torch.arange(T + 1, dtype=torch.float64) / T
    f = torch.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2
    betas = (1 - f[1:] / f[:-1]).clamp(max=0.999)
    return (1 - betas).cumprod(0).float()


ABARS = alpha_bars(T)


def scales(t):
    "The factors of image and noise at indices t (B,): (B, 1, 1, 1) each."
    abar = ABARS[t].view(-1, 1, 1, 1)
    return abar.sqrt(), (1 - abar).sqrt()


def q_sample(x0, t, eps):
    "Noise images (B, 1, H, W) to the indices t (B,), in one jump."
    signal, sigma = scales(t)
    return signal * x0 + sigma * eps


def velocity(x0, t, eps):
    "What the network is asked for: v."
    signal, sigma = scales(t)
    return signal * eps - sigma * x0


def to_x0(xt, t, v):
    "The image that belongs to x_t and v."
    signal, sigma = scales(t)
    return signal * xt - sigma * v


def embed(t, dim):
    "Sines and cosines of indices t (B,) at dim / 2 speeds: (B, dim)."
    speeds = torch.logspace(0, -4, dim // 2)
    angles = t[:, None] * speeds
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class Block(nn.Module):
    "Two convolutions, time and label added between them, and a shortcut around both."

    def __init__(self, c_in, c_out, dim):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(8, c_in), nn.GroupNorm(8, c_out)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.emb = nn.Linear(dim, c_out)
        self.shortcut = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x, emb):
        h = self.conv1(F.silu(self.norm1(x))) + self.emb(emb)[:, :, None, None]
        return self.shortcut(x) + self.conv2(F.silu(self.norm2(h)))


class UNet(nn.Module):
    "net(x, t, y): images (B, 1, 16, 16), indices (B,), labels (B,), to an answer like x."

    def __init__(self, a=32, b=64, c=128, dim=128):
        super().__init__()
        self.time = nn.Sequential(nn.Linear(64, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.label = nn.Embedding(11, dim)
        self.first = nn.Conv2d(1, a, 3, padding=1)
        self.down1, self.down2, self.down3 = Block(a, a, dim), Block(a, b, dim), Block(b, c, dim)
        self.middle = Block(c, c, dim)
        self.up3, self.up2, self.up1 = (
            Block(c + c, b, dim), Block(b + b, a, dim), Block(a + a, a, dim))
        self.last = nn.Sequential(nn.GroupNorm(8, a), nn.SiLU(), nn.Conv2d(a, 1, 3, padding=1))
        nn.init.zeros_(self.last[2].weight)

    def forward(self, x, t, y):
        emb = F.silu(self.time(embed(t, 64)) + self.label(y))
        h1 = self.down1(self.first(x), emb)                 # 16 x 16
        h2 = self.down2(F.avg_pool2d(h1, 2), emb)           # 8 x 8
        h3 = self.down3(F.avg_pool2d(h2, 2), emb)           # 4 x 4
        h = self.up3(torch.cat([self.middle(h3, emb), h3], dim=1), emb)
        h = self.up2(torch.cat([F.interpolate(h, scale_factor=2), h2], dim=1), emb)
        h = self.up1(torch.cat([F.interpolate(h, scale_factor=2), h1], dim=1), emb)
        return self.last(h)


def loss(net, x0, y):
    "Lines 3 to 5 of Algorithm 1, for images x0 (B, 1, H, W) with labels y (B,)."
    t, eps = torch.randint(T, (len(x0),)), torch.randn_like(x0)
    y = torch.where(torch.rand(len(y)) < 0.1, NULL, y)
    return F.mse_loss(net(q_sample(x0, t, eps), t, y), velocity(x0, t, eps))


def print_line(step, value, average):
    "A sign of life every 50 steps."
    if step % 50 == 0:
        print(f'step {step}: loss {value:.3f}', flush=True)


def train(steps=650, log=print_line):
    "Algorithm 1 on the digits; returns the averaged network."
    torch.manual_seed(0)
    digits = load_digits('train', 16)
    images, labels = torch.tensor(digits.pixels) / 127.5 - 1, torch.tensor(digits.labels)
    net = UNet()
    average = copy.deepcopy(net)
    optimizer = torch.optim.Adam(net.parameters(), betas=(0.9, 0.99))
    for step in range(steps):
        fall = 0.5 * (1 + math.cos(math.pi * step / steps))
        optimizer.param_groups[0]['lr'] = 4e-3 * min(1, (step + 1) / 50) * fall
        rows = torch.randint(len(images), (64,))
        value = loss(net, images[rows], labels[rows])
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        decay = min(0.99, (1 + step) / (10 + step))
        with torch.no_grad():
            for mean, weight in zip(average.parameters(), net.parameters()):
                mean.lerp_(weight, 1 - decay)
        log(step + 1, value.item(), average)
    return average


@torch.no_grad()
def sample(net, y, guidance=2.0, steps=50):
    "Algorithm 2 with strides and guidance: an image (B, 1, 16, 16) for each label y (B,)."
    net.eval()
    null, x = torch.full_like(y, NULL), torch.randn(len(y), 1, 16, 16)
    indices = [T * k // steps - 1 for k in range(steps, 0, -1)]
    for index, after in zip(indices, [*indices[1:], -1]):
        t = torch.full_like(y, index)
        cond, uncond = net(x, t, y), net(x, t, null)
        x0 = to_x0(x, t, uncond + guidance * (cond - uncond)).clamp(-1, 1)
        abar, next_abar = ABARS[index], ABARS[after] if after >= 0 else torch.tensor(1.0)
        beta = 1 - abar / next_abar
        mean = (next_abar.sqrt() * beta * x0
                + (1 - beta).sqrt() * (1 - next_abar) * x) / (1 - abar)
        spread = (beta * (1 - next_abar) / (1 - abar)).sqrt()       # 0 in the last step
        x = mean + spread * torch.randn_like(x)
    return x


if __name__ == '__main__':
    net = train()
    torch.save(net.state_dict(), 'mine.pt')
    images = sample(net, torch.arange(10).repeat(4))
    save_image(images, 'mine.png', nrow=10, normalize=True, value_range=(-1, 1))
