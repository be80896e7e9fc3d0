import torch

from ..answers import Answer, Checks


def check_reflow(f: Answer) -> None:
    """Train on these pairs again, and the walks become straight.

    At tau = 1 the network is shown the noise, at tau = 0 the image. And in between?

    The velocity is how the place changes while tau grows by 1.

    `(1 - tau) * image + tau * noise, noise - image`
    """
    noise, image = torch.tensor([2.0, 0.5, -1.0]).double(), torch.tensor([-1.0, 1.0, 0.2]).double()
    found = f(noise, image, 0.25)
    assert isinstance(found, tuple) and len(found) == 2, 'two things are asked for: place, velocity'
    place, velocity = found
    assert not torch.allclose(place, 0.25 * image + 0.75 * noise), 'tau is the share of the noise'
    assert torch.allclose(place, 0.75 * image + 0.25 * noise), 'the place is not on the straight '\
        'line from image to noise'
    assert not torch.allclose(velocity, image - noise), 'the sign: tau grows towards the noise'
    assert torch.allclose(velocity, noise - image), 'the velocity is the whole way from image to '\
        'noise, wherever one stands'


def check_pays_from(f: Answer) -> None:
    """For a page of samples it does not pay; for a service that draws all day it pays at once.

    What is spent before the first picture, and what does each picture save?

    Walks: 40 each. Training: 3 for each place of each batch. A picture saves 40 less `few`.

    `math.ceil((40 * walks + 3 * steps * batch) / (40 - few))`
    """
    found = f(600, 100, 64, 4)
    assert found != 1080, 'a picture by the student costs something, too'
    assert found != 667, 'the training is missing'
    assert found != 534, 'the walks are missing'
    assert found != 845, 'a step of training goes forward and backward: three evaluations a place'
    assert found == 1200, f'for 600 walks and 100 steps of 64 it is not {found}'
    assert f(1, 0, 1, 1) == 2, 'round up: 40 saved at 39 each take two pictures'


check = Checks(check_reflow, check_pays_from)
