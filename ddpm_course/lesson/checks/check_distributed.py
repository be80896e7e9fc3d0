from ..answers import Answer, Checks

CAUSES = {                            # of each letter: its cause, and where it shows
    'A': (4, 'the noise, the same in both processes'),
    'B': (2, 'the gradient, half as large as it should be'),
    'C': (6, 'the noise after the stop, which is that of step 0'),
    'D': (0, 'the averaged weights, which are those of one process'),
    'E': (1, 'the weights, which differ between the processes'),
    'F': (5, 'the average, which has moved in one process only'),
    'G': (3, 'the images, the same in both processes')}


def check_causes(f: Answer) -> None:
    """A few numbers from every process name a mistake that the loss does not show.

    Compare each row with that of D: in which column do you see a difference first?

    Equal in both processes: gradient, weights, average. Not equal: images and noise.

    B halves the gradient, which is mistake 2; so begin `return {'B': 2, 'D': 0, ...}`.
    """
    answer = f()
    assert set(answer) == set(CAUSES), 'a number for each of the letters A to G'
    for letter, (cause, symptom) in CAUSES.items():
        assert answer[letter] == cause, f'{letter}: look at {symptom}'


def check_hanging(f: Answer) -> None:
    """A collective that some do not call makes all others wait; nothing else does.

    Which of the calls are collectives? To print and to save are none.

    For each collective: do all four processes call it, equally often, whatever their data are?

    Three of the five can hang, by rank, by share and by loss: `return 'ACD'`.
    """
    letters = f()
    for letter, why in {'A': 'only rank 0 calls it', 'C': 'rank 3 sends 99 times, the others 100',
                        'D': 'one process may skip a backward that the others wait in'}.items():
        assert letter in letters, f'{letter} hangs: {why}'
    for letter, why in {'B': 'all call it, one prints', 'E': 'to save is no collective'}.items():
        assert letter not in letters, f'{letter} does not hang: {why}'


check = Checks(check_causes, check_hanging)
