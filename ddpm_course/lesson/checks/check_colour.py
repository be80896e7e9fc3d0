import torch

from ...losses import OBJECTIVES
from ...model import Model
from ...schedules import make_schedule
from ..answers import Answer, Checks

VALUES = torch.tensor([1.0, 3.0, 8.0, 0.5])     # the answers with each of three classes, and without


def check_weighted(f: Answer) -> None:
    """You can ask a network for any mixture of its classes, and move away from one, too.

    `compose` has one weight for all differences. Where does yours stand?

    Each class has a difference from u of its own, and each difference its own weight.

    `return u + sum(w * (c - u) for w, c in zip(weights.values(), cs))`
    """
    model = Model(lambda x, t, y: VALUES[y].view(-1, 1, 1, 1).expand(x.shape), make_schedule('cosine', 10),
                  OBJECTIVES['v'], (1, 2, 2), classes=('beard', 'glasses', 'hat'), can_guide=True)
    asked, x, t = f(model, {'glasses': 2.0, 'hat': -0.5}), torch.zeros(2, 1, 2, 2), torch.tensor([3, 3])
    assert isinstance(asked, Model) and not asked.classes and not asked.can_guide, (
        'the new model takes no class any more: replace(model, network=network, classes=(), '
        'can_guide=False)')
    answer = asked.answer(x, t)
    for wrong, hint in [
            (2.0, 'this is the sum of w c: the differences c - u are added, and u itself'),
            (1.5, 'u is the answer without a class, whose index is len(model.classes)'),
            (0.25, 'the weights name their classes: model.classes.index(name)'),
            (9.25, 'a weight below 0 moves away from its class'),
            (1.25, 'u was left out: the differences are added to it')]:
        assert not torch.allclose(answer, torch.tensor(wrong)), hint
    assert torch.allclose(answer, torch.tensor(1.75)), (
        'with u = 0.5, glasses 3, hat 8 and the weights 2 and -0.5 the answer is 1.75, not '
        f'{answer.flatten()[0].item():.2f}')


check = Checks(check_weighted)
