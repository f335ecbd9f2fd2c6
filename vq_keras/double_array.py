"""A trie in two arrays, in which a step down is one look and a comparison."""

import numpy as np

# Of a place at which there is no node.
EMPTY = -1
# In place of the parent of the root's children.
ROOT = -2
# Places at which a node's children are tried at once.
_WINDOW = 256


def pack(levels: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Places for the nodes of a trie, so that the child of a node for a letter is found at base[node] + letter.

    What stands there is its child if it names the node as its parent. So each look costs the same, however many
    children there are, and needs no more than two arrays of integers, of which two fifths may be empty. Source: Aoe
    1989, "An Efficient Digital Search Algorithm by Using a Double-Array Structure".

    Args:
        levels: of each depth, from the root's children on: the number of each node's parent among those of the level
            before (not looked at in the first), and its letter, sorted by both. The first level has a node for each
            letter.

    Returns:
        parent int32 (size,), the place of the parent of the node there, `ROOT` for a child of the root, and `EMPTY`
        where there is none; base int32 (size,); and the place of each node, by levels. Children of the root stand at
        their letters, and base + letter is within the arrays for all nodes and letters.

    Example:
        >>> letters = np.arange(3)
        >>> parent, base, (_, (place,)) = pack([(0 * letters, letters), (np.array([2]), np.array([1]))])
        >>> bool(place == base[2] + 1 and parent[place] == 2)
        True
    """
    letters = len(levels[0][1])
    room = sum(len(letter) for _, letter in levels) + letters
    parent, base, free = np.full(room, EMPTY), np.zeros(room, "int64"), np.ones(room, "bool")
    parent[:letters] = ROOT
    free[:letters] = False
    places, lowest, end = [np.arange(letters)], letters, letters
    for prefix, letter in levels[1:]:
        nodes, starts, counts = np.unique(prefix, return_index=True, return_counts=True)
        mothers, place = places[-1][nodes], np.zeros(len(letter), "int64")
        width, first = None, lowest
        # The widest families first, while there is room.
        for family in np.argsort(-counts, kind="stable"):
            needed = end + _WINDOW + letters
            if len(free) < needed:
                grown = [(parent, EMPTY), (base, 0), (free, True)]
                parent, base, free = (np.pad(x, (0, needed), constant_values=value) for x, value in grown)
            if counts[family] != width:
                width = counts[family]
                lowest += int(free[lowest:].argmax())
                first = lowest
            children = letter[starts[family] : starts[family] + width]
            # Those as wide as it have looked for room before `first`.
            first = _room(free, children - children[0], first, end)
            base[mothers[family]] = first - children[0]
            there = first + children - children[0]
            free[there] = False
            parent[there] = mothers[family]
            place[starts[family] : starts[family] + width] = there
            end = max(end, int(there[-1]) + 1)
        places.append(place)
    size = max(end, int(base.max()) + letters)
    parent, base = (np.pad(x, (0, max(0, size - len(x))), constant_values=EMPTY)[:size] for x in (parent, base))
    return parent.astype("int32"), base.astype("int32"), places


def _room(free, offsets, first, end):
    """The first place from `first` on from which all children find free places."""
    while first < end:
        found = np.flatnonzero(free[first : first + _WINDOW]) + first
        fits = free[found[:, None] + offsets].all(axis=1)
        if fits.any():
            return int(found[fits.argmax()])
        first += _WINDOW
    return first
