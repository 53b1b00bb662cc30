"""How a model's output is read."""


class EPS:
    pass


class V_PREDICTION(EPS):
    pass
