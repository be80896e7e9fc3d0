import torch

from ..answers import Answer, Checks


def check_velocity_from_eps(f: Answer) -> None:
    """With it a network that predicts eps can be used with a sampler for flow matching.

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


check = Checks(check_velocity_from_eps)
