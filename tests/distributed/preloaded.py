"What processes are forked from has these: the imports, the compiler that comes with the first optimizer, the digits."

import torch._dynamo  # noqa: F401

import process_workers  # noqa: F401
from ddpm_course.data import load_digits

load_digits("train", 16)
