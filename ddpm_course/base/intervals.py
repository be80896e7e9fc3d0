"How a number and its uncertainty are written: ± is the half-width of the 95 % interval."

import math


def student(freedom: int) -> float:
    "How many errors reach as far as 95 of 100 cases, by degrees of freedom (to 0.2 %)."
    if freedom < 3:
        return {1: 12.706, 2: 4.303}.get(freedom, math.inf)     # of one value nobody knows
    z = 1.959964
    terms = ((z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96,           # Fisher's series
             (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
             (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160)
    return z + sum(term / freedom**(k + 1) for k, term in enumerate(terms))


def interval(mean: float, error: float, n: int, digits: int = 4) -> str:
    "A mean of n independent values with its standard error, as `mean ± half-width`."
    reach = f' ± {student(n - 1) * error:.{digits}f}' if n > 1 else ''
    return f'{mean:.{digits}f}{reach}'


def wilson(right: int, n: int, z: float = 1.96) -> tuple[float, float]:
    "The 95 % interval of a share, right of n (Wilson 1927)."
    p, more = right / n, z * z / n
    half = z * math.sqrt(p * (1 - p) / n + more / (4 * n))
    return max(0.0, (p + more / 2 - half) / (1 + more)), min(1.0, (p + more / 2 + half) / (1 + more))


def share(right: int, n: int) -> str:
    "A share in percent with its 95 % interval, as `12 (7 to 20)`."
    low, high = wilson(right, n)
    return f'{100 * right / n:.0f} ({100 * low:.0f} to {100 * high:.0f})'
