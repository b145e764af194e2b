"""Muon for the matrices (batched Newton-Schulz), AdamW for embeddings, head, router and norms."""
import torch


def newton_schulz(g, steps=5):
    """Approximate orthogonalisation of g [B, m, n] in bf16."""
    x = g.to(torch.bfloat16)
    flip = x.shape[-2] > x.shape[-1]
    x = x.transpose(-1, -2) if flip else x
    x = x / (x.float().norm(dim=(-2, -1), keepdim=True).to(x.dtype) + 1e-7)
    for _ in range(steps):
        a = x @ x.transpose(-1, -2)
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return (x.transpose(-1, -2) if flip else x).float()


class Optimizer:
    def __init__(self, model, lr, adam_lr, decay=0.1, momentum=0.95):
        self.lr, self.adam_lr, self.decay, self.momentum = lr, adam_lr, decay, momentum
        small = lambda n, p: p.dim() < 2 or n in ("embed", "head") or n.endswith("mlp.gate")
        self.adam = [p for n, p in model.named_parameters() if small(n, p)]
        self.matrices = [p for n, p in model.named_parameters() if not small(n, p)]
        self.state = {"m": [torch.zeros_like(p) for p in self.matrices], "a": [torch.zeros_like(p) for p in self.adam],
                      "v": [torch.zeros_like(p) for p in self.adam], "t": 0}

    @torch.no_grad()
    def step(self, factor):
        s = self.state
        s["t"] += 1
        for p, m in zip(self.matrices, s["m"]):
            m.lerp_(p.grad, 1 - self.momentum)
            g = p.grad.lerp(m, self.momentum).reshape(-1, *p.shape[-2:])
            update = newton_schulz(g).reshape(p.shape) * (0.2 * max(p.shape[-2:]) ** 0.5)
            p.mul_(1 - self.lr * factor * self.decay).add_(update, alpha=-self.lr * factor)
        c1, c2 = 1 - 0.9 ** s["t"], 1 - 0.95 ** s["t"]
        for p, a, v in zip(self.adam, s["a"], s["v"]):
            a.lerp_(p.grad, 0.1)
            v.lerp_(p.grad.square(), 0.05)
            p.add_((a / c1) / ((v / c2).sqrt() + 1e-8), alpha=-self.adam_lr * factor)
        for p in self.adam + self.matrices:
            p.grad = None
