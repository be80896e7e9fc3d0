"What a run may minimise, by name."
from collections.abc import Callable

from .base.registry import look_up
from .config import RunConfig
from .hybrid import Hybrid, Vlb
from .simple import Capped, Simple

CRITERIA: dict[str, Callable[[RunConfig], Simple]] = {
    'simple': Simple, 'capped': Capped, 'hybrid': Hybrid, 'vlb': Vlb}


def build_criterion(config: RunConfig) -> Simple:
    "The criterion that a configuration names. Raises ValueError for one that is not in `CRITERIA`."
    return look_up('loss', CRITERIA, config.diffusion.loss, config.training.own)(config)
