"""Training recipe of arXiv 2307.16867: AdamW, cosine schedule with warm-up, full batches in seeded order."""

import math

import torch


def learning_rate(epoch, epochs, warmup=10, start=1e-6, peak=1e-3, least=1e-5):
    """Return the rate of an epoch: the schedule is stepped after each epoch, so it lags by one."""
    step = 0 if epoch == 0 else epoch - 1
    if step < warmup:
        return start + (peak - start) * step / warmup
    return least + (peak - least) * (1 + math.cos(math.pi * step / epochs)) / 2


def cross_entropy(logits, labels):
    right = logits[torch.arange(len(labels)), labels]
    return (torch.logsumexp(logits, 1) - right).mean()


def train(reference, images, labels, epochs, batch_size, weight_decay, seed):
    """Train in place on images (N, 3, side, side) in [0, 1]; return the loss of each step."""
    parameters = list(reference.trainable.values())
    optimizer = torch.optim.AdamW(parameters, weight_decay=weight_decay)
    generator = torch.Generator().manual_seed(seed)
    losses = []
    for epoch in range(epochs):
        optimizer.param_groups[0]["lr"] = learning_rate(epoch, epochs)
        order = torch.randperm(len(images), generator=generator)
        for start in range(0, len(images) - batch_size + 1, batch_size):
            batch = order[start : start + batch_size]
            loss = cross_entropy(reference.logits(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses
