"""Fusers: items of several modalities in one turn become one item before the language model; see `fusing` for the
contract."""
