"""Serves a .gguf file with llama.cpp, as a process of its own: prints its address, and ends when its standard input closes.

Run as a script, where xllamacpp is importable. Owns nothing else.
"""

import sys


def main(file: str, context: int, parallel: int, threads: int) -> None:
    """Serves until standard input closes."""
    import xllamacpp  # type: ignore[import-not-found]

    params = xllamacpp.CommonParams()
    params.model.path = file
    params.n_ctx, params.n_parallel, params.port = context * parallel, parallel, 0
    params.cpuparams.n_threads = threads
    server = xllamacpp.Server(params)
    print(f"address {server.listening_address}", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:5]))
