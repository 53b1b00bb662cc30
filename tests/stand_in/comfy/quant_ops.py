"""A weight of few bits with a scale."""


class QuantizedTensor:
    pass
