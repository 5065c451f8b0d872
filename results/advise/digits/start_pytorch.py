import torch

import warmstart_sim
from warmstart_sim import models

LAST = "/tmp/runs/adv/digits_a/split0/advice/check_4x209/cells/shrink_perturb_0.8_0.01-seed1000-f47b9f0d31/weights.pt"  # put the weights of your last run here
model = models.build("mlp", {}, (1, 8, 8), 10)  # fresh weights
warmstart_sim.start(model, LAST, lam=0.8, sigma=0.01)  # lam * LAST + sigma * fresh, in place
optimizer = torch.optim.Adam(model.parameters(), lr=0.001)  # a new one, made after the start
# Train on all samples so far as you always do, then keep the weights for the next time:
warmstart_sim.save_weights(model, "last.safetensors")
