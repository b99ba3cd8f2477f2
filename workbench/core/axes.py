"""The one legend of axis letters, used in shape annotations and einsums."""

__all__ = ["LEGEND"]

LEGEND = {
    "T": "tokens, batch and position flattened, padding left out",
    "D": "model width",
    "E": "experts",
    "K": "choices per token",
    "N": "rows after dispatch",
    "C": "slots per expert",
    "F": "expert hidden width",
    "L": "MoE layers",
    "R": "ranks",
    "B": "sequences",
    "S": "positions",
    "V": "vocabulary",
    "A": "assignments",
    "G": "groups of tokens or of experts",
    "H": "attention heads",
    "M": "what a router mixes over a token's past",
    "W": "what a router keeps of a token in the cache; the width of a projection",
    "Q": "width of one attention head",
    "P": "columns of attention, cached ones included; experts picked from a plan",
    "J": "guesses of the next layer's experts",
    "I": "inputs of a linear map",
    "O": "outputs of a linear map",
    "X": "tokens with a target",
    "Z": "experts of a layer, the extra experts of its router included",
}
