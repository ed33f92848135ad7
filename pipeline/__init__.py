"""From R1-distilled reasoning data to a Llama 3.2 that thinks, running in Ollama."""

__version__ = "0.1.0"
