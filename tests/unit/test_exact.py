"The denoiser of Gaussian data and its error, against matrices, samples and the denoiser of a large data set."

import torch

from ddpm_course.exact import dataset_weights, gaussian_denoiser, gaussian_x0_mse
from ddpm_course.forward import q_sample
from ddpm_course.schedules import cosine

CHAIN = cosine(100)
MEAN = torch.tensor([0.4, -0.2], dtype=torch.float64)
COV = torch.tensor([[0.30, 0.12], [0.12, 0.10]], dtype=torch.float64)


def draw(n, seed):
    "Points (n, 2) of N(MEAN, COV)."
    random = torch.Generator().manual_seed(seed)
    return MEAN + torch.randn(n, 2, generator=random, dtype=torch.float64) @ torch.linalg.cholesky(COV).T


def test_gaussian_denoiser():
    "It is the formula with matrices, and the limit of the exact denoiser of many samples."
    xt, t = torch.tensor([[1.0, 0.3], [-0.6, 0.8]]).double(), torch.tensor([29, 59])
    answers = gaussian_denoiser(xt, t, MEAN, COV, CHAIN)
    for row, abar, answer in zip(xt, CHAIN.alpha_bars[t], answers):
        inverse = torch.linalg.inv(abar * COV + (1 - abar) * torch.eye(2).double())
        assert torch.allclose(answer, MEAN + abar.sqrt() * COV @ inverse @ (row - abar.sqrt() * MEAN), rtol=1e-10)
    cloud = draw(200_000, 0)
    weights = dataset_weights(xt, t, cloud, CHAIN)
    estimate = weights @ cloud
    spread = (weights @ cloud**2 - estimate**2).sqrt()
    error = spread * (weights**2).sum(1, keepdim=True).sqrt()  # its standard error
    assert ((estimate - answers).abs() < 4 * error).all()


def test_gaussian_x0_mse():
    "It is the measured error, and every other answer has a larger one."
    x0, floor = draw(100_000, 1), gaussian_x0_mse(COV, CHAIN)
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for t in (9, 49, 89):
        xt = q_sample(x0, t, eps, CHAIN)
        answer = gaussian_denoiser(xt, t, MEAN, COV, CHAIN)
        loss = (answer - x0).square().mean(1)
        assert abs(loss.mean() - floor[t]) < 4 * loss.std() / len(loss) ** 0.5
        assert all((other - x0).square().mean() > loss.mean() for other in (answer * 1.05, answer + 0.02, xt))
