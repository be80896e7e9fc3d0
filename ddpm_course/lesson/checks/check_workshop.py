from pathlib import Path

from ..answers import Answer, Checks
from ..trial import Seen, fail, observe

LIMIT = 0.01                            # percent by which a loss may differ: rounding is below


def off(found: list[float], wanted: list[float]) -> list[float]:
    "How far losses are from those that they should be, in percent."
    return [100 * abs(x / y - 1) for x, y in zip(found, wanted, strict=False)]


def script_says(seen: Seen) -> None:
    "Name the first symptom of a script, with a question that leads to its cause."
    extra, late = len(seen.full) - 2, len(seen.three) - 3
    if seen.code != 143:
        fail(f'after SIGTERM the first process ended with the code {seen.code}, and not 143. Last '
             f'errors: {seen.errors}.',
             'What does each process do when the signal comes, and what does sys.exit get?')
    if len(seen.two) > len(seen.one) or seen.start and off(seen.again, seen.one)[0] < LIMIT:
        fail('after SIGKILL the run began again with step 1.', 'What does it look for when it starts?')
    if extra > 0:
        fail(f'a run that has finished goes on for 2 more steps, and trains {2 + extra}.',
             'Which number stands in FILE after the first step: 0 or 1?')
    if late:
        fail(f'SIGTERM came in step {seen.done}; for the next 3 steps {late + 3} losses are '
             'printed.', 'What is in FILE when a run has been stopped?')
    two, again = off(seen.two, seen.one), off(seen.again, seen.one[seen.start:])
    three = off(seen.three, seen.one[seen.done:])
    if two[0] > LIMIT:
        fail(f'two processes differ from one in the first step, by {two[0]:.2g} %.',
             'Do all images of the batch take part, each once, with its own t and noise, in the '
             'training and in the mean that is printed?')
    if max(two) > LIMIT:
        fail('one process and two agree in the first step, and differ later, by up to '
             f'{max(two):.2g} %.',
             'What have the two averaged before the first step is taken? And does each draw '
             'something of its own, as dropout does?')
    if again[0] > LIMIT:
        fail(f'after SIGKILL the first loss is off by {again[0]:.2g} %.',
             'Which random numbers does the first step after a start see?')
    if max(again) > LIMIT:
        fail('after SIGKILL the first loss is right, and the next ones are off by up to '
             f'{max(again):.2g} %.', 'What does a step need beside the weights?')
    if max(three) > LIMIT:
        fail('one process and two agree, and three differ by up to '
             f'{max(three):.2g} %.', 'How many of 32 images has each of three processes?')
    if seen.lag > 0.01:
        fail(f'all losses agree; after the stops the average is off, by {seen.lag:.0%} of its '
             'distance from the network.', 'What becomes of the average at a start?')
    if not seen.whole:
        fail('a save fails half-way, as on a full disk: FILE had {:,} bytes, and now has {:,}.'
             .format(*seen.sizes), 'Where is the old checkpoint while the new one is written?')


def check_script(f: Answer) -> None:
    """One run on 1, 2 or 3 processes, killed, stopped or with a full disk: your script trains as
    it should.

    Which numbers of your script depend on the rank, on the start, or on how many processes there
    are?

    The batch, its t and its noise follow from the step alone; each process keeps its share. What
    one process hears, all must learn before anybody acts on it.

    Print the sum over all processes of `loss = each.sum() / batch`, and learn from
    `(loss * world).backward()`, with a `torch.Generator` seeded by the step; after each step
    `dist.all_reduce` of how many signals have come.
    """
    path = Path(f()).resolve()
    assert path.is_file(), f'there is no {path}'
    script_says(observe(path))


check = Checks(check_script)
