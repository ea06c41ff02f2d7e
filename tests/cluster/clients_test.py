"""Clients that others wrote: the openai package and grpcio, the latter from the .proto alone.

usage: clients_test.py SPILLWAY

They live in a virtual environment of the tests' own (SPW_TEST_VENV, made by launch/test). Without it the test is
skipped in words; with CI=true that is a failure.
"""
import os
import subprocess
import sys

sys.path.insert(0, os.path.dirname(__file__))
import harness  # noqa: E402
from harness import DEMO, Deployment, check, serve_words  # noqa: E402

BINARY = sys.argv[1]
PYTHON = os.path.join(os.environ.get("SPW_TEST_VENV", ""), "bin", "python")


def run_client(script, address):
    result = subprocess.run([PYTHON, os.path.join(os.path.dirname(__file__), script), address],
                            capture_output=True, text=True, timeout=300, cwd=harness.ROOT)
    print(result.stdout, flush=True)
    check(result.returncode == 0, f"{script}: {result.stdout}\n{result.stderr}")


def official_openai_client():
    with Deployment(serve_words(BINARY, DEMO)) as deployment:
        run_client("openai_client_test.py", "http://" + deployment.http)


def grpcio_client_from_the_proto():
    with Deployment(serve_words(BINARY, DEMO, 2, 2, many=True)) as deployment:
        run_client("grpc_client_test.py", deployment.grpc)


if __name__ == "__main__":
    if not os.path.exists(PYTHON):
        words = "no SPW_TEST_VENV with openai and grpcio: launch/test makes one"
        if os.environ.get("CI") == "true":
            print(f"FAIL {words}\n0 passed, 1 failed")
            sys.exit(1)
        print(f"skipped: {words}")
        sys.exit(77)
    harness.main([official_openai_client, grpcio_client_from_the_proto])
