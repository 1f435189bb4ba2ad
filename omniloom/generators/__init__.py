"""Room 4: how an answer leaves the model: as text, as codes, or through a tool that reads text."""

from omniloom.generators.tokens import CodeOutput, TokenStream

__all__ = ["CodeOutput", "TokenStream"]
