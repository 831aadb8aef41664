"""``python -m atypia``, and what ``torchrun -m atypia`` starts."""

from atypia.cli import main

main()
