"""Rays of an arrow maze: random full mazes, and the search for the missing arrows (task `arrow_maze`)."""

import random
from collections.abc import Mapping, Sequence

__all__ = ["ARROWS", "Grid", "random_maze", "ray_length", "search"]

Grid = list[list[str]]
Ray = tuple[str, int, list[int]]  # arrow, number (its cell), the cells between: a cell is i * m + j
Way = tuple[int, list[tuple[str, list[int]]]]  # number, (arrow, cells that get it)

ARROWS: Mapping[str, tuple[int, int]] = {
    "↑": (-1, 0),
    "↓": (1, 0),
    "←": (0, -1),
    "→": (0, 1),
    "↖": (-1, -1),
    "↗": (-1, 1),
    "↘": (1, 1),
    "↙": (1, -1),
}


def ray_length(grid: Sequence[Sequence[str]], i: int, j: int, arrow: str) -> int:
    di, dj = ARROWS[arrow]
    length, a, b = 0, i + di, j + dj
    while 0 <= a < len(grid) and 0 <= b < len(grid[0]) and grid[a][b] == arrow:
        length, a, b = length + 1, a + di, b + dj
    return length


def random_maze(rng: random.Random, n: int, m: int) -> Grid | None:
    """A full maze: numbers with random rays, then the cells left over extend a ray or become numbers themselves."""
    grid = [["X"] * m for _ in range(n)]
    cells = [(i, j) for i in range(n) for j in range(m)]
    directions = list(ARROWS)

    def emit_rays(i: int, j: int) -> None:
        for arrow in rng.sample(directions, rng.randint(1, 4)):
            (di, dj), length = ARROWS[arrow], 0
            a, b = i + di, j + dj
            while 0 <= a < n and 0 <= b < m and grid[a][b] == "X" and length < 4:
                grid[a][b] = arrow
                length, a, b = length + 1, a + di, b + dj
                if rng.random() < 0.4:
                    break

    seeds = rng.sample(cells, rng.randint(max(2, n * m // 8), max(3, n * m // 5)))
    for i, j in seeds:
        grid[i][j] = "0"  # the numbers are counted at the end
    for i, j in seeds:
        emit_rays(i, j)
    rng.shuffle(cells)
    for i, j in cells:
        if grid[i][j] != "X":
            continue
        behind = [(arrow, i - di, j - dj) for arrow, (di, dj) in ARROWS.items()]
        extending = [arrow for arrow, a, b in behind if 0 <= a < n and 0 <= b < m and grid[a][b] in ("0", arrow)]
        if extending and rng.random() < 0.85:
            grid[i][j] = rng.choice(extending)
        else:
            grid[i][j] = "0"
            emit_rays(i, j)
    for i, j in cells:
        if grid[i][j] not in ARROWS:
            total = sum(ray_length(grid, i, j, arrow) for arrow in ARROWS)
            if not 1 <= total <= 9:
                return None
            grid[i][j] = str(total)
    return grid


def _rays(maze: Sequence[Sequence[str]]) -> tuple[dict[int, list[Ray]], dict[int, list[Ray]]]:
    """(by number, by cell): the cells that a number's ray can reach, and the rays that can reach a cell, with those before it."""
    n, m = len(maze), len(maze[0])
    by_number: dict[int, list[Ray]] = {}
    by_cell: dict[int, list[Ray]] = {i * m + j: [] for i in range(n) for j in range(m)}
    for i in range(n):
        for j in range(m):
            if not maze[i][j].isdigit():
                continue
            number = i * m + j
            by_number[number] = []
            for arrow, (di, dj) in ARROWS.items():
                path: list[int] = []
                a, b = i + di, j + dj
                while 0 <= a < n and 0 <= b < m and maze[a][b] in ("X", arrow):
                    path.append(a * m + b)
                    by_cell[path[-1]].append((arrow, number, list(path)))
                    a, b = a + di, b + dj
                by_number[number].append((arrow, number, path))
    return by_number, by_cell


def search(maze: Sequence[Sequence[str]], max_nodes: int) -> tuple[Grid | None, int]:
    """(the first solution or None, nodes): always the empty cell with the fewest possible rays comes next.

    Every arrow has exactly one owner: the number behind it. So an empty cell belongs to a number in one of eight directions, and
    all empty cells between the two get the same arrow. A number with just enough room takes all of it without a choice.
    """
    n, m = len(maze), len(maze[0])
    cells = [cell for row in maze for cell in row]
    by_number, by_cell = _rays(maze)
    nodes = 0
    for at, cell in enumerate(cells):
        if cell in ARROWS:
            path = next((path for arrow, _, path in by_cell[at] if arrow == cell), None)
            if path is None:
                return None, 0
            for spot in path:
                if cells[spot] not in ("X", cell):
                    return None, 0
                cells[spot] = cell
    left = {number: int(cells[number]) for number in by_number}
    for number, rays in by_number.items():
        for arrow, _, path in rays:
            for spot in path:
                if cells[spot] != arrow:
                    break
                left[number] -= 1

    def open_cells(ray: Ray) -> list[int]:
        found = []
        for spot in ray[2]:
            if cells[spot] == "X":
                found.append(spot)
            elif cells[spot] != ray[0]:
                break
        return found

    def ways_of(at: int) -> list[Way]:
        """(number, what it fills) for every ray that can reach an empty cell."""
        ways = []
        for arrow, number, path in by_cell[at]:
            if left[number] > 0 and all(cells[spot] in ("X", arrow) for spot in path):
                empty = [spot for spot in path if cells[spot] == "X"]
                if len(empty) <= left[number]:
                    ways.append((number, [(arrow, empty)]))
        return ways

    def next_ways() -> list[Way] | None:
        """The choices at the tightest place; [] where there is none, None where the grid is full."""
        for number, missing in left.items():
            if missing:
                spaces = [(ray[0], open_cells(ray)) for ray in by_number[number]]
                room = sum(len(empty) for _, empty in spaces)
                if room <= missing:
                    return [(number, spaces)] if room == missing else []
        best = None
        for at, cell in enumerate(cells):
            if cell == "X":
                ways = ways_of(at)
                if best is None or len(ways) < len(best):
                    best = ways
                if len(best) < 2:
                    break
        return best

    def fill() -> bool:
        nonlocal nodes
        nodes += 1
        ways = next_ways() if nodes <= max_nodes else []
        if ways is None:
            return not any(left.values())
        for number, spaces in ways:
            for arrow, empty in spaces:
                left[number] -= len(empty)
                for spot in empty:
                    cells[spot] = arrow
            if fill():
                return True
            for _, empty in spaces:
                left[number] += len(empty)
                for spot in empty:
                    cells[spot] = "X"
        return False

    if min(left.values(), default=0) < 0 or sum(left.values()) != cells.count("X"):
        return None, 0
    return ([cells[i * m : (i + 1) * m] for i in range(n)] if fill() else None), nodes
