"""BLIP-2 and InstructBLIP: a picture tower, a Q-Former whose queries read it, a language model that is not retrained.

Source: BLIP-2 (arXiv:2301.12597), InstructBLIP (arXiv:2305.06500).
"""

from __future__ import annotations

from omniloom.published.source import Part, Published, Row, Source

__all__ = ["blip"]


def blip(source: Source) -> Published:
    """BLIP-2 and InstructBLIP: the rows of the queries, and then what is said, with nothing around it.

    InstructBLIP's Q-Former reads the text of the picture's own turn too.
    """
    kind = "causal_lm" if source.config.use_decoder_only_language_model else "seq2seq_lm"
    return Published(
        [
            Row(
                "image",
                "image",
                ("", ""),
                source.named("hub"),
                Part(source.named("hub_vision", tokens="all")),
                [Part(source.named("hub_qformer"))],
            )
        ],
        backbone={"type": kind, "template": "bare"},
    )
