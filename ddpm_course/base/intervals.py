"How a number and its uncertainty are written: ± is the half-width of the 95 % interval."

import math
from dataclasses import dataclass
from statistics import NormalDist


def student(freedom: int, level: float = 0.95) -> float:
    "Half-width of an interval in standard errors, by degrees of freedom (Student's t, to 0.2 %)."
    p = (1 + level) / 2
    if freedom < 3:
        exact = math.tan(math.pi * (p - 0.5)), (2 * p - 1) / math.sqrt(2 * p * (1 - p))
        return exact[freedom - 1] if freedom > 0 else math.inf      # of one value nobody knows
    z = NormalDist().inv_cdf(p)
    terms = ((z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96,           # Fisher's series
             (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
             (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160)
    return z + sum(term / freedom**(k + 1) for k, term in enumerate(terms))


def plus_minus(mean: float, half: float, form: str = '.4f', half_form: str = '') -> str:
    "`mean ± half-width`, in these formats; the sign of a form like `+.2f` belongs to the mean."
    return f'{mean:{form}} ± {half:{half_form or form.lstrip("+")}}'


def interval(mean: float, error: float, n: int, digits: int = 4) -> str:
    "A mean of n independent values with its standard error, as `mean ± half-width`."
    form = f'z.{digits}f'        # z: no -0.0
    return plus_minus(mean, student(n - 1) * error, form) if n > 1 else f'{mean:{form}}'


def upwards(bound: float) -> float:
    "A bound with two digits, not below what it was."
    if not 0 < bound < math.inf:
        return bound
    unit = 10.0 ** (math.floor(math.log10(bound)) - 1)
    return math.ceil(bound / unit) * unit


@dataclass(frozen=True)
class Difference:
    "First minus second, of something of which less is better. As text, `mean ± half-width` and more."
    mean: float
    error: float            # standard error of the mean
    n: int                  # independent values that it rests on

    @property
    def reach(self) -> float:
        "Half-width of the 95 % interval."
        return student(self.n - 1) * self.error

    @property
    def away(self) -> float:
        "How many standard errors it is away from nothing."
        return float(self.mean / max(self.error, 1e-12))

    @property
    def verdict(self) -> str:
        "'better', 'worse', or the largest difference that may still be there."
        if abs(self.mean) > self.reach:
            return 'better' if self.mean < 0 else 'worse'
        return f'no difference larger than {upwards(abs(self.mean) + self.reach):.2g}'

    def __str__(self) -> str:
        short = plus_minus(self.mean, self.reach, '+.3g', '.2g')
        return f'{short} (n = {self.n}): {self.verdict}'

    def __format__(self, form: str) -> str:
        "`mean ± half-width` in this format, as in `f'{d:+.2f}'`; without a format all of it."
        return plus_minus(self.mean, self.reach, form) if form else str(self)


def wilson(right: int, n: int, z: float = 1.96) -> tuple[float, float]:
    "The 95 % interval of a share, right of n (Wilson 1927)."
    p, more = right / n, z * z / n
    half = z * math.sqrt(p * (1 - p) / n + more / (4 * n))
    return max(0.0, (p + more / 2 - half) / (1 + more)), min(1.0, (p + more / 2 + half) / (1 + more))


def share(right: int, n: int) -> str:
    "A share in percent with its 95 % interval, as `12 (7 to 20)`."
    low, high = wilson(right, n)
    return f'{100 * right / n:.0f} ({100 * low:.0f} to {100 * high:.0f})'
