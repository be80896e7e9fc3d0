"`ddpm presets`: the presets, or the entries of all registries; needs no PyTorch for the first."
from dataclasses import dataclass

from ..base.fields import option
from ..config import COSTS, PRESETS

REGISTRIES = ('DATA', 'SCHEDULES', 'OBJECTIVES', 'CRITERIA', 'NETWORKS',
              'OPTIMIZERS', 'EMAS', 'TRACKERS', 'SAMPLERS', 'SPACINGS', 'CHECKS')


@dataclass(frozen=True)
class Request:
    "Which list."
    entries: bool = option(False, 'list the entries of all registries, and the settings that these '
                           'have', action='store_true')


def run(request: Request) -> None:
    "Print the presets with their parameters, data and expected cost; or the entries."
    if request.entries:
        return print_entries()
    print(f'{"preset":15} {"parameters":>10}  {"data":8} {"size":>5} {"steps":>8}  cost')
    for name, config in PRESETS.items():
        parameters, cost = COSTS[name]
        d, t = config.data, config.training
        print(f'{name:15} {parameters / 1e6:8.2f} M  {d.data:8} {d.size:>5} {t.steps:>8,}  {cost}')


def print_entries() -> None:
    "Print each registry with its entries, and in brackets the settings that one has for itself."
    import ddpm_course
    from ddpm_course.base.registry import own_settings
    for registry in REGISTRIES:
        entries = getattr(ddpm_course, registry).items()
        known = {name: own_settings(entry) if callable(entry) else {} for name, entry in entries}
        said = [name + (f' ({", ".join(f"{k}={v}" for k, v in own.items())})' if own else '')
                for name, own in known.items()]
        print(f'{registry:14} {", ".join(said)}')
