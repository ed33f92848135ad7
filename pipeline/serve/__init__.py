"""The Modelfile, and the exported files as models of an Ollama server."""

from pipeline.card import model_card
from pipeline.serve.modelfile import license_text, modelfile, parameters
from pipeline.serve.register import RegisterOptions, register, registration_command

__all__ = [
    "RegisterOptions",
    "license_text",
    "model_card",
    "modelfile",
    "parameters",
    "register",
    "registration_command",
]
