"""Writes torch_checkpoint.pth with real PyTorch (2.15.0 at the time; not among the test dependencies):

    python tests/data/make_torch_checkpoint.py tests/data/torch_checkpoint.pth

Every number is from `ramp`, which test_pth.py repeats in NumPy.
"""

import sys

import torch


def ramp(*shape, dtype=torch.float32):
    """-3, -2, -1, 0, 1, ... in row-major order, or 0, 1, ... for an unsigned type."""
    numbers = torch.arange(torch.Size(shape).numel()).reshape(shape)
    return (numbers if dtype in (torch.uint8, torch.uint16) else numbers - 3).to(dtype)


net = torch.nn.Module()
net.conv = torch.nn.Conv2d(2, 3, 3)
net.norm = torch.nn.BatchNorm2d(3)
net.code = torch.nn.Parameter(torch.zeros(2, 4))
optimizer = torch.optim.SGD(net.parameters(), lr=0.0, momentum=0.9)
(net.norm(net.conv(torch.ones(1, 2, 4, 4))).sum() + net.code.sum()).backward()
optimizer.step()
with torch.no_grad():
    for tensor in (*net.parameters(), net.norm.running_mean, net.norm.running_var):
        tensor.copy_(ramp(*tensor.shape))

wide = [torch.float64, torch.int32, torch.complex64]
for dtype in [*wide, torch.float16, torch.bfloat16, torch.int16, torch.uint16, torch.int8, torch.uint8, torch.bool]:
    net.register_buffer(str(dtype).replace("torch.", "as_"), ramp(7, dtype=dtype))
net.register_buffer("as_float8", ramp(7, dtype=torch.float8_e4m3fn))
whole = ramp(6, 5)
net.register_buffer("whole", whole)
net.register_buffer("transposed", whole.t())
net.register_buffer("rows", whole[1:5:2, 1:])
net.register_buffer("expanded", ramp(3, 1).expand(3, 4))
net.register_buffer("scalar", torch.tensor(2.5))
net.register_buffer("empty", torch.zeros(0, 3))
state_dict = torch.nn.DataParallel(net).state_dict()
state_dict["module.parameter"] = torch.nn.Parameter(ramp(2, 2))

checkpoint = {
    "epoch": 3,
    "arch": "tiny",
    "best": torch.tensor(0.5),
    "size": torch.Size((4, 4)),
    "state_dict": state_dict,
    "optimizer": optimizer.state_dict(),
    "scheduler": torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 5]).state_dict(),
}
torch.save(checkpoint, sys.argv[1])
