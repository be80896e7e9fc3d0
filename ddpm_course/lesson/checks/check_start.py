import torch

from ..answers import Answer, Checks


def check_redraw(f: Answer) -> None:
    """You can begin a walk wherever you want: page 19 edits pictures in this way.

    Which two functions of the page does it take, and which of them comes first?

    A walk goes 1/n of the rest of the way, whatever it begins with, so `walk` can stay as it is.

    `return walk(net, mix(picture, amount), steps)`
    """
    picture = torch.linspace(-1, 1, 10_000).view(1, 1, 100, 100)
    for amount in (0.3, 0.8):
        begun = f(lambda z: z, picture, amount, 3)      # this network leaves what it is given
        noise = begun - (1 - amount) * picture
        assert not torch.equal(begun, picture), 'the picture comes back without any noise'
        kept = 1 - amount + (noise * picture).mean().item() / picture.square().mean().item()
        assert abs(kept - (1 - amount)) < 0.1, (
            f'for amount {amount} the walk should begin with {1 - amount:.1f} of the picture, and '
            f'it begins with {kept:.1f}')
        assert abs(noise.std().item() - amount) < 0.05, (
            f'for amount {amount} the noise has a standard deviation of {noise.std().item():.2f}')
    seen: list[float] = []                              # how far away from its answer, 0

    def zero(z: torch.Tensor) -> torch.Tensor:
        seen.append(z.square().mean().sqrt().item())
        return torch.zeros_like(z)

    end = f(zero, picture, 0.5, 4)
    assert len(seen) == 4, f'in 4 steps the network is asked {len(seen)} times'
    assert end.abs().max() < 1e-6, 'the last step goes all the way to the answer; yours does not'
    assert all(abs(at / seen[0] - left) < 1e-3 for at, left in zip(seen, (1, 0.75, 0.5, 0.25))), (
        'the steps are not equally long: with n steps left, go 1/n of the way')


def check_changes(f: Answer) -> None:
    """You can see from pictures and a loss what a network was trained on.

    Which questions are easy, so that the loss is small? And whose network is trained as ours?

    To return a clean picture is the easiest task; half noise is easier than all amounts. C has our
    loss, so its network is ours, and it is the walk that differs.

    `return '213'`
    """
    found = str(f())
    assert sorted(found) == list('123'), 'three changes, each made once: a string such as 123'
    a, b, c = list(found)
    assert c == '3', 'C has the loss of our network: was it trained in another way?'
    assert (a, b) != ('1', '2'), (
        'A has the smaller loss: which is easier, to remove some noise, or to remove none?')


check = Checks(check_redraw, check_changes)
