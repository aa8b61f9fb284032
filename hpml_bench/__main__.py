"""`python -m hpml_bench`, and `torchrun -m hpml_bench`."""

from hpml_bench.cli import main

if __name__ == "__main__":
    main(prog_name="hpml-bench")
