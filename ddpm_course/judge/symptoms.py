from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..data.sets import ImageSet
from ..draws import Purpose, normal
from .clinic import CHECKS, Finding, Patient, looks_for, mirrored_apart, some
from .doctor import picture_errors, questions, roughness
from .lab import answers, paired
from ..model import Model
from ..samplers import Step
from ..sampling import plan


@looks_for('no average', 'model', 'raw')
def no_average(p: Patient) -> Finding:
    "Whether samples are drawn with the raw weights."
    mine, raw = p.model.network.state_dict(), p.raw.network.state_dict()
    same = all(torch.equal(mine[name], raw[name]) for name in raw)
    return Finding('averaged and raw weights', 'equal' if same else 'not equal', same,
                   'average them, for example --ema 0.999')


@looks_for('kept in bf16', 'model', 'raw')
def kept_in_bf16(p: Patient) -> Finding:
    "Whether weights have no more digits than bfloat16."
    def share(model: Model) -> float:
        every = torch.cat([w.flatten().float() for w in model.network.parameters()])
        return (every.bfloat16() == every)[every != 0].float().mean().item()
    most = max(share(p.model), share(p.raw))
    return Finding('the digits of weights', f'{most:.0%} are numbers that bfloat16 has',
                   most > 0.99, 'keep weights and average in float32, and compute in bf16')


@looks_for('dropout at work', 'model')
@torch.no_grad()
def dropout_at_work(p: Patient) -> Finding:
    "Whether the same question gets two answers."
    t = torch.full((4,), p.model.schedule.T // 2, device=p.model.device)
    x = normal(p.model.shape, 0, Purpose.SAMPLE, 0, range(4)).to(p.model.device)
    first, second = (p.model.answer(x, t, 0 * t if p.model.classes else None) for _ in range(2))
    apart = (first - second).abs().max().item()
    return Finding('the same question twice', f'answers differ by {apart:.2g}', apart > 1e-3,
                   'network.eval() before sampling')


@looks_for('nothing learned', 'model', 'held_out')
def nothing_learned(p: Patient) -> Finding:
    "Whether the network guesses pictures no better than their mean."
    x0, y = questions(p)
    if len(x0) < 20:
        return Finding('held-out pictures', f'{len(x0)}: too few to tell')
    error = float(picture_errors(p.model, x0, y, (0.7, 0.5)).mean())
    mean = (x0 - x0.mean(0)).square().mean().item()
    return Finding('error of guessed pictures, at middling noise',
                   f'{error:.3f}, and {mean:.3f} for the mean of all pictures',
                   not error < 0.8 * mean, 'another --lr: ten times smaller, ten times larger',
                   'likely')


@looks_for('flat loss', 'log', 'config')
def flat_loss(p: Patient) -> Finding:
    "Whether the training loss never fell; else what it does now."
    lines = [line for line in p.log if 'loss' in line]
    if len(lines) < 8:
        return Finding('the log', f'{len(lines)} lines: too few to tell')
    fourth = len(lines) // 4
    rows = np.array([[line['loss'], *line['loss_quarters']] for line in lines], float)
    if not np.isfinite(rows[-fourth:, 0]).all():
        return Finding('training loss', 'no number any more', True, 'a smaller --lr')
    before, now = (np.nanmean(rows[part], 0)
                   for part in (slice(-2 * fourth, -fourth), slice(-fourth, None)))
    fell = 1 - now / before
    most = 1 + int(np.argmax(np.nan_to_num(fell[1:], nan=-np.inf)))
    fresh = not p.config.training.init                  # else it may begin with a low loss
    return Finding('training loss', f'{rows[0, 0]:.3g} at first, {now[0]:.3g} in the last quarter '
                   f'of the log, {fell[0]:.1%} less than in the third; in quarter {most} of t '
                   f'{fell[most]:.1%} less', bool(fresh and now[0] > 0.9 * rows[0, 0]),
                   'another --lr')


@looks_for('trained too long', 'model', 'images', 'held_out')
def trained_too_long(p: Patient) -> Finding:
    "Whether held-out pictures have a larger loss than those that were trained on."
    def loss(images: ImageSet, n: int = 400) -> np.ndarray:
        i = some(images, n)
        labels = None if images.labels is None else images.labels[i]
        return answers(p.model, replace(images, pixels=images.pixels[i], labels=labels))
    unseen, seen = loss(p.held_out), loss(p.images)
    if len(unseen) < 20:
        return Finding('held-out pictures', f'{len(unseen)}: too few to tell')
    error = (unseen.var() / len(unseen) + seen.var() / len(seen))**0.5
    away = (unseen.mean() - seen.mean()) / error
    return Finding('eps mse of held-out pictures and of training pictures',
                   f'{unseen.mean():.4f} and {seen.mean():.4f}',
                   bool(away > 4 and unseen.mean() > 1.33 * seen.mean()),
                   'stop earlier, or find more pictures', f'{away:.0f} standard errors')


@looks_for('mirrored', 'model', 'images', 'held_out')
def mirrored(p: Patient) -> Finding:
    "Whether a network takes mirrored pictures for real ones, where they are not."
    if len(p.held_out) < 20:
        return Finding('held-out pictures', f'{len(p.held_out)}: too few to tell')
    x0, y = questions(p, 200)
    other, own = (picture_errors(p.model, x, y, (0.3, 0.1, 0.05)) for x in (x0.flip(3), x0))
    d, (data, unlike) = paired(other, own), mirrored_apart(p)
    return Finding('error on mirrored pictures, less that on plain ones',
                   f'{d.mean:+.4f} ± {d.reach:.2g}; in the data mirrored ones are {data.mean:.0%} '
                   'farther from real ones',
                   bool(unlike and d.mean + 4 * d.error < 0.1 * own.mean()),
                   'was it trained with flips? leave them out', 'likely')


@looks_for('not finite', 'model', 'how')
def not_finite(p: Patient) -> Finding:
    "Whether samples are numbers."
    share = 1 - p.samples.isfinite().flatten(1).all(1).float().mean().item()
    return Finding('samples', f'{share:.0%} have values that are not finite', share > 0,
                   'go back to a checkpoint before it; a smaller --lr; not fp16')


@looks_for('blank', 'model', 'held_out', 'how')
def blank(p: Patient) -> Finding:
    "Whether samples have no contrast."
    def share(x: Tensor) -> float:
        return (x.flatten(1).std(1) < 0.02).float().mean().item()
    mine, real = share(p.samples), share(p.real)
    return Finding('samples without contrast', f'{mine:.0%}, of real pictures {real:.0%}',
                   mine > real + 0.1, 'look at the last step and at the range of the pictures',
                   'likely')


@looks_for('tint', 'model', 'held_out', 'how')
def tint(p: Patient) -> Finding:
    "Whether samples are brighter, darker or of another tint than real pictures."
    mine, real = (x.nan_to_num().mean((2, 3)).double() for x in (p.samples, p.real))
    apart = mine.mean(0) - real.mean(0)
    away = apart / (mine.var(0) / len(mine) + real.var(0) / len(real)).sqrt()
    k = int(apart.abs().argmax())
    return Finding('mean brightness of each channel, less that of real pictures',
                   ', '.join(f'{x:+.3f}' for x in apart.tolist()),
                   bool(apart[k].abs() > 0.1 and away[k].abs() > 4),
                   'train longer; does the schedule end in noise? is the range [-1, 1]? are '
                   'red, green and blue in this order?',
                   f'{away[k].abs():.0f} standard errors')


@looks_for('colour from grey', 'model', 'held_out', 'how')
def colour_from_grey(p: Patient) -> Finding:
    "Whether samples have colours that real pictures have not."
    mine, real = ((x.amax(1) - x.amin(1)).mean().item() for x in (p.samples, p.real))
    return Finding('colour: largest less smallest channel',
                   f'{mine:.3f}, of real pictures {real:.3f}', real < 0.01 and mine > 0.02,
                   'train on one channel, --image-channels 1', 'likely')


@looks_for('noise in the last step', 'model', 'how')
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
    return Finding('the last step, with two noises', f'ends {apart:.2g} apart', apart > 1e-3,
                   'no noise where the image is reached')


@looks_for('out of range', 'model', 'how')
def out_of_range(p: Patient) -> Finding:
    "Whether pixels leave [-1, 1] when pictures are drawn."
    share = (p.samples.nan_to_num().abs() > 1.05).float().mean().item()
    return Finding('pixels of samples', f'{share:.1%} are beyond [-1, 1] by more than 0.05',
                   share > 0.01, 'clip the guessed image (leave --no-clip out); less guidance',
                   'likely')


@looks_for('rough', 'model', 'held_out', 'how')
def rough(p: Patient) -> Finding:
    "Whether samples are noise, or have grain."
    mine, real = (roughness(x.nan_to_num()).mean().item() for x in (p.samples, p.real))
    return Finding('roughness of samples', f'{mine:.2f}, of real pictures {real:.2f}',
                   mine > 1.5 * real, 'see the other findings: what is it drawn with?', 'likely')


@looks_for('few samples judged', 'scores')
def few_samples_judged(p: Patient) -> Finding:
    "Whether a distance in test.json rests on too few samples to be compared."
    s = p.scores
    return Finding(f'the distance in test.json, by {s["features"]:,} features',
                   f'{s["n"]:,} samples, guidance {s["guidance"]:g}', s['n'] < 5 * s['features'],
                   f'at least {5 * s["features"]:,}; beside published ones 50,000, with the same '
                   'features, reference and guidance', 'certain: it is too large')


def examine(p: Patient, early: bool = False) -> dict[str, Finding]:
    """What all checks say for which enough is known, by name, causes before consequences; `early`:
    only those before training."""
    order = sorted(CHECKS.items(), key=lambda entry: (not entry[1].early, 'how' in entry[1].needs))
    return {name: check.look(p) for name, check in order
            if (check.early or not early) and all(getattr(p, need) for need in check.needs)}
