"What processes are forked from has these: the imports, the compiler that comes with the first optimizer, the digits."

import torch

from process_workers import load_digits

torch.optim.AdamW([torch.zeros(1)])
load_digits("train", 16)
