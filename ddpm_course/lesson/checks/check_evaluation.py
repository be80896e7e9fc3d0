import torch

from ..answers import Answer, Checks


def check_my_frechet(f: Answer) -> None:
    """You have the distance behind the FID without a single root of a matrix that is not symmetric.

    Which symmetric matrix has the eigenvalues of the product of two covariances?

    With A the symmetric root of cov_a, A cov_b A is the product in another basis.

    `eigvalsh(A @ cov_b @ A)`; the sum of their roots is the trace of the root of the product.
    """
    zero, one = torch.zeros(2).double(), torch.eye(2).double()
    shifted = f(zero, one, torch.tensor([3.0, 4.0]).double(), one)
    assert abs(shifted - 25) < 1e-9, f'the same shape, moved by (3, 4): 25, not {shifted:.4f}'
    wide = f(zero, torch.diag(torch.tensor([9.0, 1.0])).double(), zero, one)
    assert abs(wide - 4) < 1e-9, (
        f'widths (3, 1) and (1, 1) are 4 apart, not {wide:.4f}: widths are roots of variances')
    tilted = torch.tensor([[2.5, 1.5], [1.5, 2.5]]).double()    # variances 4 and 1 on the diagonals
    found = f(zero, tilted, zero, one)
    assert abs(found - 1) < 1e-9, (
        f'a tilted Gaussian of widths 2 and 1 is 1 away from the round one, not {found:.4f}: '
        'the root is that of a matrix')
    both = f(zero, tilted, zero, torch.diag(torch.tensor([4.0, 1.0])).double())
    answer = 10 - 2 * 20.5**0.5
    assert abs(both - answer) < 1e-9, (
        f'two Gaussians with unlike axes are {answer:.4f} apart, not {both:.4f}')


check = Checks(check_my_frechet)
