import torch

from ..answers import Answer, Checks


def check_velocity_from_eps(f: Answer) -> None:
    """With it a network trained by Ho et al. walks on straight lines.

    The velocity is eps - x_0. What is x_0, if x and eps are known?

    `x_0 = (x - tau * eps) / (1 - tau)`; put it in, and one division is left.

    `(eps - x) / (1 - tau)`
    """
    x0, eps = torch.linspace(-1, 1, 5).double(), torch.tensor([0.3, -2.0, 1.1, 0.0, 0.7]).double()
    found = f(0.4 * x0 + 0.6 * eps, eps, 0.6)
    right = eps - x0
    assert not torch.allclose(found, -right), 'the sign: at the noise, eps, tau is 1, and x grows '\
        'towards it'
    assert not torch.allclose(found, 0.4 * right), 'a factor is missing: x is only a part of the '\
        'way from the image'
    assert not torch.allclose(found, 0.4 / 0.6 * right), 'divided by tau: this is how far the '\
        'noise is, not the image'
    assert torch.allclose(found, right), 'on the line from x_0 to eps it is not eps - x_0'


def check_x0_from_score(f: Answer) -> None:
    """This is how a network of Song et al. becomes a model of this package.

    The score is minus eps, divided by something. By what?

    `eps = -(1 - abar) ** 0.5 * score`; then `(x - (1 - abar) ** 0.5 * eps) / abar**0.5`

    `(x + (1 - abar) * score) / abar**0.5`
    """
    x0, eps = torch.linspace(-1, 1, 5).double(), torch.tensor([0.3, -2.0, 1.1, 0.0, 0.7])
    abar = 0.64
    x, score = 0.8 * x0 + 0.6 * eps, -eps / 0.6
    found = f(x, score, abar)
    assert not torch.allclose(found, (x - 0.36 * score) / 0.8), 'the sign: the score leads to the '\
        'data, so it is added'
    assert not torch.allclose(found, (x + 0.6 * score) / 0.8), 'the score is not the noise: it '\
        'is divided by the noise once more, so 1 - abar stands there without a root'
    assert not torch.allclose(found, x + 0.36 * score), 'the image at its own size: divide by '\
        'the root of abar'
    assert torch.allclose(found, x0), 'from the score of a known noise it is not the image'


check = Checks(check_velocity_from_eps, check_x0_from_score)
