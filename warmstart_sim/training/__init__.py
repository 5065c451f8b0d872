"""The training loop: settings, batches, one epoch, the convergence criterion, stop rules and evaluation."""
