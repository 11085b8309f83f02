"""`python -m ami`, for those who start other programs by module: `torchrun -m ami train …`."""

from ami.cli import main

main()
