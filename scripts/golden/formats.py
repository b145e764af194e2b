"""Weight formats: how a matrix is stored, and which matrix that means."""

import torch

GROUP = 32
BLOCK = 128
E4M3_MAX = 448.0


def dense_bf16(weight):
    """`{suffix: tensor}` as stored, and the f32 matrix it stands for."""
    stored = weight.to(torch.bfloat16)
    return {"weight": stored}, stored.float()


def int4(weight):
    """compressed-tensors pack-quantized: eight offset-binary codes a word, lowest nibble first, bf16 scales."""
    rows, columns = weight.shape
    grouped = weight.reshape(rows, columns // GROUP, GROUP)
    scale = (grouped.abs().amax(-1) / 7.5).to(torch.bfloat16)
    codes = (grouped / scale.float()[..., None]).round().clamp(-8, 7).to(torch.int64)
    # The product is rounded to the scales' format, as compressed-tensors does.
    meant = (codes.to(torch.bfloat16) * scale[..., None]).reshape(rows, columns).float()
    nibbles = (codes.reshape(rows, columns // 8, 8) + 8) << (4 * torch.arange(8))
    words = nibbles.sum(-1)
    packed = torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)
    shape = torch.tensor([rows, columns], dtype=torch.int32)
    return {"weight_packed": packed, "weight_scale": scale, "weight_shape": shape}, meant


def fp8(weight):
    """e4m3 codes and one f32 scale for each 128 x 128 block, partial blocks at the edges."""
    rows, columns = weight.shape
    blocks = (-(-rows // BLOCK), -(-columns // BLOCK))
    scale = torch.zeros(blocks)
    for row in range(blocks[0]):
        for column in range(blocks[1]):
            block = weight[row * BLOCK:(row + 1) * BLOCK, column * BLOCK:(column + 1) * BLOCK]
            scale[row, column] = block.abs().max() / E4M3_MAX
    wide = scale.repeat_interleave(BLOCK, 0)[:rows].repeat_interleave(BLOCK, 1)[:, :columns]
    codes = (weight / wide).to(torch.float8_e4m3fn)
    return {"weight": codes, "weight_scale_inv": scale}, codes.float() * wide
