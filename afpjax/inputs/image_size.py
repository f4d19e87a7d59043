"""The size of an image in pixels: one number where it is square, else its rows and columns."""

#: One number stands for a square; a pair of equal ones is written as that number.
ImageSize = int | tuple[int, int]


def rows_columns(size: ImageSize) -> tuple[int, int]:
    """Both sides."""
    return (size, size) if isinstance(size, int) else size


def image_size(rows: int, columns: int) -> ImageSize:
    """The size of so many rows and columns."""
    return rows if rows == columns else (rows, columns)


def pixels(size: ImageSize) -> str:
    """`49 x 10`."""
    return " x ".join(map(str, rows_columns(size)))


def words(size: ImageSize) -> str:
    """As one gives it to an option, and in what order: `32`, `49 10 (rows columns)`."""
    return str(size) if isinstance(size, int) else f"{size[0]} {size[1]} (rows columns)"
