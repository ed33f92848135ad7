"""Things that answer: Transformers, llama.cpp, Ollama. Each loads only when it is used."""
