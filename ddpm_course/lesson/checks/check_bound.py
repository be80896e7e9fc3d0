from ..answers import Answer, Checks


def check_my_decoder(f: Answer) -> None:
    """Now you have the last term of the bound, and could send a digit as bytes.

    Byte 128 lies at 128 / 127.5 - 1. How far is it to the border with byte 129?

    It is the area under the bell between the two borders; at 0 and 255 it has one border only.

    `high - low`, areas below value / 127.5 - 1 plus and minus 1 / 255, or 1 and 0 at the ends.
    """
    middle = f(128, 1 / 255, 0.001)                     # byte 128 lies at 128 / 127.5 - 1 = 1/255
    assert abs(middle - 0.999912) < 1e-5, (
        f'a bell of 0.001 around byte 128 stays within half a bin by 0.9999, not {middle:.4f}')
    black = f(0, -1.5, 0.1)
    assert abs(black - 1) < 1e-6, f'all that lies below black is black: 1, not {black:.4f}'
    wide = sum(f(value, 0.3, 0.4) for value in range(256))
    assert abs(wide - 1) < 1e-6, (f'the 256 probabilities add up to 1, not to {wide:.4f}: '
                                  'half a bin is 1/255, and the edges are open')


check = Checks(check_my_decoder)
