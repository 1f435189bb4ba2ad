"""Room 3: language models of transformers behind a plan. Nothing above touches their insides."""
