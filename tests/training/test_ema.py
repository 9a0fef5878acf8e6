"""The EMA teacher against a naive loop, and where a bf16 one would stand still."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from mmjepa.training.ema import EmaTeacher


def test_follows_a_naive_average_in_double_precision() -> None:
    torch.manual_seed(0)
    student = nn.Sequential(nn.Linear(5, 7), nn.LayerNorm(7), nn.Linear(7, 2))
    teacher = EmaTeacher(student)
    expected = [p.detach().double().numpy().copy() for p in student.parameters()]
    for step in range(40):
        momentum = 0.9 + 0.002 * step
        for parameter, average in zip(student.parameters(), expected, strict=True):
            parameter.data += torch.randn_like(parameter)
            average[...] = momentum * average + (1 - momentum) * parameter.detach().double().numpy()
        teacher.update(student, momentum)
    for parameter, average in zip(teacher.module.parameters(), expected, strict=True):
        np.testing.assert_allclose(parameter.numpy(), average, atol=1e-6)


def test_creeps_after_a_bf16_student_that_it_could_not_follow_in_bf16() -> None:
    student = nn.Linear(1, 1, bias=False).bfloat16()
    nn.init.constant_(student.weight, 1.0)
    teacher = EmaTeacher(student)
    in_bf16 = student.weight.detach().clone()
    nn.init.constant_(student.weight, 1.05)
    for _ in range(2000):
        teacher.update(student, 0.996)
        in_bf16.lerp_(student.weight.detach(), 0.004)
    assert float(in_bf16) == 1.0
    assert torch.allclose(teacher.module.weight, student.weight.detach().float(), atol=1e-4)


def test_is_a_copy_that_neither_trains_nor_is_registered() -> None:
    class Owner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.student = nn.Linear(2, 2)
            self.teacher = EmaTeacher(self.student)

    owner = Owner()
    before = owner.teacher.module.weight.clone()
    owner.student.weight.data.zero_()
    assert torch.equal(owner.teacher.module.weight, before)
    assert not any(parameter.requires_grad for parameter in owner.teacher.module.parameters())
    assert len(list(owner.parameters())) == 2
