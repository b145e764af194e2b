"""Train kimi-nano on the CPU.

    python train.py --out RUN_DIR --tokens 50 [--resume CKPT] [--seed 0]

The learning rate and the curriculum follow the fraction of --tokens that was trained, not the clock; a checkpoint is
written every few minutes, so any moment has an exportable model. The last part trains with int4/bf16 fake quantisation.
"""
import argparse
import pathlib
import time

import numpy as np
import torch
import torch.nn.functional as F

import model as nano
from data import Loader
from optim import Optimizer
from tasks import MIX, copy_long

EARLY_COPYING = 22   # induction heads form within half a million tokens under this weight, and hardly without it


def to_tensors(batch):
    """Groups -> ids [N], shapes, keep [M] (positions that predict a target), targets [M]."""
    ids = torch.from_numpy(np.concatenate([i.ravel() for i, _ in batch]).astype(np.int64))
    mask = np.concatenate([np.concatenate([m[:, 1:], np.zeros((len(m), 1), bool)], 1).ravel() for _, m in batch])
    keep = torch.from_numpy(mask.nonzero()[0])
    return ids, [i.shape for i, _ in batch], keep, ids[keep + 1]


def lr_factor(f, warm, hold):
    """Warm-up, plateau, then linear decay to (almost) zero over the fraction f of the tokens."""
    return min(1.0, f / warm if warm else 1.0) * (1.0 if f < hold else max(0.0, (1 - f) / (1 - hold)))


def curriculum(f, a):
    """At the fraction f of the schedule: the share of tokens in long recall rows, the weight of long copying rows."""
    return 0.0 if f < a.long_from else a.long_share, EARLY_COPYING if f < a.copy_until else MIX[copy_long]


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--out", required=True)
    a.add_argument("--tokens", type=float, default=50, help="millions of tokens of the whole schedule")
    a.add_argument("--resume")
    a.add_argument("--start", type=float, help="fraction to take up at (default: the checkpoint's)")
    a.add_argument("--seed", type=int, default=0)
    a.add_argument("--batch-tokens", type=int, default=8192)
    a.add_argument("--lr", type=float, default=6e-3)
    a.add_argument("--adam-lr", type=float, default=4e-3)
    a.add_argument("--hold", type=float, default=0.5)
    a.add_argument("--qat", type=float, default=0.8, help="fraction at which fake quantisation begins")
    a.add_argument("--long-from", type=float, default=0.3)
    a.add_argument("--long-share", type=float, default=0.22)
    a.add_argument("--copy-until", type=float, default=0.06, help="fraction up to which long copying rows weigh EARLY_COPYING")
    a.add_argument("--weight", action="append", default=[], metavar="TASK=W", help="another weight in the mix of tasks, such as tool_call=60")
    a.add_argument("--compile", action="store_true", help="fuse norms and rotations (needs a C++ compiler)")
    a.add_argument("--threads", type=int, default=2)
    a.add_argument("--steps", type=int, default=0, help="stop after so many steps (profiling)")
    a = a.parse_args()
    out = pathlib.Path(a.out)
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(a.seed)
    torch.set_num_threads(a.threads)
    if a.compile:
        nano.rms, nano.rope = (torch.compile(f, dynamic=True) for f in (nano.rms, nano.rope))
    model = nano.Nano()
    opt = Optimizer(model, a.lr, a.adam_lr)
    begin, tokens, step = 0.0, 0, 0   # begin: tokens at which the schedule began
    if a.resume:
        ck = torch.load(a.resume)
        model.load_state_dict(ck["model"])
        opt.state = ck["opt"]
        tokens, step = ck["tokens"], ck["step"]
        begin = tokens - (ck["fraction"] if a.start is None else a.start) * a.tokens * 1e6
    weights = {task: float(weight) for task, weight in (named.split("=") for named in a.weight)}
    print(sum(p.numel() for p in model.parameters()), "parameters")
    fraction = lambda: (tokens - begin) / (a.tokens * 1e6)
    loader = Loader(a.seed * 1_000_000 + step, a.batch_tokens, *curriculum(fraction(), a), weights)
    last = saved = time.time()
    losses, first = [], step
    while True:
        f = fraction()
        loader.share.value, loader.copying.value = curriculum(f, a)
        model.quant = f >= a.qat
        ids, shapes, keep, targets = to_tensors(loader.next())
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(ids, shapes, keep)
        loss = F.cross_entropy(logits.float(), targets)
        loss.backward()
        factor = lr_factor(f, 0.01, a.hold)
        opt.step(factor)
        if f < 0.85:
            model.balance(5e-3 * max(factor, 0.1))
        step, tokens = step + 1, tokens + len(ids)
        losses.append(loss.item())
        now = time.time()
        dt, last = now - last, now
        if step % 40 == 0:
            load = torch.stack([l.mlp.load for l in model.layers if not l.dense])
            print(f"step {step} frac {f:.3f} loss {np.mean(losses[-40:]):.4f} lr {factor:.3f} tok {tokens / 1e6:.2f}M {len(ids) / dt:.0f} tok/s "
                  f"load max/mean {(load.max(1)[0] / load.mean(1)).max():.2f}", flush=True)
        done = f >= 1 or (a.steps and step - first >= a.steps)
        if done or now - saved > 240:
            ck = dict(model=model.state_dict(), opt=opt.state, fraction=f, tokens=tokens, step=step, quant=model.quant)
            torch.save(ck, out / "last.tmp")
            (out / "last.tmp").rename(out / "last.pt")
            saved = now
        if done:
            break
    loader.proc.terminate()


if __name__ == "__main__":
    main()
