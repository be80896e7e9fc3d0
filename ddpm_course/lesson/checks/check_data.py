import torch

from ...data.sets import load_digits, to_float
from ..answers import Answer, Checks, Table, table


def check_my_to_float(f: Answer) -> None:
    """Images are now centred where the noise is.

    Which byte must become -1, and which 1?

    The 256 bytes lie 2 / 255 apart, and the first of them is moved to -1.

    `return pixels.float() / 127.5 - 1`
    """
    every = torch.arange(256, dtype=torch.uint8)
    found = f(every.clone())
    low, high = found[[0, 255]].tolist()
    assert (low, high) != (0, 1), 'this is [0, 1]: noise is centred at 0, so must be the data'
    assert low == -1, f'black is the byte 0; it became {low:g}, not -1'
    assert abs(high - 1) < 1e-6, f'white is the byte 255; it became {high:g}, not 1'
    assert found.dtype == torch.float32, f'networks compute in float32, this is {found.dtype}'
    assert torch.allclose(found, torch.linspace(-1, 1, 256), atol=1e-6), 'the steps are not equal'


def check_my_to_uint8(f: Answer) -> None:
    """Any sample becomes a picture, also where it goes beyond the ends.

    What happens to 255.7 when it becomes a byte? And to 256?

    First back to 0..255, then to the nearest whole number, then into the range, then the type.

    `return ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)`
    """
    assert f(torch.zeros(1)).dtype == torch.uint8, 'images are kept as bytes: torch.uint8'
    beyond = f(torch.tensor([-1.3, 1.02])).tolist()
    assert beyond == [0, 255], f'-1.3 and 1.02 became {beyond}: bytes beyond the ends wrap around'
    near = f(torch.tensor([-0.997, 0.999])).tolist()
    assert near == [0, 255], f'-0.997 and 0.999 became {near}: which bytes are nearest?'
    every = torch.arange(256, dtype=torch.uint8)
    back = f(every / 127.5 - 1)
    wrong = every[back != every].tolist()
    assert not wrong, f'the byte {wrong[0]} does not survive the way to [-1, 1] and back'


def loaders() -> Table:
    "What four networks get from four loaders with a mistake, and one from a loader without."
    pixels = load_digits('train', 16).pixels
    x = to_float(pixels)
    made = {'right': x, 'A': x / 127.5 - 1, 'B': -x, 'C': (x - x.mean()) / x.std(),
            'D': torch.from_numpy(pixels) / 255}
    return table({name: [round(v.item(), 2) + 0.0 for v in (y.min(), y.max(), y.mean(), y.std())]
                  for name, y in made.items()}, ['least', 'greatest', 'mean', 'standard deviation'])


def check_loading_mistakes(f: Answer) -> None:
    """Four numbers are enough to find these mistakes before a network is trained on them.

    Look at the range first. Which mistakes change it, and how?

    Only black on white keeps the range of -1 to 1. Dividing by 255 gives 0 to 1. Subtracting and
    dividing gives mean 0 and standard deviation 1. Converting twice leaves hardly any range.

    `return '2431'`
    """
    found = f()
    assert sorted(str(found)) == list('1234'), 'four mistakes, each made once: a string like 1234'
    a, b, c, d = list(str(found))
    assert a == '2', f'A gets hardly any spread, everything near -1: can mistake {a} do that?'
    assert b == '4', f'B has the right range and the wrong sign of the mean: is this mistake {b}?'
    assert (c, d) == ('3', '1'), 'C has mean 0, D has nothing below 0: which one divided by 255?'


check = Checks(check_my_to_float, check_my_to_uint8, check_loading_mistakes)
