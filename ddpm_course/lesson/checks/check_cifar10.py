from ..answers import Answer, Checks


def check_gpu_hours(f: Answer) -> None:
    """Now you can read a recipe and say what it costs you, before you pay.

    How many images does the network see in the whole run?

    Seconds are images over images a second; hours of the run times GPUs are GPU-hours.

    `images = steps * batch * (gpus if per_gpu else 1)`, and
    `images / images_per_s / 3600 * gpus`
    """
    paper = f(800_000, 128, False, 1, 1000.0)
    right = 102_400_000 / 1000 / 3600
    assert abs(paper - 60 * right) > right, 'those are minutes: an hour has 3,600 seconds'
    assert abs(paper - right) < 0.01 * right, 'one GPU with 1,000 images a second takes '\
        f'102.4 million images in {right:.1f} hours'
    four = f(800_000, 128, False, 4, 4000.0)
    assert abs(four - right / 4) > 0.01 * right, 'four GPUs for a quarter of the time are as many '\
        'GPU-hours as one: those were the hours of the run'
    assert abs(four - right) < 0.01 * right, 'images_per_s is that of all GPUs together'
    each = f(800_000, 128, True, 4, 4000.0)
    assert abs(each - right) > 0.01 * right, 'a batch of 128 on each of four GPUs is one of 512: '\
        'the same number of steps sees four times as many images'
    assert abs(each - 4 * right) < 0.01 * right, 'four times as many images, at the same speed, '\
        'are four times the GPU-hours'


check = Checks(check_gpu_hours)
