"""Devices, and a user who cancels."""

import torch

interrupted = False


class InterruptProcessingException(Exception):
    pass


def throw_exception_if_processing_interrupted():
    if interrupted:
        raise InterruptProcessingException


def cast_to_device(tensor, device, dtype, copy=False):
    return tensor.to(device, dtype, copy=copy)


def get_torch_device():
    return torch.device("cpu")
