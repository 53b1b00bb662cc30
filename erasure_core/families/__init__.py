"""The families of models: ``family`` says what one is, ``unets`` and ``transformers`` list those that are known."""
