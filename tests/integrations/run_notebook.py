"""A program: runs cells in a kernel of Jupyter. It takes them as JSON, and so it tells the outputs.

Jupyter's client keeps descriptors and threads for the life of its process.
"""

import json
import sys
from typing import Any

import nbclient
import nbformat


def text(output: Any) -> str:
    """What a reader sees of an output."""
    match output.output_type:
        case "stream":
            return str(output.text)
        case "error":
            return f"{output.ename}: {output.evalue}"
        case _:
            return str(output.data["text/plain"])


def main() -> None:
    v4: Any = nbformat.v4
    cells = [v4.new_code_cell(cell) for cell in json.load(sys.stdin)]
    notebook = v4.new_notebook(cells=cells)
    client = nbclient.NotebookClient(notebook, timeout=40, kernel_name="python3", allow_errors=True)
    client.execute()
    json.dump(["".join(map(text, cell.outputs)) for cell in notebook.cells], sys.stdout)


if __name__ == "__main__":
    main()
