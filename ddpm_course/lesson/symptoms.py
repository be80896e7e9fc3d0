"Symptoms that runs of this package cannot have, and runs of other code can: for page 21."

import torch
from torch import Tensor

from ..draws import Purpose, normal
from ..judge.checks import Check, Finding, check
from ..judge.patient import Patient
from ..model import Model
from ..samplers import Step
from ..sampling import plan

SYMPTOMS: dict[str, Check] = {}


@check('model', 'raw', limit=0.99, into=SYMPTOMS,
       why='of float32 numbers one in 65,536 has only zeros in its last 16 bits')
def kept_in_bf16(p: Patient) -> Finding:
    "Whether weights have no more digits than bfloat16."
    def share(model: Model) -> float:
        every = torch.cat([w.flatten().float() for w in model.network.parameters()])
        return (every.bfloat16() == every)[every != 0].float().mean().item()
    most = max(share(p.model), share(p.raw))
    return Finding('the digits of weights', f'{most:.0%} are numbers that bfloat16 has', most,
                   'keep weights and average in float32, and compute in bf16')


@check('updates', 'log', limit=0.9, below=True, into=SYMPTOMS,
       why='one step each, but for those that float16 leaves out')
def young_optimizer(p: Patient) -> Finding:
    "Whether the optimizer remembers fewer steps than the run has."
    return Finding('steps', f'{p.updates} by the optimizer, {p.log[-1]["step"]} by the log',
                   p.updates / p.log[-1]['step'], "resume with the optimizer's state, too")


@check('model', limit=1e-3, into=SYMPTOMS, after=('not finite',), why='rounding differs by less')
@torch.no_grad()
def dropout_at_work(p: Patient) -> Finding:
    "Whether the same question gets two answers."
    t = torch.full((4,), p.model.schedule.T // 2, device=p.model.device)
    x = normal(p.model.shape, 0, Purpose.SAMPLE, 0, range(4)).to(p.model.device)
    first, second = (p.model.answer(x, t, 0 * t if p.model.classes else None) for _ in range(2))
    apart = (first - second).abs().max().item()
    return Finding('the same question twice', f'answers differ by {apart:.2g}', apart,
                   'network.eval() before sampling')


@check('model', limit=1e-3, into=SYMPTOMS, after=('dropout at work',),
       why='rounding differs by less')
@torch.no_grad()
def noise_in_the_last_step(p: Patient) -> Finding:
    "Whether the last step depends on noise."
    model, route = p.model.eval(), plan(p.how, p.model)
    t, abar = route.indices[-2], route.abars[-2]
    x = normal(model.shape, 0, Purpose.SAMPLE, 0, range(4)).to(model.device)
    y = torch.zeros(4, dtype=torch.long, device=x.device) if model.classes else None

    def ask(x: Tensor, t: int):
        return model.predict(x, t, y, p.how.clip)

    def end(k: int) -> Tensor:
        return route.take(Step(
            x=x, now=ask(x, t), before=None, t=t, t_next=-1, abar_before=abar, abar=abar,
            abar_next=1.0, alpha_bars=model.schedule.alpha_bars, ask=ask, indices=route.indices,
            variance=route.variance, eta=route.eta,
            noise=lambda: normal(model.shape, 0, Purpose.SAMPLE, k, range(4)).to(x)))
    apart = (end(1) - end(2)).abs().max().item()
    return Finding('the last step, with two noises', f'ends {apart:.2g} apart', apart,
                   'no noise where the image is reached')
