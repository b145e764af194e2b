"""Mean of two training checkpoints, as a training checkpoint.

    python average.py A.pt B.pt --share 0.3 --out C.pt     # 0.7 A + 0.3 B

Of two that lie near each other, such as a run and its continuation, it is often better than either.
"""
import argparse

import torch


def main():
    a = argparse.ArgumentParser()
    a.add_argument("first")
    a.add_argument("second")
    a.add_argument("--share", type=float, default=0.5, help="the second one's")
    a.add_argument("--out", required=True)
    a = a.parse_args()
    first, second = torch.load(a.first), torch.load(a.second)
    second["model"] = {name: torch.lerp(tensor, second["model"][name], a.share) if tensor.is_floating_point() else tensor
                       for name, tensor in first["model"].items()}
    torch.save(second, a.out)


if __name__ == "__main__":
    main()
