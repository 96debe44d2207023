"""What importing the client library needs."""

import subprocess
import sys

SERVER = ("fastapi", "h5py", "numpy", "orjson", "pydantic", "starlette", "uvicorn", "lstm_core")


def run(code):
    """Run a program and return what it prints."""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return ended.stdout.strip()


def test_importing_it_imports_nothing_of_the_server():
    """A client is light."""
    code = "import sys, service.client; print(*sys.modules)"
    modules = run(code).split()
    assert "service.client.session" in modules
    assert [] == [name for name in SERVER if name in modules]
    assert [] == [
        name
        for name in modules
        if name.startswith("service.") and not name.startswith("service.client")
    ]


def test_a_missing_httpx_says_what_to_install():
    """It belongs to an extra."""
    code = (
        "import sys; sys.modules['httpx'] = None\n"
        "try:\n    import service.client\nexcept ImportError as error:\n    print(error)"
    )
    assert "service.client needs httpx: pip install 'lstm-service[client]'" == run(code)
